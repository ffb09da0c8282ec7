"""What a run trains on: its text or tokens, its tokenizer, and both splits."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from gptjax.config.config import set_knob
from gptjax.config.knobs import KNOBS
from gptjax.data import batches, corpus, splits
from gptjax.data.corpus import AnyCorpus
from gptjax.data.splits import Splits
from gptjax.data.tokenizer import IdTokenizer, Tokenizer
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.metadata import stored_tokenizer
from gptjax.system.errors import UserError

# The validation split, kept in the run directory so that evaluating needs nothing else.
VAL_TOKENS = "val_tokens.npy"

_KNOB = "data.tokenizer"
_CHARACTERS = KNOBS[_KNOB].default

# Tokens looked up together, so that no copy of a split is made.
_AT_ONCE = 2**20


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A corpus under its true name, what turns it into tokens, both splits, and val's digest."""

    corpus: AnyCorpus
    tokenizer: Tokenizer
    splits: Splits
    val_sha256: str

    @property
    def n_tokens(self) -> dict[str, int]:
        """The splits' lengths."""
        return {"train": len(self.splits.train), "val": len(self.splits.val)}

    @property
    def n_bytes(self) -> int:
        """Memory that the tokens take."""
        return self.splits.train.nbytes + self.splits.val.nbytes

    @property
    def val_bytes_per_token(self) -> float | None:
        """Bytes of UTF-8 that a token of val stands for, on average; None where it has none."""
        each_V = self.tokenizer.bytes_per_token
        if each_V is None:
            return None
        n_bytes, val = 0, self.splits.val
        for start in range(0, len(val), _AT_ONCE):
            n_bytes += int(each_V[val[start : start + _AT_ONCE]].sum(dtype=np.int64))
        return n_bytes / len(val)

    def to_json(self, requested: str) -> dict[str, Any]:
        """What the log and the checkpoints say of the corpus; `requested` is data.source."""
        return {
            "name": self.corpus.name,
            "sha256": self.corpus.sha256,
            "requested": requested,
            "fallback_reason": self.corpus.fallback_reason,
            "floor_nats": self.splits.floor_nats,
        }


def read_inputs(
    config: ml_collections.ConfigDict,
    checkpoint: Checkpoint | None = None,
    *,
    is_fork: bool = False,
    doing: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Inputs:
    """What a config trains on, with the tokenizer of the checkpoint that it goes on from.

    A run that goes on and is no fork has the corpus that it began with, fallback or not. `doing`
    says what takes its time while it is entered.

    Raises:
      UserError: if it cannot be had, has changed since, or is too short for the model.
    """
    data = config.data
    if data.tokenizer == _CHARACTERS:
        doing = contextlib.nullcontext  # Nobody sees it.
    if checkpoint is None or is_fork:
        found = corpus.load(data.source, fallback=data.fallback)
    else:
        found = corpus.load_again(data.source, checkpoint.meta["corpus"])
    tokenizer = stored_tokenizer(checkpoint.meta) if checkpoint else None
    # Of ids that are all a checkpoint knows, a fork may say what they stand for.
    is_to_be_named = isinstance(tokenizer, IdTokenizer) and data.tokenizer != _CHARACTERS
    if tokenizer is None or is_to_be_named:
        before = tokenizer
        with doing(f"making the tokenizer {data.tokenizer}"):
            tokenizer = splits.tokenizer(found, data)
        if before is not None and before.vocab_size != tokenizer.vocab_size:
            words = f"has {tokenizer.vocab_size:,} ids; the checkpoint has {before.vocab_size:,}"
            raise UserError(_KNOB, data.tokenizer, words)
    with doing("turning the text into tokens"):
        both = splits.split(found, tokenizer, data)
    splits.check_lengths(both, config.model.block_size)
    return Inputs(found, tokenizer, both, batches.sha256(both.val))


def forked_config(
    requested: ml_collections.ConfigDict, overrides: Collection[str], found: Checkpoint
) -> ml_collections.ConfigDict:
    """The config of a fork: it has the tokenizer of the checkpoint, whose embeddings are of that.

    Raises:
      UserError: if another one is asked for.
    """
    wanted = requested.data.tokenizer
    was = found.meta["config"].get(_KNOB, _CHARACTERS)
    is_of_ids = isinstance(stored_tokenizer(found.meta), IdTokenizer)
    if is_of_ids or wanted == was or requested.data.source.startswith("tokens:"):
        return requested
    if wanted != _CHARACTERS or _KNOB in overrides:
        words = f"the checkpoint {requested.init_from} has {was}"
        raise UserError(_KNOB, wanted, words, "A fork keeps its tokenizer: leave it out.")
    config = requested.copy_and_resolve_references()
    set_knob(config, _KNOB, was)
    return config


def read_val_ids(run_dir: Path, sha256: str) -> np.ndarray:
    """The validation split that a run keeps beside its checkpoints.

    Raises:
      UserError: if it is missing or not the one the checkpoint was validated on.
    """
    path = run_dir / VAL_TOKENS
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError("val split", path, f"cannot be read: {error}") from error
    if batches.sha256(ids) != sha256:
        raise UserError("val split", path, "is not the one this checkpoint was validated on")
    return ids
