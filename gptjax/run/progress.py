"""What a person watching sees: notices, and how far it is: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TextIO, TypeVar, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column
from rich.text import Text

from gptjax.system.output import OutputLost, silence

# Without a terminal, lines come at most this often, seconds. (rich.progress draws nothing there.)
_LINE_SECONDS = 5.0

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Notice:
    """A line for the user; a warning is named as one, an alarm cannot be missed."""

    text: str
    level: Literal["info", "warning", "alarm"] = "info"


# What stands before a notice, and how it looks on a terminal.
_LEVELS = {
    "info": ("", ""),
    "warning": ("warning: ", "yellow"),
    "alarm": ("WARNING: ", "bold yellow"),
}


class _Console(Console):
    """A console that falls silent when its reader (`| head`) is gone: the run goes on."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        silence()


class _Screen:
    """A stream that a run prints to, and that does not stop it when it is lost.

    Attributes:
      lost: why nothing can be printed any more; "" as long as it can.
    """

    def __init__(self, stream: TextIO):
        self._stream, self.lost = stream, ""

    def write(self, text: str) -> int:
        """Writes, or notes that it cannot."""
        try:
            return self._stream.write(text)
        except OutputLost as error:
            self.lost = str(error)
            return len(text)

    def flush(self) -> None:
        """Flushes, or notes that it cannot."""
        try:
            self._stream.flush()
        except OutputLost as error:
            self.lost = str(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Display:
    """Prints a run's messages and its progress; use it as a context manager."""

    def __init__(self, *, n_updates: int, step: int, quiet: bool = False):
        """`quiet`: nothing is shown, since another process shows it."""
        self._screen = _Screen(sys.stdout)
        self._console = _Console(
            file=cast(TextIO, self._screen),
            # FORCE_COLOR and its like must not draw a bar into a file.
            force_terminal=sys.stdout.isatty(),
            highlight=False,
            soft_wrap=True,
            quiet=quiet,
        )
        self._n_updates = n_updates
        self._last_line = 0.0
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                BarColumn(bar_width=10),
                # On a narrow terminal the end is cut off, not the middle of a number.
                TextColumn(
                    "{task.completed:.0f}/{task.total:.0f}{task.fields[figures]}",
                    table_column=Column(no_wrap=True, overflow="crop"),
                ),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=n_updates, completed=step, figures="")

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def lost(self) -> str:
        """Why nothing can be printed any more; "" as long as it can."""
        return self._screen.lost

    def message(self, text: str, *, style: str = "") -> None:
        """Prints a line of its own, above the bar where there is one."""
        self._console.print(Text(text, style=style))

    def notice(self, notice: Notice, *, indent: str = "") -> None:
        """Prints a notice."""
        prefix, style = _LEVELS[notice.level]
        self.message(f"{indent}{prefix}{notice.text}", style=style)

    def notices(self, notices: Iterable[Notice]) -> None:
        """Prints several."""
        for notice in notices:
            self.notice(notice)

    @contextlib.contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """While inside, a terminal says what it is that the bar stands still for."""
        if self._bar is None:
            yield
        elif self._bar.live.is_started:
            before = self._bar.tasks[self._task].fields["figures"]
            self._bar.update(self._task, figures=f"{before} · {what}", refresh=True)
            try:
                yield
            finally:
                self._bar.update(self._task, figures=before, refresh=True)
        else:
            with self._console.status(what):
                yield

    def update(self, step: int, figures: dict[str, Any], *, eta_seconds: float) -> None:
        """Shows how far the run is: figures are printed in order as `name value`."""
        words = " · ".join(f"{name} {value}" for name, value in figures.items())
        words += f" · left {duration(eta_seconds)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=f" · {words}")
        elif step >= self._n_updates or time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            self.message(f"step {step}/{self._n_updates} · {words}")


def counted(
    items: Iterable[Item],
    total: int,
    what: str,
    *,
    every: float = _LINE_SECONDS,
    size: Callable[[Item], int] = lambda item: 1,
    is_first_slow: bool = False,
) -> Iterator[Item]:
    """The same items; says on stderr how many of `total` are done and how long the others take.

    Args:
      every: a line comes after an item, but not within so many seconds of the one before.
      size: what an item counts for.
      is_first_slow: whether the first compiles: the pace is then that of those behind it.
    """
    n_done, n_before, start = 0, 0, time.monotonic()
    said = start
    for item in items:
        yield item
        n_done, now = n_done + size(item), time.monotonic()
        if is_first_slow and not n_before:
            n_before, start = n_done, now
        elif n_done < total and now - said >= every:
            said, left = now, (now - start) / (n_done - n_before) * (total - n_done)
            print(f"{n_done:,} of {total:,} {what}, left {duration(left)}", file=sys.stderr)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 05 s", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count(value: float) -> str:
    """A large number with a unit letter: "795.9k", "1.2M"."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.4g}{letter}"
    return f"{value:.4g}"
