"""How far the same updates drift apart between variants of one run, and whether that matters."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from gptjax.explain.variant import Variant
from gptjax.run.evaluator import Loss, mean_loss


@dataclasses.dataclass(frozen=True)
class Drift:
    """What came of the updates; axes R variants, the first of which is the reference, N updates.

    `distance_RN` is the norm of the parameters' difference from the reference's, as a part of
    theirs; `val_RW` are the losses of val's windows after the last update.
    """

    variants: Sequence[Variant]
    loss_RN: np.ndarray
    grad_norm_RN: np.ndarray
    distance_RN: np.ndarray
    val_RW: np.ndarray

    def differences(self, i: int) -> dict[str, np.ndarray]:
        """Of variant `i` from the reference, axis N: nats, and parts of the reference's norms."""
        grad_norm_N = self.grad_norm_RN[0]
        # A text of one symbol has no gradient.
        whole_N = np.where(grad_norm_N > 0, grad_norm_N, 1)
        return {
            "loss": np.abs(self.loss_RN[i] - self.loss_RN[0]),
            "grad_norm": np.abs(self.grad_norm_RN[i] - grad_norm_N) / whole_N,
            "params": self.distance_RN[i],
        }

    def problem(self, i: int) -> str:
        """What is wrong if update 1, of the same weights and batch, differs too much; else ""."""
        variant, reference = self.variants[i], self.variants[0]
        tolerance = max(variant.precision.tolerance, reference.precision.tolerance)
        found, allowed = self.differences(i)["loss"][0], tolerance * self.loss_RN[0, 0]
        if found <= allowed:
            return ""
        return (
            f"{variant.spec} against {reference.spec}: update 1 differs by {found:.1e}, more than "
            f"rounding explains (at most {allowed:.1e}): one of the two is wrong"
        )

    def val_difference(self, i: int) -> Loss:
        """Val's loss less the reference's; the standard error is that of pairs of windows."""
        return mean_loss(self.val_RW[i] - self.val_RW[0])

    def to_json(self) -> list[dict[str, Any]]:
        """All numbers, by variant."""
        return [
            {
                "spec": variant.spec,
                "device": variant.device.device_kind,
                "precision": variant.precision_name,
                "loss": self.loss_RN[i].tolist(),
                "grad_norm": self.grad_norm_RN[i].tolist(),
                "val": _finite(mean_loss(self.val_RW[i])),
                "differences": {name: v.tolist() for name, v in self.differences(i).items()},
                "val_difference": _finite(self.val_difference(i)),
                "problem": self.problem(i),
            }
            for i, variant in enumerate(self.variants)
        ]


def distance(params: nnx.State, reference: nnx.State) -> float:
    """The norm of the parameters' difference, as a part of the reference's norm."""
    squared_difference = squared = 0.0
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True):
        wide = np.asarray(wanted).astype(np.float64)
        squared_difference += float(np.square(np.asarray(leaf).astype(np.float64) - wide).sum())
        squared += float(np.square(wide).sum())
    return math.sqrt(squared_difference / squared)


def print_updates(drift: Drift, i: int) -> None:
    """Prints how variant `i` drifts: a table of updates 1, 2, 5, 10, … and the last."""
    reference, differences = drift.variants[0].spec, drift.differences(i)
    n_updates, pair = drift.loss_RN.shape[1], f"{drift.variants[i].spec} against {reference}"
    table = Table("update", f"loss on {reference}", "differs by", title=pair)
    table.add_column("gradient norm by")
    table.add_column("parameters by")
    marks = (digit * 10**power for power in range(len(str(n_updates))) for digit in (1, 2, 5))
    for number in [*(mark for mark in marks if mark < n_updates), n_updates]:
        row = (f"{values_N[number - 1]:.1e}" for values_N in differences.values())
        table.add_row(str(number), f"{drift.loss_RN[0, number - 1]:.5f}", *row)
    Console(highlight=False).print(table)
    loss_N, params_N = differences["loss"], differences["params"]
    if not any(values_N.any() for values_N in differences.values()):
        print(f"{pair}: not one digit of a loss, gradient norm or parameter differs")
    else:
        print(
            f"{pair}: the losses of update 1 differ by {loss_N[0]:.1e}, of update {n_updates} "
            f"by {loss_N[-1]:.1e}; parameters by {params_N[-1]:.1e} of their norm"
        )
    if problem := drift.problem(i):
        print(problem)


def print_val(drift: Drift, *, n_tokens: int, unit: str) -> None:
    """Prints the loss that each variant ends with, and whether the difference matters."""
    reference = mean_loss(drift.val_RW[0])
    print(f"val after the last update, on {n_tokens:,} tokens, nats/{unit}:")
    for i, variant in enumerate(drift.variants):
        val, words = mean_loss(drift.val_RW[i]), ""
        if i:
            difference = drift.val_difference(i)
            is_within = abs(difference.mean) <= reference.sem
            words = (
                f", {difference.mean:+.1e} ± {difference.sem:.1e} from the reference: "
                f"{'within' if is_within else 'larger than'} one standard error of val"
            )
        print(f"  {variant.spec}: {val}{words}")


def _finite(loss: Loss) -> dict[str, float | None]:
    """A loss as JSON has it: of a single window there is no standard error."""
    values = dataclasses.asdict(loss)
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
