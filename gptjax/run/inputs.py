"""What a run trains on: its text or tokens, its tokenizer, and both splits."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from gptjax.data import batches, corpus, splits
from gptjax.data.corpus import AnyCorpus
from gptjax.data.splits import Splits
from gptjax.data.tokenizer import Tokenizer
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.metadata import stored_tokenizer
from gptjax.system.errors import UserError

# The validation split, kept in the run directory so that evaluating needs nothing else.
VAL_TOKENS = "val_tokens.npy"


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
        return None if each_V is None else float(each_V[self.splits.val].mean())

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
) -> Inputs:
    """What a config trains on, with the tokenizer of the checkpoint that it goes on from.

    A run that goes on and is no fork has the corpus that it began with, fallback or not.

    Raises:
      UserError: if it cannot be had, has changed since, or is too short for the model.
    """
    data = config.data
    if checkpoint is None or is_fork:
        found = corpus.load(data.source, fallback=data.fallback)
    else:
        found = corpus.load_again(data.source, checkpoint.meta["corpus"])
    tokenizer = stored_tokenizer(checkpoint.meta) if checkpoint else splits.tokenizer(found)
    both = splits.split(found, tokenizer, data)
    splits.check_lengths(both, config.model.block_size)
    return Inputs(found, tokenizer, both, batches.sha256(both.val))


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
