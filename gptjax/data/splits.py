"""What a run reads of a corpus: its tokens, to train on and to validate."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable, Iterator

import ml_collections
import numpy as np

from gptjax.data.bpe import BpeTokenizer
from gptjax.data.corpus import AnyCorpus, Corpus
from gptjax.data.mapped import AnyIds
from gptjax.data.texts import Text
from gptjax.data.token_files import TokenFiles
from gptjax.data.tokenizer import CharTokenizer, IdTokenizer, Tokenizer, make_tokenizer
from gptjax.system.errors import UserError

# Bytes of ids that are held in memory; more are written into a file and mapped.
_MOST_IN_MEMORY = 2**30


def tokenizer(corpus: AnyCorpus, data: ml_collections.ConfigDict) -> Tokenizer:
    """The tokenizer of a run that starts on a corpus; a BPE is trained on the training part alone.

    Raises:
      UserError: if the one that is asked for cannot be had.
    """
    if isinstance(corpus, TokenFiles):
        return corpus.tokenizer or IdTokenizer(corpus.vocab_size)
    if data.tokenizer == "char":  # A character that only val has must be known as well.
        return CharTokenizer(corpus.text.symbols)
    return make_tokenizer(data.tokenizer, _parts(corpus.text, 0, _n_train(corpus, data)))


def _n_train(corpus: Corpus, data: ml_collections.ConfigDict) -> int:
    """How many of a text's characters are to train on."""
    return int(corpus.text.n_characters * (1 - data.val_fraction))


def _parts(text: Text, start: int, end: int) -> Iterator[str]:
    """The characters from `start` to `end`, in pieces."""
    n_read = 0
    for piece in text.pieces():
        part = piece[max(0, start - n_read) : max(0, end - n_read)]
        n_read += len(piece)
        if part:
            yield part


@dataclasses.dataclass(frozen=True)
class Splits:
    """Token ids of both splits; `floor_nats` is val's exact mean -ln P, or None if unknown.

    Of token files it is the entropy of what they were drawn from: val's own differs by chance.
    """

    train: AnyIds
    val: AnyIds
    floor_nats: float | None

    @property
    def joined(self) -> np.ndarray:
        """Both, val behind train: not copied where they lie so already."""
        train, val = np.asarray(self.train), np.asarray(self.val)
        if isinstance(train.base, np.ndarray) and train.base is val.base:
            whole = train.base
            starts = [each.__array_interface__["data"][0] for each in (whole, train, val)]
            if starts[1:] == [starts[0], starts[0] + train.nbytes]:
                return whole[: len(train) + len(val)]
        return np.concatenate([train, val])


def split(corpus: AnyCorpus, tokenizer: Tokenizer, data: ml_collections.ConfigDict) -> Splits:
    """The first 1 − val_fraction of the characters for training, the rest for validation.

    Where they are cut, a token of train ends. Token files are split already.

    Raises:
      UserError: if the tokenizer lacks a character or an id.
    """
    if isinstance(corpus, TokenFiles):
        corpus.check_known(tokenizer)
        return Splits(corpus.train, corpus.val, corpus.entropy_nats)
    if isinstance(tokenizer, BpeTokenizer):
        n_train, n_all = _n_train(corpus, data), corpus.text.n_characters
        train = _encoded(corpus, tokenizer, _parts(corpus.text, 0, n_train))
        val = _encoded(corpus, tokenizer, _parts(corpus.text, n_train, n_all))
    else:
        ids = _encoded(corpus, tokenizer, corpus.text.pieces())
        n_train = int(len(ids) * (1 - data.val_fraction))
        train, val = ids[:n_train], ids[n_train:]
    floor = None
    if corpus.log_probs is not None:
        # Val's text has this probability, however many tokens it is written in.
        floor = float(-corpus.log_probs[n_train:].sum() / len(val))
    return Splits(train, val, floor)


def check_lengths(splits: Splits, block_size: int) -> None:
    """Raises UserError when a split cannot fill one window of block_size inputs and a target."""
    for name, ids in (("train", splits.train), ("val", splits.val)):
        if len(ids) < block_size + 1:
            raise UserError(
                "model.block_size",
                block_size,
                f"needs {block_size + 1} tokens; {name} has {len(ids)}",
                "Lower block_size or add text."
                if name == "train"
                else "Lower block_size, add text or, unless it is in token files, raise "
                "--config.data.val_fraction.",
            )


def _encoded(corpus: Corpus, tokenizer: Tokenizer, texts: Iterable[str]) -> np.ndarray:
    """The ids of a text's pieces; encoded one by one, and never held twice."""
    what, dtype = f"corpus {corpus.name}", tokenizer.dtype
    pieces = (tokenizer.encode(piece, what=what) for piece in texts)
    n_most = corpus.text.n_characters  # Of a BPE fewer: a guess of how much it is.
    if n_most * dtype.itemsize > _MOST_IN_MEMORY:
        return _in_a_file(pieces, dtype)
    if not isinstance(tokenizer, CharTokenizer):
        return np.concatenate([np.zeros(0, dtype), *pieces])
    ids, end = np.empty(n_most, dtype), 0
    for piece in pieces:
        ids[end : end + len(piece)] = piece
        end += len(piece)
    return ids


def _in_a_file(pieces: Iterator[np.ndarray], dtype: np.dtype) -> np.ndarray:
    """Ids written one behind another into a file without a name, and mapped: gone with us."""
    with tempfile.TemporaryFile() as file:
        try:
            for piece in pieces:
                file.write(piece.data)
            file.flush()
        except OSError as error:
            reason = f"cannot be kept in {tempfile.gettempdir()}: {error.strerror}"
            raise UserError("data.source", "the ids", reason, "Set TMPDIR.") from error
        return np.memmap(file, dtype, mode="r")
