"""Texts of several runs from one prompt, side by side, each with what it costs every model."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gptjax.run.reader import run_and_step
from gptjax.run.scores import Score
from gptjax.system.errors import UserError
from gptjax.system.output import printable

# Two columns of verse, as Tiny Shakespeare has it, few of whose lines are longer than 50.
_WIDE_ENOUGH = 100

# So many symbols that a model does not know are named.
_MOST_NAMED = 8


@dataclasses.dataclass(frozen=True)
class Written:
    """A text with its prompt, and what comes after the prompt judged by every run's model."""

    text: str
    scores: list[Score]


def labels_of(out_dirs: Sequence[str]) -> list[str]:
    """What runs are called: their folders' names, or where these are the same, their paths.

    Raises:
      UserError: if one is given twice.
    """
    paths = [Path(out_dir) for out_dir in out_dirs]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise UserError("--out_dir", twice[0], "is given twice")
    names = [_name(out_dir) for out_dir in out_dirs]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _name(out_dir: str) -> str:
    run, step = run_and_step(out_dir, "")
    return os.path.basename(os.path.abspath(run)) + (f" step {step}" if step else "")


def print_side_by_side(labels: Sequence[str], rows: Sequence[Sequence[Written]]) -> None:
    """Prints row after row, of which each has a text of each run.

    Two runs stand in two columns on a terminal that is wide enough; otherwise, and in a pipe, one
    text is below the other under its run's label.
    """
    is_terminal = sys.stdout.isatty()
    console = Console(highlight=False, force_terminal=is_terminal)
    if is_terminal and len(labels) == 2 and console.width >= _WIDE_ENOUGH:
        console.print(_columns(labels, rows))
        return
    for number, row in enumerate(rows, 1):
        for label, written in zip(labels, row, strict=True):
            text = f"{label}, sample {number} of {len(rows)}:\n{written.text}\n"
            text += f"loss: {', '.join(_losses(labels, written))}\n---------------\n"
            sys.stdout.write(printable(text) if is_terminal else text)


def _columns(labels: Sequence[str], rows: Sequence[Sequence[Written]]) -> Table:
    table = Table(expand=True, show_lines=True)
    for label in labels:
        table.add_column(Text(printable(label)), ratio=1, overflow="fold")
    for row in rows:
        cells = []
        for written in row:
            # A line ends alike in all columns.
            cell = Text(printable(written.text.replace("\r\n", "\n")))
            cells.append(cell.append("\n\n" + "\n".join(_losses(labels, written)), style="dim"))
        table.add_row(*cells)
    return table


def _losses(labels: Sequence[str], written: Written) -> list[str]:
    """What each model makes of a text, in words."""
    return [_words(label, score) for label, score in zip(labels, written.scores, strict=True)]


def _words(label: str, score: Score) -> str:
    if math.isnan(score.nats):
        return f"none under {label}, which knows nothing of it"
    words = f"{score.nats:.4f} nats/{score.unit} under {label}"
    if score.unknown:
        named = ", ".join(map(repr, score.unknown[:_MOST_NAMED]))
        named += ", …" if len(score.unknown) > _MOST_NAMED else ""
        words += f" (of {score.n_scored} {score.unit}s; it does not know {named})"
    return printable(words)
