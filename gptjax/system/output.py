"""What a command prints: text made harmless for a terminal, and a stdout that may fail."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator

from gptjax.system.errors import RunError

# What drives a terminal or turns text around, and no letter of any script: the control characters
# but newline, tab and a carriage return that belongs to a Windows line end; U+202A to U+202E and
# U+2066 to U+2069, which override the direction of what follows (Trojan Source, CVE-2021-42574).
_DRIVING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


class OutputLost(RunError):
    """What was to be printed could not be: the disk is full, or the terminal is gone."""


def printable(text: str) -> str:
    """The text with what could drive a terminal escaped: a file must not do that.

    Letters, spaces, joiners and marks of all scripts stay as they are.
    """
    return _DRIVING.sub(lambda match: _escape(match[0]), text)


def _escape(symbol: str) -> str:
    return f"\\x{ord(symbol):02x}" if ord(symbol) < 0x100 else f"\\u{ord(symbol):04x}"


class _Stdout(io.TextIOWrapper):
    """A stdout that says OutputLost when it cannot be written to; once, and is then silent."""

    def write(self, text: str) -> int:
        with self._lost_told():
            return super().write(text)

    def flush(self) -> None:
        with self._lost_told():
            super().flush()

    @contextlib.contextmanager
    def _lost_told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            # What is still in the buffer goes nowhere, without a second error at exit.
            silence()
            raise OutputLost(f"stdout could not be written: {error.strerror}") from error


@contextlib.contextmanager
def waiting(what: str = "starting") -> Iterator[None]:
    """While inside, something turns on stderr, if that is a terminal, and says what takes so long.

    Python must not be busy with one thing for long: it has to turn it.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    # Half as long to import as Python takes to start.
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner

    # FORCE_COLOR and its like must not draw into a file, nor what is printed go to the terminal.
    console, spinner = Console(stderr=True, force_terminal=True), Spinner("dots", printable(what))
    with Live(
        spinner, console=console, transient=True, redirect_stdout=False, refresh_per_second=10
    ):
        yield


def ours_alone() -> None:
    """From here on stdout is Python's alone; what libraries print by themselves leads nowhere."""
    if not isinstance(sys.stdout, io.TextIOWrapper) or sys.stdout.fileno() != 1:
        return  # A notebook's, or a test's.
    sys.stdout.flush()
    own, encoding, is_by_line = os.dup(1), sys.stdout.encoding, sys.stdout.line_buffering
    silence()
    sys.stdout = _Stdout(
        open(own, "wb"),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=bool(is_by_line),
    )


def silence() -> None:
    """From here on stdout leads nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    if isinstance(sys.stdout, _Stdout) and sys.stdout.fileno() != 1:  # See ours_alone.
        os.dup2(nowhere, sys.stdout.fileno())


def prepare() -> None:
    """Makes stdout and stderr such that every text can be printed and every failure told.

    Closed ones (`>&-`) lead nowhere: the next file that is opened must not be taken for them.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest free number is this one.
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its escape, not an exception.
            stream.reconfigure(errors="backslashreplace")
    stream = sys.stdout
    if stream is sys.__stdout__ and isinstance(stream, io.TextIOWrapper):
        sys.stdout = _Stdout(
            stream.detach(),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=stream.line_buffering,
        )
