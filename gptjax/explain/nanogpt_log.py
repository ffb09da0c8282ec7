"""What nanoGPT's train.py prints, read as a Series."""

from __future__ import annotations

import math
from array import array
from pathlib import Path

import numpy as np

from gptjax.explain.log_text import pieces
from gptjax.explain.nanogpt_config import Config, Seen
from gptjax.explain.nanogpt_facts import facts_of
from gptjax.explain.nanogpt_lines import Evaluation, Header, Iteration, Torn, lines_of
from gptjax.explain.nanogpt_times import Clock
from gptjax.explain.recipes import with_recipe
from gptjax.explain.series import Evaluations, Fact, Series, Updates
from gptjax.system.errors import UserError

# More iterations than any nanoGPT run prints; of more every second is let go.
_MOST_ROWS = 1 << 22


class _Table:
    """Rows of floats in the order of the text, each with its number first."""

    def __init__(self, n_columns: int):
        self._n_columns, self._values = n_columns, array("d")
        self.last = self.highest = -1
        self.every, self._n_rows = 1, 0

    def __len__(self) -> int:
        return len(self._values) // self._n_columns

    def append(self, *row: float) -> None:
        """One row more."""
        self.last = int(row[0])
        self.highest = max(self.highest, self.last)
        self._n_rows += 1
        if self._n_rows % self.every:
            return
        self._values.extend(row)
        if len(self._values) >= _MOST_ROWS * self._n_columns:
            self.every *= 2
            half = np.array(self._values).reshape(-1, self._n_columns)[1::2]
            self._values = array("d", half.tobytes())

    def by_number(self) -> tuple[np.ndarray, ...]:
        """The columns in the order of their numbers; of rows with one number the last."""
        rows = np.array(self._values).reshape(-1, self._n_columns)[::-1]
        _, index = np.unique(rows[:, 0], return_index=True)
        return tuple(rows[index].T.copy())


class _Run:
    """One of the runs in a log, maybe gone on with once or more."""

    def __init__(self, config: Config):
        self.config = config
        self.iterations, self.evaluations = _Table(4), _Table(3)
        self.resumed: list[int] = []
        self.n_back = 0

    def add(self, line: Iteration | Evaluation) -> None:
        """Takes a line; one whose number is lower than that of the line before it goes back."""
        if isinstance(line, Iteration):
            self.n_back += line.number < self.iterations.last
            self.iterations.append(line.number, line.loss, line.ms, line.mfu)
        else:
            self.n_back += line.number < self.evaluations.last
            self.evaluations.append(line.number, line.train, line.val)

    def resume(self, config: Config, number: int) -> None:
        """A new process goes on with it, from `number`; what its header tells counts."""
        self.resumed.append(number)
        self.iterations.last = self.evaluations.last = -1
        if config.told or config.is_read:
            self.config = config

    def completeness(self) -> int:
        """2: it came to its end, or where that is is not told; 1: it trained and evaluated; 0."""
        if self.evaluations.highest <= 0:
            return 0
        end = self.config.told.get("max_iters")
        last = max(self.iterations.highest, self.evaluations.highest)
        return 2 if end is None or last >= end else 1


class _Log:
    """The runs of a log as they come, the last whole one of which is kept."""

    def __init__(self) -> None:
        self.run: _Run | None = None
        self.kept: _Run | None = None
        self.n_runs = self.n_torn = self._kept_number = 0
        self._header, self._is_header_used = Config(), False

    def read(self, path: Path) -> None:
        """Takes all lines in."""
        for line in lines_of(pieces(path)):
            if isinstance(line, Iteration | Evaluation):
                self._add(line)
            elif isinstance(line, Torn):
                self.n_torn += 1
            else:
                is_config = isinstance(line, Header) and line.kind == "config"
                # Of another process: of a later run, or of the same where there are several.
                if self._is_header_used or (is_config and self._header.told):
                    self._header = Config()
                self._is_header_used = False
                self._header.add(line)
        self._end_run()

    def _add(self, line: Iteration | Evaluation) -> None:
        run, header = self.run, self._header
        if run is None:
            run = self._begin_run(header)
            if header.start == "resumed":
                run.resume(header, line.number)
        elif not self._is_header_used and header.is_start:
            if header.start == "resumed" or (not header.start and line.number > 0):
                run.resume(header, line.number)
            else:
                run = self._begin_run(header)
        elif line.number == 0:
            # No header stands between them.
            table = run.iterations if isinstance(line, Iteration) else run.evaluations
            run = self._begin_run(Config()) if table.last > 0 else run
        self._is_header_used = True
        run.add(line)

    def _begin_run(self, config: Config) -> _Run:
        self._end_run()
        self.run = _Run(config)
        self.n_runs += 1
        return self.run

    def _end_run(self) -> None:
        run, kept = self.run, self.kept
        if run is not None and (kept is None or run.completeness() >= kept.completeness()):
            self.kept, self._kept_number = run, self.n_runs

    def notes(self, run: _Run) -> list[str]:
        """What is to be known of how it was read."""
        notes = []
        if self.n_runs > 1:
            kind = ("", " that has an evaluation, none is whole", " that is whole")
            notes.append(
                f"{self.n_runs:,} runs are in the log, one after another; this is number "
                f"{self._kept_number:,}, the last{kind[run.completeness()]}"
            )
        if run.resumed:
            places = ", ".join(f"{number:,}" for number in run.resumed[:3])
            more = f" and {len(run.resumed) - 3} times more" if len(run.resumed) > 3 else ""
            notes.append(f"it was resumed at update {places}{more}")
        if run.n_back:
            notes.append("its lines go back to lower numbers without saying why")
        if self.n_torn:
            notes.append(f"{self.n_torn:,} of the log's lines are torn and were left out")
        if run.iterations.every > 1:
            notes.append(f"of its iterations one in {run.iterations.every} was read")
        return notes


def read_log(path: Path, label: str) -> Series:
    """A run of nanoGPT, from what it printed; `-` is stdin. Only what is there is told.

    Raises:
      UserError: if nothing in it is a line of nanoGPT's, or it is no file that can be read.
    """
    log = _Log()
    log.read(path)
    run = log.kept
    if run is None:
        what = (
            f"whole line of nanoGPT's; {log.n_torn:,} are torn"
            if log.n_torn
            else (
                "line of nanoGPT's: neither `step N: train loss …, val loss …` nor "
                "`iter N: loss …, time …ms`"
            )
        )
        fix = "Give what nanoGPT's train.py printed, or a run directory of gptjax."
        raise UserError("log", path, f"has no {what}", fix)
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
    notes = log.notes(run) + notes
    if len(step_E) < len(run.evaluations) or len(number_U) < len(run.iterations):
        notes.append("of lines with the same number the last one counts")
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
