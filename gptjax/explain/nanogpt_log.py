"""What nanoGPT's train.py prints, read as a Series."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

import numpy as np

from gptjax.explain.log_text import pieces
from gptjax.explain.nanogpt_config import Config, Seen
from gptjax.explain.nanogpt_facts import facts_of
from gptjax.explain.nanogpt_lines import Evaluation, Iteration, Torn, lines_of
from gptjax.explain.nanogpt_times import Clock
from gptjax.explain.recipes import with_recipe
from gptjax.explain.series import Evaluations, Fact, Series, Updates
from gptjax.system.errors import UserError

# More iterations than any nanoGPT run prints; of more every second is let go.
_MOST_LINES = 1 << 22


class _Table:
    """Numbered rows of floats in the order of the text."""

    def __init__(self, n_columns: int):
        self.columns = [array("d") for _ in range(1 + n_columns)]
        self.every = 1

    def __len__(self) -> int:
        return len(self.columns[0])

    def append(self, *row: float) -> None:
        """One row; its number first."""
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)
        if len(self) >= _MOST_LINES:
            self.every *= 2
            self.columns = [column[1::2] for column in self.columns]

    def last(self) -> int:
        """The number of the last row; -1 if there is none."""
        return int(self.columns[0][-1]) if self else -1

    def by_number(self) -> list[np.ndarray]:
        """The columns in the order of their numbers; of rows with one number the last."""
        number = np.array(self.columns[0])[::-1]
        _, index = np.unique(number, return_index=True)
        return [np.array(column)[::-1][index] for column in self.columns]


class _Run:
    """One of the runs in a log, maybe gone on with once or more."""

    def __init__(self, config: Config):
        self.config = config
        self.iterations = _Table(3)
        self.evaluations = _Table(2)
        self.resumed: list[int] = []
        self.n_back = 0

    def add(self, line: Iteration | Evaluation) -> None:
        """Takes a line; one whose number is lower than that before it goes back."""
        if isinstance(line, Iteration):
            self.n_back += line.number < self.iterations.last()
            self.iterations.append(line.number, line.loss, line.ms, line.mfu)
        else:
            self.n_back += line.number < self.evaluations.last()
            self.evaluations.append(line.number, line.train, line.val)

    @property
    def has_lines(self) -> bool:
        return bool(self.iterations or self.evaluations)

    def completeness(self) -> int:
        """2: it came to its end, or that is not told; 1: it has an evaluation after an update."""
        if not any(self.evaluations.columns[0]):
            return 0
        end = self.config.told.get("max_iters")
        last = max(self.iterations.last(), self.evaluations.last())
        return 2 if end is None or last >= end else 1


class _Log:
    """The runs of a log as they come; one is kept."""

    def __init__(self) -> None:
        self.run = self.kept = _Run(Config())
        self.header = self.run.config  # What the next line's run is told to be.
        self.n_runs = self.n_torn = self.kept_number = 0

    def read(self, path: Path) -> None:
        """Takes all lines in."""
        for line in lines_of(pieces(path)):
            if isinstance(line, Torn):
                self.n_torn += 1
            elif isinstance(line, Iteration | Evaluation):
                self._add(line)
            else:
                if self.header is self.run.config and self.run.has_lines:
                    self.header = Config()
                self.header.add(line)
        self._end_run()

    def _add(self, line: Iteration | Evaluation) -> None:
        run, header = self.run, self.header
        if run.has_lines and header is not run.config:
            is_same = "resumed" in header.headers or (
                "scratch" not in header.headers and line.number > 0
            )
            if is_same and header:
                run.resumed.append(line.number)
                run.config = header if header.is_read or not run.config else run.config
                self.header = run.config
        elif "resumed" in header.headers and not run.has_lines:
            run.resumed.append(line.number)
        table = run.iterations if isinstance(line, Iteration) else run.evaluations
        if self.header is not run.config or (line.number == 0 and table.last() > 0):
            self._end_run()
            self.run = run = _Run(Config() if self.header is run.config else self.header)
            self.header = run.config
        run.add(line)

    def _end_run(self) -> None:
        """Of several the last one that is whole is kept."""
        if not self.run.has_lines:
            return
        self.n_runs += 1
        if self.n_runs == 1 or self.run.completeness() >= self.kept.completeness():
            self.kept, self.kept_number = self.run, self.n_runs

    def notes(self) -> list[str]:
        """What is to be known of how it was read."""
        run, notes = self.kept, []
        if self.n_runs > 1:
            notes.append(
                f"{self.n_runs} runs are in the log, one after another; this is number "
                f"{self.kept_number}, the last that is whole"
            )
        if run.resumed:
            places = ", ".join(f"{number:,}" for number in run.resumed[:3])
            more = f" and {len(run.resumed) - 3} times more" if len(run.resumed) > 3 else ""
            notes.append(f"it was resumed at update {places}{more}")
        if run.resumed or run.n_back:
            notes.append("of lines with the same number the last one counts")
        if run.n_back > len(run.resumed):
            notes.append("its lines go back to lower numbers without saying why")
        if self.n_torn:
            notes.append(f"{self.n_torn:,} of its lines are torn and were left out")
        if run.iterations.every > 1:
            notes.append(f"of its iterations every {run.iterations.every}th was read")
        return notes


def read_log(path: Path, label: str) -> Series:
    """A run of nanoGPT, from what it printed; `-` is stdin. Only what is there is told.

    Raises:
      UserError: if nothing in it is a line of nanoGPT's, or it is no file that can be read.
    """
    log = _Log()
    log.read(path)
    run = log.kept
    if not run.has_lines:
        n_torn = f"but for {log.n_torn:,} torn ones " if log.n_torn else ""
        raise UserError(
            "log",
            path,
            f"has no line of nanoGPT's, {n_torn}neither `step N: train loss …, val loss …` nor "
            "`iter N: loss …, time …ms`",
            "Give what nanoGPT's train.py printed, or a run directory of gptjax.",
        )
    step_E, train_E, val_E = run.evaluations.by_number()
    number_U, loss_U, ms_U, mfu_U = run.iterations.by_number()
    seen = Seen(
        steps=_divisor(step_E),
        iterations=_divisor(number_U),
        last=int(max(step_E.max(initial=0), number_U.max(initial=0))),
        has_mfu=bool(np.isfinite(mfu_U).any()),
    )
    values, problem = run.config.values(seen)
    facts, notes = facts_of(run.config, values)
    notes = log.notes() + notes
    if problem:
        notes.append(f"nanoGPT's defaults are not taken for what it does not say: {problem}")
    for name, loss_X, number_X in (("val", val_E, step_E), ("loss", loss_U, number_U + 1)):
        if len(bad := number_X[~np.isfinite(loss_X)]):
            notes.append(f"{name} is not finite {len(bad):,} times, first at update {bad[0]:,.0f}")
    interval = values.get("eval_interval")
    clock = Clock(
        number_U, ms_U, step_E, interval=interval.value if interval else 0, resumed=run.resumed
    )
    is_shown = (mfu_U >= 0) & ~clock.holds_U
    if is_shown.any():
        facts["shown_mfu"] = Fact(float(mfu_U[is_shown][-1]), "log")
    seconds_E, seconds_U = clock.seconds()
    unknown_E, unknown_U = (np.full(len(x), math.nan) for x in (step_E, number_U))
    series = Series(
        label=label,
        path=str(path),
        program="nanoGPT",
        evaluations=Evaluations(step_E, train_E, val_E, unknown_E, unknown_E, seconds_E),
        updates=Updates(
            update_U=number_U + 1,
            loss_U=loss_U,
            ms_U=np.where(clock.holds_U, math.nan, ms_U),
            lr_U=unknown_U,
            grad_norm_U=unknown_U,
            seconds_U=seconds_U,
        ),
        times=clock.times(),
        facts=facts,
        notes=(*notes, *clock.notes()),
    )
    return with_recipe(series)


def _divisor(number_X: np.ndarray) -> int:
    return int(np.gcd.reduce(number_X.astype(np.int64))) if len(number_X) else 0
