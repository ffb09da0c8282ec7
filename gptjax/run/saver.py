"""Saving a run: what its checkpoints say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax

from gptjax.config.config import flat
from gptjax.run.boundaries import n_checkpoints
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.inputs import Inputs
from gptjax.run.ledger import Ledger
from gptjax.run.resume import ResumePlan
from gptjax.update.step import TrainState


def checkpoint_bytes(plan: ResumePlan, state: TrainState) -> int:
    """What a run's checkpoints may still take on the disk."""
    # A resumed run has all but the one being written already.
    left = plan.config.train.max_iters - plan.step
    n = 1 if plan.is_resumed else n_checkpoints(plan.config, left)
    return n * sum(leaf.nbytes for leaf in jax.tree.leaves(state))


class Saver:
    """Writes the checkpoints of a run, each once.

    Attributes:
      step: the newest one's, −1 before the first.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        plan: ResumePlan,
        inputs: Inputs,
        ledger: Ledger,
        machine: Mapping[str, Any],
        check_lock: Callable[[], None] = lambda: None,
    ):
        """`check_lock` raises RunError when the run directory is no longer ours."""
        self._checkpoints, self._ledger, self._check_lock = checkpoints, ledger, check_lock
        self.step = plan.step if plan.is_resumed else -1
        self._metadata = {
            "config": flat(plan.config),
            "overrides": plan.overrides,
            "tokenizer": inputs.tokenizer.to_json(),
            "corpus": inputs.to_json(plan.config.data.source),
            "val_sha256": inputs.val_sha256,
            "parent": plan.parent,
            "machine": dict(machine),
        }

    def save(self, state: TrainState, *, best: Mapping[str, Any], val_nats: float | None) -> None:
        """Starts writing a checkpoint, unless this step has one.

        `best` is the lowest val loss so far and its step; `val_nats` that of this step, if it was
        evaluated.

        Raises:
          NotFinite: if the state holds a value that is not finite.
          RunError: if it cannot be saved, an earlier save failed, or the directory is gone.
        """
        step = int(state.step)
        if step == self.step:
            return
        self._check_lock()
        with self._ledger.measure("checkpoint"):
            said = {**self._metadata, "best": dict(best), "ledger": self._ledger.to_json()}
            self._checkpoints.save(state, said, val_nats=val_nats)
        self.step = step

    def check(self) -> None:
        """Raises RunError if a save in the background has failed: nothing is trained in vain."""
        self._checkpoints.check()

    def wait(self) -> None:
        """Returns once all is on the disk; raises RunError if a save failed."""
        with self._ledger.measure("checkpoint"):
            self._checkpoints.wait()
