"""Text to token ids and back: characters, BPE, or ids as numbers; stored as JSON, never pickled."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gptjax.data import bpe, vocabulary_files
from gptjax.data.bpe import BpeTokenizer
from gptjax.system.errors import UserError

# A model reads ids as int32.
MOST_IDS = 2**31


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
          UserError: when its symbols are not in order.
        """
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
    def unit(self) -> str:
        """What a token is, in a word."""
        return "char"

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self.symbols)

    @property
    def default_prompt(self) -> str:
        """What to begin with: a newline, or where there is none the first symbol."""
        return "\n" if "\n" in self.symbols else self.symbols[0]

    @property
    def bytes_per_token(self) -> np.ndarray | None:
        """UTF-8 bytes of each token id's text, for losses per byte."""
        return np.array([len(symbol.encode()) for symbol in self.symbols], dtype=np.int32)

    @property
    def characters_per_token(self) -> np.ndarray | None:
        """Characters of each token id's text: one."""
        return np.ones(len(self.symbols), np.int32)

    def encode(self, text: str, *, what: str = "text") -> np.ndarray:
        """Token ids of `text`, in the smallest unsigned dtype that holds every id.

        Raises:
          UserError: naming the first character that is not in the vocabulary.
        """
        ids = self._id_of_point.take(code_points(text), mode="clip")
        if len(ids) and ids.min() < 0:
            symbol = text[np.argmax(ids < 0)]
            name = unicodedata.name(symbol, "unnamed")
            raise UserError(
                what,
                f"{symbol!r} (U+{ord(symbol):04X} {name})",
                f"is not in the {self.vocab_size}-symbol vocabulary",
                f"Known: {self.symbols!r}",
            )
        return ids.astype(self.dtype)

    @property
    def dtype(self) -> np.dtype:
        """The smallest unsigned one that holds every id."""
        return np.min_scalar_type(self.vocab_size - 1)

    @functools.cached_property
    def _id_of_point(self) -> np.ndarray:
        """Of each code point up to the one behind the last symbol's, −1 where there is none."""
        points = code_points(self.symbols)
        table = np.full(int(points[-1]) + 2, -1, np.int32)
        table[points] = np.arange(len(points))
        return table

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text; raises as `encode` does."""
        return [self.encode(text) for text in texts]

    def known_part(self, text: str) -> tuple[str, list[str]]:
        """What is left of a text without the characters that are not in the vocabulary; these."""
        unknown = set(text) - set(self.symbols)
        return "".join(symbol for symbol in text if symbol not in unknown), sorted(unknown)

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids."""
        return "".join(map(self.symbols.__getitem__, np.asarray(ids).tolist()))

    def decode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[str]:
        """The same in pieces, one for each chunk of ids."""
        return map(self.decode, chunks)


@dataclasses.dataclass(frozen=True)
class IdTokenizer:
    """Tokens of which nothing is known but their ids; as text, the ids are written as numbers."""

    vocab_size: int

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> IdTokenizer:
        """The tokenizer that `to_json` described.

        Raises:
          UserError: when the number of ids is not one that 31 bits can hold.
        """
        vocab_size = stored.get("vocab_size")
        if type(vocab_size) is not int or not 1 <= vocab_size <= MOST_IDS:
            raise UserError("tokenizer", f"{vocab_size!r:.22}", f"must have 1 to {MOST_IDS} ids")
        return cls(vocab_size)

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal tokenizer."""
        return {"kind": "ids", "vocab_size": self.vocab_size}

    @property
    def unit(self) -> str:
        """What a token is, in a word."""
        return "token"

    @property
    def dtype(self) -> np.dtype:
        """uint16, or uint32 for ids that it cannot hold."""
        return np.dtype("uint16" if self.vocab_size <= 2**16 else "uint32")

    @property
    def default_prompt(self) -> str:
        """What to begin with: the last id, which in GPT-2's vocabulary separates documents."""
        return str(self.vocab_size - 1)

    @property
    def bytes_per_token(self) -> np.ndarray | None:
        """None: what the ids stand for is not known."""
        return None

    @property
    def characters_per_token(self) -> np.ndarray | None:
        """None, too."""
        return None

    def encode(self, text: str, *, what: str = "text") -> np.ndarray:
        """The ids that `text` writes as numbers with white space between.

        Raises:
          UserError: naming the first word that is no id, or if there is no word.
        """
        words = text.split()
        for word in words or [""]:
            if not self._is_id(word):
                raise UserError(
                    what,
                    f"{word!r:.22}",
                    f"is no token id; ids are 0 to {self.vocab_size - 1}",
                    "Write them as numbers with spaces between: 12 5 900.",
                )
        return np.array([int(word) for word in words], dtype=self.dtype)

    def known_part(self, text: str) -> tuple[str, list[str]]:
        """What is left of a text without the words that are no ids; these."""
        words = text.split()
        unknown = {word for word in words if not self._is_id(word)}
        return " ".join(word for word in words if word not in unknown), sorted(unknown)

    def _is_id(self, word: str) -> bool:
        # No id has so many digits; int() would refuse thousands of them.
        is_number = word.isascii() and word.isdigit() and len(word) < 11
        return is_number and int(word) < self.vocab_size

    def decode(self, ids: np.ndarray) -> str:
        """The ids as numbers, each after a space: so what follows a text can be added in pieces."""
        return "".join(f" {token}" for token in np.asarray(ids).tolist())

    def decode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[str]:
        """The same in pieces, one for each chunk of ids."""
        return map(self.decode, chunks)


TextTokenizer = CharTokenizer | BpeTokenizer
Tokenizer = TextTokenizer | IdTokenizer

_KINDS: dict[object, Any] = {"char": CharTokenizer, "bpe": BpeTokenizer, "ids": IdTokenizer}


def make_tokenizer(spec: str, texts: Iterable[str]) -> TextTokenizer:
    """The tokenizer that a data.tokenizer asks for: char, bpe:N, gpt2, or a folder of files.

    `texts` are what char and bpe:N are made of. The tokenizer can be pickled: a process that gets
    it so makes its own of what the `tokenizers` library needs.

    Raises:
      UserError: if it cannot be had, or a library that it needs is not installed.
    """
    if spec == "char":
        return CharTokenizer("".join(sorted(set().union(*texts))))
    if spec.startswith("bpe:"):
        return bpe.train(texts, int(spec.removeprefix("bpe:")))
    return vocabulary_files.gpt2() if spec == "gpt2" else vocabulary_files.read_folder(spec)


def from_json(stored: dict[str, Any]) -> Tokenizer:
    """The tokenizer, of any kind, that its `to_json` described.

    Raises:
      UserError: when the description is of another kind or breaks a rule of its kind.
    """
    kind = stored.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise UserError("tokenizer", f"{kind!s:.22}", "must be of kind 'char', 'bpe' or 'ids'")
    return _KINDS[kind].from_json(stored)


def code_points(text: str) -> np.ndarray:
    """The number of each character: uint8 if all are ASCII, else uint32."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
