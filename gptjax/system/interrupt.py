"""Ctrl-C from a script's first instruction on: this module is imported before any other."""

import os
import signal
import sys
import time
from typing import NoReturn

# Seconds since the epoch: what is imported of gptjax is read from here on.
STARTED = time.time()

_PACKAGE = os.path.dirname(os.path.dirname(__file__))


# What is set once Python may not end this process its own way.
_at_once: list[bool] = []


def end(
    number: int, frame: object = None, *, words: str = "interrupted", code: int | None = None
) -> None:
    """Ends the process as a signal does by the shell's rules, or with `code`, saying so."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        if stream and stream.isatty():
            os.write(descriptor, b"\x1b[?25h")  # A bar has hidden the cursor.
    try:
        if sys.stderr and sys.stderr.isatty():
            os.write(2, b"\r\x1b[2K")  # What stood there was not at its end.
        os.write(2, f"gptjax: {words}\n".encode() if words else b"")
    except OSError:
        pass  # The terminal is gone.
    os._exit(128 + number if code is None else code)


def end_scripts_at_once() -> None:
    """In a script of ours Ctrl-C ends the process with 130 from here on; the others do anyway.

    A notebook, or whoever else imports gptjax, keeps its own ways.
    """
    if runs_script_of_ours() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def runs_script_of_ours() -> bool:
    """Whether this process is one of our scripts, and not another program that imports gptjax."""
    main = os.path.abspath(getattr(sys.modules["__main__"], "__file__", ""))
    folder, file = os.path.split(main)
    ours = os.path.join(os.path.dirname(_PACKAGE), "scripts")
    is_here = os.path.realpath(folder) == os.path.realpath(ours)
    is_script = is_here and os.path.exists(f"{_PACKAGE}/{file}")
    is_module = sys.argv[0] == "-m" and any("gptjax." in word for word in sys.orig_argv)
    return is_script or is_module


def all_is_done() -> None:
    """From here on Ctrl-C comes too late for a script of ours: Python is only tidying up."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_at_once_at_the_end() -> None:
    """From here on `leave` lets nobody tidy up: JAX would wait for processes that are gone."""
    _at_once.append(True)


def leave(code: int) -> NoReturn:
    """Leaves the process with this exit code."""
    all_is_done()
    if not _at_once:
        sys.exit(code)
    sys.stderr.flush()
    os._exit(code)
