"""Byte-level BPE as GPT-2 has it: text to token ids and back, without loss for any text.

A text is cut into words by GPT-2's pattern, each word into the bytes of its UTF-8, and pairs of
neighbours are merged in the order in which the merges were learnt. The `tokenizers` library encodes
and trains; it is imported only for that. Decoding, sizes and checks do without.
"""

from __future__ import annotations

import codecs
import dataclasses
import functools
import importlib
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from gptjax.data import bpe_rules
from gptjax.data.bpe_rules import BYTE_OF, END_OF_TEXT
from gptjax.system.errors import UserError

_EXTRA = 'Install it: pip install -e ".[bpe]"'

# Characters of a piece, which one core encodes, and of what is encoded at once: what the library
# says of a character takes some 100 bytes, and much memory is slow.
_PIECE, _AT_ONCE = 2**16, 2**20


@dataclasses.dataclass(frozen=True)
class BpeTokenizer:
    """Byte-level BPE; made by `of`, `from_json` or `train`, which check what they are given.

    Attributes:
      tokens: each token as GPT-2's vocab.json writes it, in the order of ids, a line each.
      merges: each merge as its merges.txt writes it, in their order, a line each.
    """

    tokens: str
    merges: str

    @classmethod
    def of(cls, tokens: str, merges: str) -> BpeTokenizer:
        """The tokenizer of these tokens and merges.

        Raises:
          ValueError: saying what is wrong with them.
        """
        return _checked(tokens, merges)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> BpeTokenizer:
        """The tokenizer that `to_json` described.

        Raises:
          UserError: when it breaks a rule.
        """
        tokens, merges = stored.get("tokens"), stored.get("merges")
        if not isinstance(tokens, str) or not isinstance(merges, str):
            raise UserError("tokenizer", "bpe", "must have tokens and merges, as text")
        try:
            return _checked(tokens, merges)
        except ValueError as error:
            raise UserError("tokenizer", "bpe", str(error)) from error

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `from_json` makes an equal tokenizer."""
        return {"kind": "bpe", "tokens": self.tokens, "merges": self.merges}

    def __reduce__(self) -> tuple[Any, ...]:
        # Without what the library has made of it: each process makes its own.
        return BpeTokenizer, (self.tokens, self.merges)

    @property
    def unit(self) -> str:
        """What a token is, in a word."""
        return "token"

    @functools.cached_property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.tokens.count("\n") + 1

    @functools.cached_property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned dtype that holds every id."""
        return np.min_scalar_type(self.vocab_size - 1)

    @property
    def default_prompt(self) -> str:
        """What to begin with: a newline, as nanoGPT does."""
        return "\n"

    @functools.cached_property
    def end_of_text(self) -> int | None:
        """The id that stands between two texts, and that no text is encoded to; None without."""
        names = self.tokens.split("\n")
        return names.index(END_OF_TEXT) if END_OF_TEXT in names else None

    @functools.cached_property
    def bytes_per_token(self) -> np.ndarray | None:
        """Bytes that each token id stands for, for losses per byte."""
        return np.array([len(each) for each in self._bytes_V], dtype=np.int32)

    @functools.cached_property
    def characters_per_token(self) -> np.ndarray | None:
        """Characters that begin in each token id, for losses per character."""
        begun = [sum(byte & 0xC0 != 0x80 for byte in each) for each in self._bytes_V]
        return np.array(begun, dtype=np.int32)

    def encode(self, text: str, *, what: str = "text") -> np.ndarray:
        """Token ids of `text`, in `dtype`.

        Raises:
          UserError: if the text has no UTF-8, or without the `tokenizers` library.
        """
        _check_utf8(text, what)
        parts = self._encoded(bpe_rules.pieces(text, _PIECE))
        return np.concatenate([np.zeros(0, self.dtype), *parts])

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, in `dtype`; the texts are shared out among all cores.

        A process that is one of several as busy sets TOKENIZERS_PARALLELISM=false first.

        Raises:
          UserError: if a text has no UTF-8, or without the `tokenizers` library.
        """
        for text in texts:
            _check_utf8(text, "text")
        return list(self._encoded(texts))

    def known_part(self, text: str) -> tuple[str, list[str]]:
        """What is left of a text without what has no UTF-8 (half of a surrogate pair); that."""
        unknown = {symbol for symbol in text if "\ud800" <= symbol <= "\udfff"}
        return "".join(symbol for symbol in text if symbol not in unknown), sorted(unknown)

    def decode_bytes(self, ids: np.ndarray) -> bytes:
        """The bytes that token ids stand for."""
        return b"".join(map(self._bytes_V.__getitem__, np.asarray(ids).tolist()))

    def decode(self, ids: np.ndarray) -> str:
        """The text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_stream(self, chunks: Iterable[np.ndarray]) -> Iterator[str]:
        """The same text in pieces: of each chunk of ids what is certain of it, at last the rest."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for ids in chunks:
            yield decoder.decode(self.decode_bytes(ids))
        yield decoder.decode(b"", final=True)

    @functools.cached_property
    def _bytes_V(self) -> list[bytes]:
        return [bytes(map(BYTE_OF.__getitem__, each)) for each in self.tokens.split("\n")]

    @functools.cached_property
    def _engine(self) -> Any:
        library = _library()
        vocabulary = {token: number for number, token in enumerate(self.tokens.split("\n"))}
        merges = [tuple(merge.split(" ")) for merge in self.merges.split("\n") if merge]
        return _with_words(library, library.models.BPE(vocab=vocabulary, merges=merges))

    def _encoded(self, texts: Iterable[str]) -> Iterator[np.ndarray]:
        for group in _groups(texts, _AT_ONCE):
            # Not the library's encode_batch: it also finds out where in a text each token stands.
            for each in self._engine.encode_batch_fast(group, add_special_tokens=False):
                yield np.array(each.ids, self.dtype)


def train(texts: Iterable[str], n_ids: int) -> BpeTokenizer:
    """The tokenizer of `n_ids` ids that texts lead to: bytes, merges, and what ends a text.

    The same texts always lead to the same one.

    Raises:
      UserError: if too few pairs occur twice in the texts, or without the `tokenizers` library.
    """
    library = _library()
    engine = _with_words(library, library.models.BPE())
    trainer = library.trainers.BpeTrainer(
        vocab_size=n_ids - 1,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=bpe_rules.byte_symbols(),
    )
    pieces = (piece for text in texts for piece in bpe_rules.pieces(text, _PIECE))
    engine.train_from_iterator(pieces, trainer)
    model = json.loads(engine.to_str())["model"]
    learnt = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if len(learnt) < n_ids - 1:
        most = len(learnt) + 1
        words = f"the text to train on gives {most:,} tokens: no other pair occurs in it twice"
        raise UserError("data.tokenizer", f"bpe:{n_ids}", words, f"Use bpe:{most} at most.")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    return BpeTokenizer.of("\n".join([*learnt, END_OF_TEXT]), merges)


def _with_words(library: Any, model: Any) -> Any:
    """The library's tokenizer of a model, with GPT-2's pattern."""
    engine = library.Tokenizer(model)
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return engine


def _groups(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """The texts, as many together as have `size` characters or just more."""
    group, n_characters = [], 0
    for text in texts:
        group.append(text)
        n_characters += len(text)
        if n_characters >= size:
            yield group
            group, n_characters = [], 0
    if group:
        yield group


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise UserError("tokenizer", "bpe", "needs the tokenizers library", _EXTRA) from error


def _check_utf8(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(what, repr(text[error.start]), "is no character that UTF-8 has") from error


@functools.lru_cache(maxsize=2)  # A checkpoint's description is asked for its tokenizer often.
def _checked(tokens: str, merges: str) -> BpeTokenizer:
    bpe_rules.check(tokens, merges)
    return BpeTokenizer(tokens, merges)
