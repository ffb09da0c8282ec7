"""The losses of runs, drawn from their logs; nanoGPT's printed ones too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gptjax.explain.plots import draw_losses
from gptjax.explain.sources import read_series
from gptjax.system import files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError


def plot(runs: Sequence[str], *, over: str, mark: Sequence[str], png: str) -> None:
    """Draws val of runs, named as sources.read_series reads them, into the file `png`.

    `over` is what is on the x axis; each of `mark`, LABEL=LOSS, is a line to compare with.

    Raises:
      UserError: for a run without evaluations, a mark that is none, or without matplotlib.
    """
    files.check_picture("--png", png)
    marks = dict(_mark(each) for each in mark)
    series = [read_series(run) for run in runs]
    draw_losses(series, Path(png), over=over, marks=marks)
    for each in series:
        best = each.best
        if best is not None:
            evaluations = each.evaluations
            val, step = evaluations.val_E[best], int(evaluations.update_E[best])
            print(f"{each.label}: best val {val:.4f} at step {step}")
    print(f"drawn: {png}")


def _mark(text: str) -> tuple[str, float]:
    label, _, loss = text.rpartition("=")
    try:
        value = float(loss)
    except ValueError:
        value = math.nan
    if not label or not math.isfinite(value):
        raise UserError("--mark", repr(text), "must be LABEL=LOSS", 'Try --mark "nanoGPT=1.8857".')
    return label, value


if __name__ == "__main__":
    run_script(__file__)
