"""Ctrl-C and SIGTERM: the first asks a command to stop, a second one ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

KINDS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While inside, SIGTERM raises SystemExit(143), and a second signal ends the process at once.

    Python runs a signal's handler between two of its own instructions, which may be minutes away
    while XLA computes; the thread started here is told at once. Ctrl-C raises KeyboardInterrupt.
    """

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with handled(leave, (signal.SIGTERM,)):
        previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threading.Thread(target=_end_at_the_second, args=(reader,), daemon=True).start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            os.close(writer)


@contextlib.contextmanager
def handled(
    handler: Callable[[int, object], None], kinds: tuple[signal.Signals, ...] = KINDS
) -> Iterator[None]:
    """While inside, signals of these kinds call `handler`."""
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
        n_signals += numbers[0] in KINDS
        if n_signals == 2:
            if sys.stdout.isatty():
                os.write(1, b"\x1b[?25h")  # The bar has hidden the cursor.
            os.write(2, b"gptjax: ended at once; what followed the last checkpoint is lost\n")
            os._exit(128 + numbers[0])
    os.close(reader)
