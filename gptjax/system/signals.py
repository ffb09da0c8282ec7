"""Ctrl-C, SIGTERM and SIGHUP: the first asks a command to stop, a second one ends it at once.

| the signal comes | then | exit code |
|---|---|---|
| first, while a command reads, compiles or prints | it is left where it is | 129, 130, 143 |
| first, while train.py makes updates, evaluates or saves | that ends, it is saved | 129, 130, 143 |
| first, after train.py's last update, while it saves | the run ends as ever | 0 |
| second, SIGHUP apart | the process ends; what followed the last checkpoint is lost | 130, 143 |

`command.run` watches from a command's start to its end; inside it, train.py's loop notes the first
signal and looks for it between two dispatches. A terminal that is closed sends SIGHUP, often
twice. What the shell has told a process to ignore (`nohup`, a job in the background) it ignores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Somebody who sends one of these a second time does not want to wait.
_URGENT = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While inside, Ctrl-C raises KeyboardInterrupt, the others SystemExit; a second one ends all.

    Python runs a signal's handler between two of its own instructions, which may be minutes away
    while XLA computes; the thread started here is told at once.
    """

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with _handled(leave, (signal.SIGTERM, signal.SIGHUP)):
        previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_end_at_the_second, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            os.close(writer)


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
        yield request


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


def _end_at_the_second(reader: int) -> None:
    """Reads the numbers of arriving signals until the pipe is closed."""
    n_signals = 0
    while numbers := os.read(reader, 1):
        n_signals += numbers[0] in _URGENT
        if n_signals == 2:
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h")  # The bar has hidden the cursor.
            os.write(2, b"gptjax: ended at once; what followed the last checkpoint is lost\n")
            os._exit(128 + numbers[0])
    os.close(reader)
