"""What a run tells of itself, whoever wrote it down: losses, times and facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# What losses can be read and drawn over, each with its words.
AXES = {
    "seconds": "seconds since the command",
    "updates": "updates",
    "tokens": "tokens seen",
    "flops": "FLOPs spent",
}


@dataclasses.dataclass(frozen=True)
class Fact:
    """Something known of a run, and how: `record`, `log`, or the formula that gave it."""

    value: Any
    how: str


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """Losses on both splits, nats per token; NaN where not known. Axis E, by update, ascending.

    Attributes:
      update_E: updates made before the evaluation.
      train_E, val_E: mean losses.
      train_sem_E, val_sem_E: their standard errors.
      seconds_E: since the command began, or since the first update where only that is known.
    """

    update_E: np.ndarray
    train_E: np.ndarray
    val_E: np.ndarray
    train_sem_E: np.ndarray
    val_sem_E: np.ndarray
    seconds_E: np.ndarray

    def __len__(self) -> int:
        return len(self.update_E)


@dataclasses.dataclass(frozen=True)
class Updates:
    """Logged updates, NaN where not known. Axis U, ascending.

    Attributes:
      update_U: updates made by then, this one included.
      loss_U: of this update's batch, nats per token.
      ms_U: what an update took; what an evaluation took is not in it.
      lr_U, grad_norm_U: learning rate and gradient norm before clipping.
      seconds_U: as in Evaluations.
    """

    update_U: np.ndarray
    loss_U: np.ndarray
    ms_U: np.ndarray
    lr_U: np.ndarray
    grad_norm_U: np.ndarray
    seconds_U: np.ndarray

    def __len__(self) -> int:
        return len(self.update_U)


@dataclasses.dataclass(frozen=True)
class Times:
    """Where a run's time went; NaN where not known.

    Attributes:
      update_ms: an update's median; update_ms_low and update_ms_high its 5 and 95 %.
      n_updates: of how many updates.
      evaluation_seconds: an evaluation's median.
      iteration_ms: median of a log's iterations that hold an evaluation, as they were printed.
      evaluation_share: evaluations' share of the run's time.
      ledger: seconds by kind of work; empty where there is no ledger.
    """

    update_ms: float = np.nan
    update_ms_low: float = np.nan
    update_ms_high: float = np.nan
    n_updates: int = 0
    evaluation_seconds: float = np.nan
    iteration_ms: float = np.nan
    evaluation_share: float = np.nan
    ledger: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Series:
    """A run as far as it is known.

    Attributes:
      label: what it is called.
      path: where it was read.
      program: what wrote it, `gptjax` or `nanoGPT`.
      evaluations, updates, times: see there.
      facts: by name: a knob's (`model.n_layer`) or one of FACTS. What is not known is not there.
      notes: what the reader must know of how this was read; sentences.
    """

    label: str
    path: str
    program: str
    evaluations: Evaluations
    updates: Updates
    times: Times
    facts: Mapping[str, Fact]
    notes: tuple[str, ...] = ()

    def value(self, name: str, default: Any = None) -> Any:
        """What is known under that name, else `default`."""
        fact = self.facts.get(name)
        return default if fact is None else fact.value

    def x_E(self, axis: str) -> np.ndarray | None:
        """Where the evaluations stand on one of AXES; None where that is not known."""
        return self._places(axis, self.evaluations.update_E, self.evaluations.seconds_E)

    def x_U(self, axis: str) -> np.ndarray | None:
        """Where the logged updates stand on one of AXES; None where that is not known."""
        return self._places(axis, self.updates.update_U, self.updates.seconds_U)

    def _places(self, axis: str, update: np.ndarray, seconds: np.ndarray) -> np.ndarray | None:
        if axis == "updates":
            return update
        if axis == "seconds":
            return None if np.isnan(seconds).any() else seconds
        each = self.value({"tokens": "tokens_per_update", "flops": "flops_per_update"}[axis])
        return None if each is None else update * float(each)

    @property
    def best(self) -> int | None:
        """The index of the lowest val loss after an update; None without any."""
        evaluations = self.evaluations
        is_one = (evaluations.update_E > 0) & np.isfinite(evaluations.val_E)
        if not is_one.any():
            return None
        return int(np.argmin(np.where(is_one, evaluations.val_E, np.inf)))

    @property
    def last(self) -> int | None:
        """The index of the last finite val loss after an update; None without any."""
        evaluations = self.evaluations
        is_one = (evaluations.update_E > 0) & np.isfinite(evaluations.val_E)
        return int(np.flatnonzero(is_one)[-1]) if is_one.any() else None


# Facts that are not a knob's, with what they are.
FACTS = {
    "program": "what trained it, with its version",
    "recipe": "the known recipe that its settings are",
    "parameters": "parameters, position embeddings not counted",
    "vocab_size": "symbols",
    "tokens_per_update": "tokens an update sees",
    "flops_per_update": "FLOPs of an update: (6N + 12·L·H·Q·T) a token",
    "train_tokens": "tokens of the training split",
    "val_bytes_per_token": "bytes of UTF-8 that a token of val stands for",
    "corpus": "the text's name",
    "corpus_sha256": "the text's sha256",
    "floor_nats": "the text's entropy: no model's loss is below it",
    "device": "the device's name",
    "n_devices": "devices",
    "host_cores": "cores",
    "precision": "what parameters are held in and products computed in",
    "peak_flops_per_s": "what the device could do, FLOP/s",
    "peak_source": "where that is from",
    "shown_mfu": "the MFU that a nanoGPT log shows last, a fraction of an A100's peak, averaged",
    "compiled": "whether torch compiled nanoGPT's model",
    "versions": "versions of the libraries",
    "started": "when its last process began",
    "parent": "the checkpoint it was forked from",
    "loss_estimate": "sweep: a whole split, or eval.max_tokens of it; random: eval.iters batches",
}
