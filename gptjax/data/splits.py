"""What a run reads of a corpus: its tokens, to train on and to validate."""

from __future__ import annotations

import dataclasses

import ml_collections
import numpy as np

from gptjax.data.corpus import AnyCorpus
from gptjax.data.token_files import TokenFiles
from gptjax.data.tokenizer import CharTokenizer, IdTokenizer, Tokenizer
from gptjax.system.errors import UserError


def tokenizer(corpus: AnyCorpus) -> Tokenizer:
    """The tokenizer of a run that starts on a corpus."""
    if isinstance(corpus, TokenFiles):
        return IdTokenizer(corpus.vocab_size)
    return CharTokenizer.of_text(corpus.text)


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

    Token files are split already.

    Raises:
      UserError: if the tokenizer lacks a character or an id.
    """
    if isinstance(corpus, TokenFiles):
        corpus.check_known(tokenizer)
        return Splits(corpus.train, corpus.val, corpus.entropy_nats)
    ids = tokenizer.encode(corpus.text, what=f"corpus {corpus.name}")
    n_train = int(len(ids) * (1 - data.val_fraction))
    floor = None
    if corpus.log_probs is not None:
        floor = float(-corpus.log_probs[n_train:].mean())
    return Splits(ids[:n_train], ids[n_train:], floor)


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
