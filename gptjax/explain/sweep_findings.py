"""What follows from the runs of a sweep: their law, and which size and rate to take: pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptjax.explain.law_fit import fit
from gptjax.explain.loss_law import MOST_TIMES, Bar, Law, Points, Undetermined

RATE = "optim.learning_rate"

# What is predicted to less than that, relative, is not said: sizes differ by as much.
_LARGEST_ERROR = 0.02


@dataclasses.dataclass(frozen=True)
class SweptRun:
    """A member that is over.

    Attributes:
      setting: what it has that others have not, but for its length and seed, in words.
      values: every knob.
      failed: why it did not come to its end; "" where it did.
      val_nats, val_sem: after the last update, and its standard error; NaN if it failed.
      n_params, n_tokens, flops: weights, tokens seen, computed in all.
      update_seconds: an update's, of a run that has the device for itself.
    """

    setting: str
    values: Mapping[str, Any]
    failed: str
    val_nats: float
    val_sem: float
    n_params: int
    n_tokens: int
    flops: float
    update_seconds: float

    @property
    def n_updates(self) -> int:
        return self.values["train.max_iters"]


@dataclasses.dataclass(frozen=True)
class Cell:
    """All runs with a setting and a length: val is their mean over seeds."""

    runs: tuple[SweptRun, ...]

    @property
    def first(self) -> SweptRun:
        """One of them: all but seed and val are the same."""
        return self.runs[0]

    @property
    def val_nats(self) -> float:
        return float(np.mean([run.val_nats for run in self.runs]))


@dataclasses.dataclass(frozen=True)
class Choice:
    """A size for a run that takes a given time, with the best setting tried of that size.

    Attributes:
      cell: the longest runs of that setting.
      n_updates, n_tokens, flops: of the run that is asked for.
      predicted: its val, by the law or by curves that are one between the runs alone.
      share: of the draws of these, in which this size is the best; NaN without.
    """

    cell: Cell
    n_updates: int
    n_tokens: int
    flops: float
    predicted: Bar | None = None
    share: float = math.nan


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a sweep found.

    Attributes:
      cells: the runs that came to their end, by size and then by length.
      failed: the others.
      best: of each size and length the best setting's cell, by size and then by length.
      law: what they follow; None with `why_no_law`.
      choices: a size each, the one to take first.
      why_no_choice: why there is none for the time asked; "" where there is.
      unsure: the sizes that may be better or worse than these: too little is known of them.
    """

    cells: tuple[Cell, ...]
    failed: tuple[SweptRun, ...]
    best: tuple[Cell, ...]
    law: Law | None
    why_no_law: str
    choices: tuple[Choice, ...]
    why_no_choice: str
    unsure: tuple[Choice, ...]

    @property
    def most_flops(self) -> float:
        """The largest compute that was measured."""
        return max(cell.first.flops for cell in self.cells)

    def same_size(self, cell: Cell) -> list[Cell]:
        """The settings of that size, tried as long, the best first."""
        found = [
            other
            for other in self.cells
            if other.first.n_params == cell.first.n_params
            and other.first.n_tokens == cell.first.n_tokens
        ]
        return sorted(found, key=lambda each: each.val_nats)


def findings(runs: Sequence[SweptRun], *, run_seconds: float) -> Findings:
    """What runs come to, for a run of so many seconds.

    Raises:
      Undetermined: if none came to its end.
    """
    by_cell: dict[tuple[Any, ...], list[SweptRun]] = {}
    for run in runs:
        if not run.failed:
            key = (run.n_params, run.n_tokens, run.setting)
            by_cell.setdefault(key, []).append(run)
    if not by_cell:
        raise Undetermined("no run came to its end")
    cells = tuple(Cell(tuple(by_cell[key])) for key in sorted(by_cell))
    best: dict[tuple[int, int], Cell] = {}
    for cell in cells:
        place = (cell.first.n_params, cell.first.n_tokens)
        if place not in best or cell.val_nats < best[place].val_nats:
            best[place] = cell
    law, curves, why = None, None, ""
    try:
        law = curves = fit(_points(list(best.values())))
    except Undetermined as error:
        why, curves = str(error), error.curves
    choices, why_no_choice, unsure = _choices(cells, list(best.values()), curves, run_seconds)
    failed = tuple(run for run in runs if run.failed)
    return Findings(cells, failed, tuple(best.values()), law, why, choices, why_no_choice, unsure)


def _points(best: Sequence[Cell]) -> Points:
    firsts = [cell.first for cell in best]
    return Points(
        n_params_P=np.array([float(run.n_params) for run in firsts]),
        n_tokens_P=np.array([float(run.n_tokens) for run in firsts]),
        flops_P=np.array([run.flops for run in firsts]),
        loss_P=np.array([cell.val_nats for cell in best]),
    )


def _choices(
    cells: Sequence[Cell], best: Sequence[Cell], curves: Law | None, run_seconds: float
) -> tuple[tuple[Choice, ...], str, tuple[Choice, ...]]:
    """A choice for each size, the best first; without curves as the longest runs came out.

    A size whose run would compute more than MOST_TIMES of what was measured is none. What comes
    last are the sizes of which too little is known.
    """
    longest = {cell.first.n_params: cell for cell in best}  # Of each size the last is longest.
    most_flops = max(cell.first.flops for cell in best)
    choices: list[Choice] = []
    beyond: list[Choice] = []
    for cell in longest.values():
        run = cell.first
        # Some were trained while the machine was busy.
        same = [other for other in cells if other.first.n_params == run.n_params]
        each_seconds = np.median([r.update_seconds for other in same for r in other.runs])
        n_updates = max(1, int(run_seconds / each_seconds))
        times = n_updates / run.n_updates
        choice = Choice(cell, n_updates, round(times * run.n_tokens), times * run.flops)
        (choices if choice.flops <= MOST_TIMES * most_flops else beyond).append(choice)
    if not choices:
        times = min(choice.flops for choice in beyond) / most_flops
        why = (
            f"such a run computes {times:.0f} times as much as the longest here: what it ends on "
            f"is not extrapolated beyond {MOST_TIMES:g} times"
        )
        return (), why, ()
    by_val = tuple(sorted(choices, key=lambda each: each.cell.val_nats))
    if curves is None:
        return by_val, "", ()
    told: list[tuple[Bar, Choice]] = []
    unsure: list[tuple[Bar, Choice]] = []
    for each in choices:
        n_params = each.cell.first.n_params
        bar = curves.loss(n_params=n_params, n_tokens=each.n_tokens, flops=each.flops)
        is_known = bar.error <= _LARGEST_ERROR * bar.value
        (told if is_known else unsure).append((bar, each))
    if not told:
        return by_val, "", ()
    draws_CS = np.stack(
        [curves.draws(n_params=c.cell.first.n_params, n_tokens=c.n_tokens) for _, c in told]
    )
    found = [
        dataclasses.replace(each, predicted=bar, share=float(np.mean(draws_CS.argmin(axis=0) == i)))
        for i, (bar, each) in enumerate(told)
    ]
    order = sorted(range(len(told)), key=lambda i: told[i][0].value)
    left_out = tuple(dataclasses.replace(each, predicted=bar) for bar, each in unsure)
    return tuple(found[i] for i in order), "", left_out
