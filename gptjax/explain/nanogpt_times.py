"""Where a nanoGPT run's time went, from the times of its iterations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gptjax.explain.series import Times


class Clock:
    """The iterations of a log that hold an evaluation, apart from the others. Axes U, E.

    Attributes:
      holds_U: whether iteration U holds an evaluation: it has the number of one, or that of a start
        or, where the interval is known, a multiple of it.
    """

    def __init__(
        self,
        number_U: np.ndarray,
        ms_U: np.ndarray,
        step_E: np.ndarray,
        *,
        interval: int,
        resumed: Sequence[int],
    ):
        """Takes the iterations' numbers and times, the evaluations' numbers, and the starts."""
        self._number_U, self._ms_U, self._step_E = number_U, ms_U, step_E
        starts = np.array([0, *resumed], np.float64)
        self.holds_U = np.isin(number_U, step_E) | np.isin(number_U, starts)
        if interval:
            self.holds_U |= number_U % interval == 0
        # A start compiles and warms up, so that it says little of an evaluation.
        is_start_U = np.isin(number_U, starts)
        is_timed_U = np.isfinite(ms_U)
        plain = ms_U[is_timed_U & ~self.holds_U]
        with_one = ms_U[is_timed_U & self.holds_U & ~is_start_U]
        self._n_plain = len(plain)
        self._low, self._median, self._high = (_percentile(plain, part) for part in (5, 50, 95))
        self._iteration_ms = _percentile(with_one, 50)

    @property
    def _is_whole(self) -> bool:
        """Whether the log has the run's beginning, so that its clock can be started."""
        is_begun = 0 in (*self._number_U[:1], *self._step_E[:1])
        return is_begun and len(self._number_U) > 0

    @property
    def _evaluation_ms(self) -> float:
        # Python's max gives its first argument if that is NaN.
        return float(max(self._iteration_ms - self._median, 0.0))

    def times(self) -> Times:
        """Medians, and evaluations' share of the whole run where its beginning is told."""
        share = math.nan
        if self._is_whole:
            n_evaluations = len(self._step_E)
            total_ms = 1e3 * self.seconds()[1][-1]
            share = float(n_evaluations * self._evaluation_ms / total_ms) if total_ms else share
        return Times(
            update_ms=self._median,
            update_ms_low=self._low,
            update_ms_high=self._high,
            n_updates=self._n_plain,
            evaluation_seconds=self._evaluation_ms / 1e3,
            iteration_ms=self._iteration_ms,
            evaluation_share=share,
        )

    def seconds(self) -> tuple[np.ndarray, np.ndarray]:
        """When each evaluation and each iteration had ended; NaN if the beginning is not told.

        Iterations that are not in the log count at the median.
        """
        if not self._is_whole:
            return np.full(len(self._step_E), math.nan), np.full(len(self._number_U), math.nan)
        usual_U = np.where(self.holds_U, self._iteration_ms, self._median)
        ms_U = np.where(np.isfinite(self._ms_U), self._ms_U, usual_U)
        part_E = np.full(len(self._step_E), self._evaluation_ms)
        is_there_E = np.isin(self._step_E, self._number_U)
        with_E = ms_U[np.isin(self._number_U, self._step_E)]
        part_E[is_there_E] = np.fmax(with_E - np.nan_to_num(self._median), 0)
        ended_E = self._before(self._step_E, ms_U) + part_E
        ended_U = self._before(self._number_U, ms_U) + ms_U
        return ended_E / 1e3, ended_U / 1e3

    def _before(self, number_X: np.ndarray, ms_U: np.ndarray) -> np.ndarray:
        """Milliseconds until iteration `number_X` began."""
        n_told_X = np.searchsorted(self._number_U, number_X)
        missing_E = self._step_E[~np.isin(self._step_E, self._number_U)]
        told_X = np.concatenate([[0.0], np.cumsum(ms_U)])[n_told_X]
        n_missing_X = number_X - n_told_X
        n_evaluations_X = np.searchsorted(missing_E, number_X)
        # What is not known does not matter where nothing is missing.
        missing_X = np.where(n_missing_X > 0, n_missing_X * self._median, 0)
        in_missing_X = np.where(n_evaluations_X > 0, n_evaluations_X * self._evaluation_ms, 0)
        return told_X + missing_X + in_missing_X

    def notes(self) -> list[str]:
        """What is estimated, and what cannot be."""
        n_told = len(self._number_U)
        if not n_told:
            return ["no iteration is in the log: its times are not known"]
        if not self._is_whole:
            return ["the beginning is not in the log: seconds since then are not known"]
        n_all = int(self._number_U[-1]) + 1
        if n_told == n_all:
            return []
        return [
            f"seconds are estimated: {n_told:,} of {n_all:,} iterations are in the log, the others "
            "count at the median"
        ]


def _percentile(ms_U: np.ndarray, part: float) -> float:
    """NaN of none."""
    return float(np.percentile(ms_U, part)) if len(ms_U) else math.nan
