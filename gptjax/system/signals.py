"""Ctrl-C, SIGTERM and SIGHUP: the first asks a command to stop, a second one ends it at once.

| the signal comes | then | exit code |
|---|---|---|
| first, while a command reads, compiles or prints | it ends within a second | 129, 130, 143 |
| first, while train.py makes updates, evaluates or saves | that ends, it is saved | 129, 130, 143 |
| first, after train.py's last update, while it saves | the run ends as ever | 0 |
| second, SIGHUP apart | the process ends; what followed the last checkpoint is lost | 130, 143 |

interrupt.py holds from a script's first instruction to its last; within it `command.run` watches,
and within that train.py's loop notes the first signal and looks for it between two dispatches. A
terminal that is closed sends SIGHUP, often twice. What the shell has told a process to ignore
(`nohup`, a job in the background) it ignores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from gptjax.system.interrupt import end

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Somebody who sends one of these a second time does not want to wait.
_URGENT = (signal.SIGINT, signal.SIGTERM)

# Seconds for tidying up, before the process ends whether or not that is done.
_TIDY_SECONDS = 0.7


class _Watch:
    """What is to be done before a signal ends the process, and whether it is only noted now."""

    def __init__(self) -> None:
        self.tidied: list[Callable[[], object]] = []
        self.is_noted = False


_watch = _Watch()


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While inside, a signal ends the process, unless it is noted.

    It is a thread that does it. Python would run a handler between two of its own instructions,
    which may be minutes away while XLA computes; and an exception raised there may come up in a
    library that swallows it (garbage collection, XLA's callbacks), prints it or aborts (modules
    written in C, as they are imported).
    """

    def leave_it(number: int, frame: object) -> None:
        """What the thread has seen by now, nobody else needs to."""

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with _handled(leave_it, KINDS):
        previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_end_in_time, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            os.close(writer)


@contextlib.contextmanager
def tidied(tidy: Callable[[], object]) -> Iterator[None]:
    """While inside, a signal that ends the process calls `tidy` before; leaving it calls nothing.

    For what must not outlive the process: one that it has started, a temporary folder.
    """
    _watch.tidied.append(tidy)
    try:
        yield
    finally:
        _watch.tidied.remove(tidy)


@dataclasses.dataclass
class StopRequest:
    """Whether somebody has asked to stop: by which signal, 0 for none."""

    number: int = 0

    @property
    def exit_code(self) -> int:
        """The shell's way to say that this signal has ended a process."""
        return 128 + self.number

    @property
    def name(self) -> str:
        """SIGINT, SIGTERM or SIGHUP."""
        return signal.Signals(self.number).name


@contextlib.contextmanager
def noted() -> Iterator[StopRequest]:
    """While inside, the first signal interrupts nothing: it stands in the request yielded."""
    request = StopRequest()

    def note(number: int, frame: object) -> None:
        request.number = number

    with _handled(note, KINDS):
        _watch.is_noted = True
        try:
            yield request
        finally:
            _watch.is_noted = False


@contextlib.contextmanager
def _handled(
    handler: Callable[[int, object], None], kinds: tuple[signal.Signals, ...]
) -> Iterator[None]:
    """While inside, signals of these kinds call `handler`, unless they are ignored."""
    kinds = tuple(kind for kind in kinds if signal.getsignal(kind) != signal.SIG_IGN)
    previous = [signal.signal(kind, handler) for kind in kinds]
    try:
        yield
    finally:
        for kind, before in zip(kinds, previous, strict=True):
            signal.signal(kind, before)


def _end_in_time(reader: int) -> None:
    """Reads the numbers of arriving signals until the pipe is closed."""
    n_urgent = 0
    while numbers := os.read(reader, 1):
        number = numbers[0]
        n_urgent += number in _URGENT
        if n_urgent == 2:
            end(number, words="ended at once; what followed the last checkpoint is lost")
        if number in KINDS and not _watch.is_noted:
            end_tidied("interrupted", code=128 + number)
    os.close(reader)


def end_tidied(words: str, *, code: int) -> None:
    """Ends the process from whatever thread, tidied up as a signal would have it; says `words`."""
    tidying = threading.Thread(target=_tidy, daemon=True)
    tidying.start()
    tidying.join(_TIDY_SECONDS)
    end(0, words=words, code=code)


def _tidy() -> None:
    sys.stdout.flush()  # What was printed is to be seen, unless its reader is slow.
    for tidy in reversed(_watch.tidied):
        tidy()
