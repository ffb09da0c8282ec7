"""Runs as they are named on a command line: a directory or a file, or LABEL=PATH."""

from __future__ import annotations

from pathlib import Path

from gptjax.explain.gptjax_run import read_run
from gptjax.explain.nanogpt_log import read_log
from gptjax.explain.recipes import with_recipe
from gptjax.explain.series import Series
from gptjax.system.errors import UserError


def read_series(argument: str) -> Series:
    """The run that an argument names: a run directory of gptjax, a nanoGPT log, or - for stdin.

    Raises:
      UserError: if there is nothing to be read there.
    """
    # A folder may have an = in its name.
    label, equals, rest = argument.partition("=")
    if not equals or Path(argument).exists():
        label, rest = "", argument
    path = Path(rest).expanduser()
    if rest == "-":
        return read_log(path, label or "stdin")
    label = label or path.resolve().name
    if path.is_file() and path.name == "metrics.jsonl":
        path, label = path.parent, path.resolve().parent.name
    if path.is_dir():
        return with_recipe(read_run(path, label))
    if not path.exists():
        raise UserError("run", path, "does not exist", "Give a run directory or a nanoGPT log.")
    return read_log(path, label)
