"""What every script shares: flags, exit codes and the one-line form of an error."""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from gptjax.system import signals, versions
from gptjax.system.errors import RunError, UserError


class Flags(argparse.ArgumentParser):
    """An argument parser whose errors have the form of all other gptjax errors."""

    def __init__(self, *, description: str, epilog: str = ""):
        super().__init__(
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError("command line", message, "see --help")

    def parse_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """The parsed flags; raises UserError when an argument was not understood."""
        parsed, leftovers = self.parse_known_args(arguments)
        if leftovers:
            raise UserError(
                "command line", repr(leftovers[0]), "unexpected argument", "See --help."
            )
        return parsed


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Runs `main(argv)` and leaves the process with its exit code.

    Exit codes: 0 done; 1 the run failed; 2 bad input; 130 Ctrl-C; 143 SIGTERM; otherwise what
    `main` returned. A second Ctrl-C or SIGTERM ends the process at once.
    An error is one line on stderr; GPTJAX_TRACEBACK=1 shows the traceback as well.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its escape, not an exception.
            stream.reconfigure(errors="backslashreplace")
    try:
        versions.check_platform()
        with signals.watched():
            versions.check()
            code = _code_of(main)
        sys.stdout.flush()
    except (UserError, RunError) as error:
        if os.environ.get("GPTJAX_TRACEBACK"):
            traceback.print_exc()
        print("gptjax: error: " + printable(str(error).replace("\n", " ")), file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("gptjax: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader (`| head`) has gone: nothing more to say, and nothing to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _code_of(main: Callable[[list[str]], int | None]) -> int:
    try:
        return main(sys.argv[1:]) or 0
    except SystemExit as leaving:  # --help; what it printed is still to be flushed.
        if isinstance(leaving.code, str):
            raise
        return leaving.code or 0


def printable(text: str) -> str:
    """The text with control characters escaped: what a file holds must not drive a terminal."""
    return "".join(
        symbol if symbol in "\n\t" or symbol.isprintable() else f"\\x{ord(symbol):02x}"
        for symbol in text
    )
