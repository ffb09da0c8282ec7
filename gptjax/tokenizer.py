"""Text to token ids and back, one id per character; stored as JSON, never pickled."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import Any

import numpy as np

from gptjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class CharTokenizer:
    """One token per character; ids follow the code points' order, as nanoGPT's do."""

    symbols: str

    @classmethod
    def of_text(cls, text: str) -> CharTokenizer:
        """The tokenizer of the distinct characters of `text`."""
        return cls("".join(sorted(set(text))))

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> CharTokenizer:
        """The tokenizer that `to_json` described.

        Raises:
          UserError: when the description is of another kind or its symbols are not in order.
        """
        if stored.get("kind") != "char":
            raise UserError("tokenizer", stored.get("kind"), "must be of kind 'char'")
        symbols = stored.get("symbols")
        if not isinstance(symbols, str) or not symbols or symbols != "".join(sorted(set(symbols))):
            raise UserError("tokenizer", f"{symbols!r:.22}", "must be distinct symbols in order")
        try:
            symbols.encode()
        except UnicodeEncodeError as error:
            raise UserError("tokenizer", f"{symbols!r:.22}", "is no text in UTF-8") from error
        return cls(symbols)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal tokenizer."""
        return {"kind": "char", "symbols": self.symbols}

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self.symbols)

    @property
    def bytes_per_token(self) -> np.ndarray:
        """UTF-8 bytes of each token id's text, for losses per byte."""
        return np.array([len(symbol.encode()) for symbol in self.symbols], dtype=np.int32)

    def encode(self, text: str, *, what: str = "text") -> np.ndarray:
        """Token ids of `text`, in the smallest unsigned dtype that holds every id.

        Raises:
          UserError: naming the first character that is not in the vocabulary.
        """
        points = _code_points(text)
        table = _code_points(self.symbols)
        ids = np.minimum(np.searchsorted(table, points), len(table) - 1)
        wrong = np.flatnonzero(table[ids] != points)
        if wrong.size:
            symbol = text[wrong[0]]
            name = unicodedata.name(symbol, "unnamed")
            raise UserError(
                what,
                f"{symbol!r} (U+{ord(symbol):04X} {name})",
                f"is not in the {self.vocab_size}-symbol vocabulary",
                f"Known: {self.symbols!r}",
            )
        return ids.astype(np.min_scalar_type(self.vocab_size - 1))

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids."""
        return "".join(map(self.symbols.__getitem__, np.asarray(ids).tolist()))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
