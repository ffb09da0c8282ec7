"""What a run's log tells of its losses: evaluations, at which update, token, FLOP and second."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.run.runlog import read_records
from gptjax.system.errors import UserError

# What evaluations can be drawn over, each with its words.
AXES = {
    "seconds": "seconds since the command",
    "updates": "updates",
    "tokens": "tokens seen",
    "flops": "FLOPs spent",
}


@dataclasses.dataclass(frozen=True)
class Series:
    """A run's evaluations, axis E, and its logged updates, axis U.

    Attributes:
      label: what the run is called.
      x, update_x: for each of AXES, where the evaluations and the updates stand.
      val_E, sem_E: val's loss, nats per token, and its standard error.
      loss_U: the loss of single updates' batches.
    """

    label: str
    x: dict[str, np.ndarray]
    val_E: np.ndarray
    sem_E: np.ndarray
    update_x: dict[str, np.ndarray]
    loss_U: np.ndarray

    @property
    def best(self) -> int:
        """The index of the lowest loss after an update."""
        is_trained = self.x["updates"] > 0
        return int(np.argmin(np.where(is_trained, self.val_E, np.inf)))


def read_series(run: str) -> Series:
    """The evaluations in the log of a run, given as its directory or as LABEL=DIRECTORY.

    Raises:
      UserError: if there is no log, or no evaluation in it.
    """
    label, equals, folder = run.partition("=")
    path = Path(folder if equals else run).expanduser()
    records = read_records(path / "metrics.jsonl")
    if not records:
        rule = "has no metrics.jsonl, or nothing in it"
        raise UserError("run", path, rule, "Give a run directory.")
    # A single window has no standard error, a loss that is not a number is no loss.
    evaluations = [r for r in records if r["kind"] == "eval" and r.get("val_loss") is not None]
    if not evaluations:
        raise UserError("run", path, "has no evaluation yet")
    trained = [record for record in records if record["kind"] == "train"]
    if not trained or evaluations[-1]["step"] == 0:
        raise UserError("run", path, "has no evaluation after an update yet")
    tokens, flops = (
        trained[-1][name] / trained[-1]["step"] for name in ("tokens_seen", "flops_total")
    )
    told = [record for record in trained if record["loss"] is not None]

    def places(records: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        updates = np.array([record["step"] for record in records], np.float64)
        seconds = np.array([record["seconds"] for record in records], np.float64)
        return dict(
            seconds=seconds, updates=updates, tokens=updates * tokens, flops=updates * flops
        )

    return Series(
        label=label if equals else path.resolve().name,
        x=places(evaluations),
        update_x=places(told),
        loss_U=np.array([record["loss"] for record in told], np.float64),
        val_E=np.array([record["val_loss"] for record in evaluations], np.float64),
        sem_E=np.array([record.get("val_sem") or 0.0 for record in evaluations], np.float64),
    )
