"""What a run reads of a corpus: its tokens, to train on and to validate."""

from __future__ import annotations

import dataclasses

import ml_collections
import numpy as np

from gptjax.data.bpe import BpeTokenizer
from gptjax.data.corpus import AnyCorpus, Corpus
from gptjax.data.token_files import TokenFiles
from gptjax.data.tokenizer import IdTokenizer, Tokenizer, make_tokenizer
from gptjax.system.errors import UserError


def tokenizer(corpus: AnyCorpus, data: ml_collections.ConfigDict) -> Tokenizer:
    """The tokenizer of a run that starts on a corpus; a BPE is trained on the training part alone.

    Raises:
      UserError: if the one that is asked for cannot be had.
    """
    if isinstance(corpus, TokenFiles):
        return IdTokenizer(corpus.vocab_size)
    # A character that only val has must be known as well.
    n_read = len(corpus.text) if data.tokenizer == "char" else _n_train(corpus, data)
    return make_tokenizer(data.tokenizer, [corpus.text[:n_read]])


def _n_train(corpus: Corpus, data: ml_collections.ConfigDict) -> int:
    """How many of a text's characters are to train on."""
    return int(len(corpus.text) * (1 - data.val_fraction))


@dataclasses.dataclass(frozen=True)
class Splits:
    """Token ids of both splits; `floor_nats` is val's exact mean -ln P, or None if unknown.

    Of token files it is the entropy of what they were drawn from: val's own differs by chance.
    """

    train: np.ndarray
    val: np.ndarray
    floor_nats: float | None


def split(corpus: AnyCorpus, tokenizer: Tokenizer, data: ml_collections.ConfigDict) -> Splits:
    """The first 1 − val_fraction of the characters for training, the rest for validation.

    Where they are cut, a token of train ends. Token files are split already.

    Raises:
      UserError: if the tokenizer lacks a character or an id.
    """
    if isinstance(corpus, TokenFiles):
        corpus.check_known(tokenizer)
        return Splits(corpus.train, corpus.val, corpus.entropy_nats)
    what = f"corpus {corpus.name}"
    if isinstance(tokenizer, BpeTokenizer):
        n_train = _n_train(corpus, data)
        train = tokenizer.encode(corpus.text[:n_train], what=what)
        val = tokenizer.encode(corpus.text[n_train:], what=what)
    else:
        ids = tokenizer.encode(corpus.text, what=what)
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
