"""What every script shares: flags, exit codes and the one-line form of an error."""

from __future__ import annotations

import argparse
import gc
import os
import re
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from gptjax.system import interrupt, output, signals, versions
from gptjax.system.errors import RunError, UserError
from gptjax.system.output import printable

# The flags that take a path, whose ~ is expanded: the shell leaves `--flag=~/x` as it is.
_PATHS = frozenset(
    "check config data from from_nanogpt html json nanogpt nanogpt_python out_dir".split()
    + "peer_config plot png prompt_file text to".split()
)


class Flags(argparse.ArgumentParser):
    """An argument parser whose errors have the form of all other gptjax errors."""

    def __init__(
        self, *, description: str, epilog: str = "", hint: Callable[[str], str] = lambda _: ""
    ):
        """`hint` says of an argument that is not understood what may have been meant, or ""."""
        self._hint = hint
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
        parsed, leftovers = self.parse_known_args(self._values_joined(arguments))
        if leftovers:
            fix = self._hint(leftovers[0]) or "See --help."
            raise UserError("command line", repr(leftovers[0]), "unexpected argument", fix)
        for name, value in vars(parsed).items():
            if name in _PATHS and isinstance(value, str):
                setattr(parsed, name, os.path.expanduser(value))
            elif name in _PATHS and isinstance(value, list):
                setattr(parsed, name, [os.path.expanduser(path) for path in value])
        return parsed

    def _values_joined(self, arguments: Sequence[str]) -> list[str]:
        """`--prompt -hello` as `--prompt=-hello`: argparse takes a value with a dash for a flag."""
        takes_value = {name for a in self._actions if a.nargs is None for name in a.option_strings}
        joined: list[str] = []
        for argument in arguments:
            is_flag = argument.partition("=")[0] in self._option_string_actions
            is_value = argument.startswith("-") and not is_flag
            if joined and joined[-1] in takes_value and is_value:
                joined[-1] += f"={argument}"
            else:
                joined.append(argument)
        return joined


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Runs `main(argv)` and leaves the process with its exit code.

    Exit codes: 0 done; 1 the run failed; 2 bad input; 129 SIGHUP; 130 Ctrl-C; 143 SIGTERM;
    otherwise what `main` returned. A second Ctrl-C or SIGTERM ends the process at once.
    An error is one line on stderr; GPTJAX_TRACEBACK=1 shows the traceback as well.
    """
    # Imports and tracing leave hundreds of thousands of objects that stay, and that Python would
    # look through again and again: a tenth of a start.
    gc.set_threshold(10_000)
    output.prepare()
    try:
        versions.check_platform()
        with signals.watched():
            versions.check()
            code = _code_of(main)
        sys.stdout.flush()
    except BaseException as error:
        code = _told(error)
    interrupt.leave(code)


def _told(error: BaseException) -> int:
    """Says what an exception means to the user; returns the exit code. Our own faults it raises."""
    if isinstance(error, UserError | RunError):
        if os.environ.get("GPTJAX_TRACEBACK"):
            traceback.print_exc()
        print("gptjax: error: " + printable(str(error).replace("\n", " ")), file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("gptjax: interrupted", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):
        # The reader (`| head`) has gone: nothing more to say, and nothing to flush at exit.
        output.silence()
        return 0
    line = _of_the_machine(error)
    if not line:
        raise error
    if os.environ.get("GPTJAX_TRACEBACK"):
        traceback.print_exc()
    print(f"gptjax: error: {printable(line)}", file=sys.stderr)
    return 2 if line.startswith("JAX") else 1


def _code_of(main: Callable[[list[str]], int | None]) -> int:
    try:
        return main(sys.argv[1:]) or 0
    except SystemExit as leaving:  # --help; what it printed is still to be flushed.
        if isinstance(leaving.code, str):
            raise
        return leaving.code or 0


def _of_the_machine(error: BaseException) -> str:
    """What no command can do anything about, in a line; "" for a bug, which needs its traceback."""
    words = " ".join(str(error).split())[:300]
    # XLA's error, told by its name: JAX may not have been imported.
    is_xlas = type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in words
    if isinstance(error, MemoryError) or is_xlas:
        return f"out of memory: {words[:200]}"
    if isinstance(error, RuntimeError) and words == "can't start new thread":
        return "out of threads, or of memory for one: see ulimit -u and ulimit -v"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the system'}: {error.strerror}"
    # JAX reads its settings in the environment as it is imported, and names the one it refuses.
    named = re.search(r"for (?:JAX flag|environment) '?(jax_\w+)", words, re.IGNORECASE)
    if isinstance(error, ValueError) and named:
        name = named[1].upper()
        return f"{name}: {os.environ.get(name)}; JAX takes no such value. Unset it."
    return ""


def run_script(module: str) -> None:
    """What `python -m gptjax.NAME` does: runs the script of that name, which reads the flags."""
    runpy.run_path(
        str(Path(module).parents[1] / "scripts" / Path(module).name), run_name="__main__"
    )
