"""Where two loss curves are read: at equal updates, tokens, FLOPs or seconds. Pure."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gptjax.explain.series import Series


@dataclasses.dataclass(frozen=True)
class Reading:
    """A val loss with the standard error of its estimate (NaN: not known)."""

    val: float
    sem: float


@dataclasses.dataclass(frozen=True)
class Meeting:
    """Two curves at the largest place that both have; or, if `x` is NaN, why there is none.

    Attributes:
      axis: one of AXES.
      x: the place.
      a, b: the losses there.
      first_b, last_a: where the ranges miss each other: the later one begins at `first`, the
        earlier one ends at `last`; `later` names the run that begins later.
    """

    axis: str
    x: float = math.nan
    a: Reading = Reading(math.nan, math.nan)
    b: Reading = Reading(math.nan, math.nan)
    later: str = ""
    first: float = math.nan
    last: float = math.nan


def points(series: Series, axis: str) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(x, val, standard error) of the finite evaluations after an update; None without any."""
    x_E, evaluations = series.x_E(axis), series.evaluations
    if x_E is None:
        return None
    is_one = (evaluations.update_E > 0) & np.isfinite(evaluations.val_E) & (x_E > 0)
    if not is_one.any():
        return None
    return x_E[is_one], evaluations.val_E[is_one], evaluations.val_sem_E[is_one]


def read_at(series: Series, axis: str, x: float) -> Reading | None:
    """The loss at a place, interpolated on a logarithmic axis; None outside of what was measured.

    Between two evaluations a straight line over log x: monotone, as it must be.
    """
    found = points(series, axis)
    if found is None:
        return None
    x_E, val_E, sem_E = found
    if not x_E[0] * (1 - 1e-9) <= x <= x_E[-1] * (1 + 1e-9):
        return None
    val = float(np.interp(math.log(x), np.log(x_E), val_E))
    # The larger one of both neighbours: between them nothing was measured.
    right = min(int(np.searchsorted(x_E, x * (1 - 1e-9))), len(x_E) - 1)
    left = right if x_E[right] <= x * (1 + 1e-9) else max(right - 1, 0)
    return Reading(val, float(max(sem_E[left], sem_E[right])))


def meet(a: Series, b: Series, axis: str) -> Meeting | None:
    """Two curves at the largest place that both have; None where an axis is not known of one."""
    of_a, of_b = points(a, axis), points(b, axis)
    if of_a is None or of_b is None:
        return None
    x = min(of_a[0][-1], of_b[0][-1])
    at_a, at_b = read_at(a, axis, x), read_at(b, axis, x)
    if at_a and at_b:
        return Meeting(axis, float(x), at_a, at_b)
    starts = {a.label: of_a[0][0], b.label: of_b[0][0]}
    later = max(starts, key=starts.__getitem__)
    return Meeting(axis, later=later, first=float(starts[later]), last=float(x))


def reading(series: Series, index: int) -> Reading:
    """The evaluation of that index."""
    evaluations = series.evaluations
    return Reading(float(evaluations.val_E[index]), float(evaluations.val_sem_E[index]))


def first_parting(a: Series, b: Series, tolerance: float) -> float | None:
    """The first update at which both were evaluated and differ by more than the tolerance."""
    val_b = dict(zip(b.evaluations.update_E, b.evaluations.val_E, strict=True))
    for update, val in zip(a.evaluations.update_E, a.evaluations.val_E, strict=True):
        if update in val_b and abs(val - val_b[update]) > tolerance:
            return float(update)
    return None


def largest_difference(a: Series, b: Series) -> float | None:
    """The largest difference at common updates, of val, train and batches' losses.

    None if no update is common; 0.0 means that all are equal to the last bit.
    """
    largest = None
    pairs = [
        (a.evaluations.update_E, a.evaluations.val_E, b.evaluations.update_E, b.evaluations.val_E),
        (
            a.evaluations.update_E,
            a.evaluations.train_E,
            b.evaluations.update_E,
            b.evaluations.train_E,
        ),
        (a.updates.update_U, a.updates.loss_U, b.updates.update_U, b.updates.loss_U),
    ]
    for x_a, y_a, x_b, y_b in pairs:
        at_b = dict(zip(x_b, y_b, strict=True))
        for x, y in zip(x_a, y_a, strict=True):
            difference = abs(y - at_b.get(x, math.nan))
            if np.isfinite(difference):
                largest = max(largest or 0.0, float(difference))
    return largest
