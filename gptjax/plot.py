"""Runs, drawn from their logs: losses, learning rates, gradient norms, times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from gptjax.explain import pictures
from gptjax.explain.drawing import pyplot_for
from gptjax.explain.page import Section, page
from gptjax.explain.series import AXES, Series
from gptjax.explain.sources import read_all
from gptjax.system import files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError


def plot(
    runs: Sequence[str],
    *,
    over: Sequence[str] = (),
    mark: Sequence[str] = (),
    what: Sequence[str] = (),
    png: str | None = None,
    html: str | None = None,
) -> None:
    """Draws runs, run directories or nanoGPT's logs, into the picture `png`, the page `html`.

    `over` are what losses are drawn over (none: seconds in a picture, all that is known in a page)
    and `what` is what is drawn (none: losses in a picture, all in a page). Each of `mark`,
    LABEL=LOSS, is a line to compare with.

    Raises:
      UserError: for a run without evaluations, a mark that is none, what is not known of a run
        though it was asked for, or without matplotlib.
    """
    if not png and not html:
        raise UserError("command line", "no file to write", "--png or --html is required")
    files.check_picture("--png", png)
    files.check_folder_of("--html", html)
    marks = dict(_mark(each) for each in mark)
    series = read_all(runs, device=(), peak=())
    pyplot_for("--png" if png else "--html", png or html)
    named = [] if "all" in what else list(dict.fromkeys(what))
    chosen = list(pictures.WHAT) if "all" in what else named
    over = list(dict.fromkeys(over))
    lines: list[str] = []
    if png:
        chosen_here, over_here = chosen or ["losses"], over or ["seconds"]
        _check_known(series, named if chosen else ["losses"], over_here)
        drawn, lines = pictures.pictures(series, what=chosen_here, over=over_here, marks=marks)
        files.write_atomically(Path(png), pictures.picture_file(drawn, png))
    if html:
        chosen_here, over_here = chosen or list(pictures.WHAT), over or list(AXES)
        _check_known(series, named, over)
        drawn, lines = pictures.pictures(series, what=chosen_here, over=over_here, marks=marks)
        table = Section("Best and last", tables=[pictures.ends(series)])
        sections = [table, *pictures.sections(drawn, lines)]
        title = "Runs: " + ", ".join(each.label for each in series)
        files.write_atomically(Path(html), page(title, sections))
    for each in series:
        best = each.best
        if best is not None:
            evaluations = each.evaluations
            val, step = evaluations.val_E[best], int(evaluations.update_E[best])
            print(f"{each.label}: best val {val:.4f} at step {step}")
    for line in lines:
        print(f"not drawn: {line}")
    for file in filter(None, (png, html)):
        print(f"drawn: {file}")


def _check_known(series: Sequence[Series], what: Sequence[str], over: Sequence[str]) -> None:
    """Raises UserError for what was asked for and cannot be drawn of any run, or over which."""
    for each in series:
        for axis in over if "losses" in what else ():
            if each.best is None or each.x_E(axis) is None:
                known = [name for name in AXES if each.x_E(name) is not None]
                fix = f"Choose another --over: {', '.join(known)}."
                raise UserError("run", each.label, f"{AXES[axis]} are not known of it", fix)
    for name in what:
        if not pictures.pictures(series, what=[name])[0]:
            raise UserError("--what", name, "it is not known of any of the runs")


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
