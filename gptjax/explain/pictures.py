"""Pictures of runs for a file or a page: which can be drawn, and what is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from types import MappingProxyType
from typing import Any

import numpy as np

from gptjax.explain import captions, drawing, plots, time_plots
from gptjax.explain.labels import Drawn
from gptjax.explain.page import Figure, Section, Table
from gptjax.explain.series import AXES, Series

# What there is to draw, each with its words.
WHAT = {
    "losses": "losses",
    "learning_rate": "learning rate",
    "gradient_norm": "gradient norm",
    "ledger": "time by kind of work",
    "update_times": "update times",
}

# The sections of a page that hold them, with how they are read.
_SECTIONS = {
    "Curves of loss": (
        ("losses",),
        "The thick line is val, the band around it its standard error, the star its best; the thin "
        "line is train. What came before the first update is not drawn.",
    ),
    "Learning rate and gradient norm": (
        ("learning_rate", "gradient_norm"),
        "Gradient norms are of logged updates; the thick line is the mean of ten in a row.",
    ),
    "Where the time went": (
        ("ledger", "update_times"),
        "What an update takes has no evaluation, saving or compiling in it.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that can be drawn.

    Attributes:
      what: one of WHAT.
      title: its words.
      draw: draws it into a panel of matplotlib.
      alternative: what is to be seen in it.
      height: inches.
    """

    what: str
    title: str
    draw: Callable[[Any], Drawn]
    alternative: str
    height: float


def pictures(
    series: Sequence[Series],
    *,
    what: Sequence[str] = tuple(WHAT),
    over: Sequence[str] = tuple(AXES),
    marks: Mapping[str, float] = MappingProxyType({}),
) -> tuple[list[Picture], list[str]]:
    """The pictures that can be drawn, and sentences on what cannot.

    `what` are of WHAT; losses are drawn over each of `over`, which are of AXES. A run of which
    something is not known is left out of that picture alone. `marks` are losses to compare with.
    """
    drawn, left_out = [], []
    for each in what:
        for axis in over if each == "losses" else [""]:
            runs = _runs(series, each, axis)
            words = f"{WHAT[each]} over {AXES[axis]}" if axis else WHAT[each]
            without = [run.label for index, run in enumerate(series) if index not in runs]
            if runs:
                drawn.append(_picture(each, words, runs, axis, marks))
            if without:
                whose = _list(without) if runs else "any run"
                left_out.append(f"{words[0].upper()}{words[1:]}: not known of {whose}.")
    return drawn, left_out


def _runs(series: Sequence[Series], what: str, axis: str) -> dict[int, Series]:
    """Those with something to draw, by their place among all."""
    known: dict[str, Callable[[Series], bool]] = {
        "losses": lambda each: plots.draws_losses(each, axis),
        "learning_rate": lambda each: plots.draws_updates(each, "lr"),
        "gradient_norm": lambda each: plots.draws_updates(each, "grad_norm"),
        "ledger": time_plots.draws_ledger,
        "update_times": time_plots.draws_times,
    }
    return {index: each for index, each in enumerate(series) if known[what](each)}


def _picture(
    what: str, words: str, runs: Mapping[int, Series], axis: str, marks: Mapping[str, float]
) -> Picture:
    series = list(runs.values())
    draw: Callable[[Any], Drawn]
    height = drawing.HEIGHT
    if what == "losses":
        alternative = captions.losses(series, axis, marks)

        def draw(panel: Any) -> Drawn:
            return plots.losses(panel, runs, over=axis, marks=marks)

    elif what in ("learning_rate", "gradient_norm"):
        column = {"learning_rate": "lr", "gradient_norm": "grad_norm"}[what]
        alternative = captions.updates(series, column)

        def draw(panel: Any) -> Drawn:
            return plots.updates(panel, runs, what=column)

    else:
        height = time_plots.REST + time_plots.ROW * (len(series) + (what == "ledger"))
        if what == "ledger":
            alternative, draws = captions.ledger(series), time_plots.ledger
        else:
            alternative, draws = captions.update_times(series), time_plots.update_times

        def draw(panel: Any) -> Drawn:
            return draws(panel, runs)

    return Picture(what, words, draw, alternative, height)


def _list(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def picture_file(shown: Sequence[Picture], name: str) -> bytes:
    """The pictures as the content of a file: a panel each, two beside each other.

    `name` is the file's; it ends in what it is to be: .png, .pdf or .svg.
    """
    kind = PurePath(name).suffix[1:].lower()
    is_one = len(shown) == 1
    figure = drawing.drawn_figure(
        [each.draw for each in shown],
        titles=[] if is_one else [each.title for each in shown],
        heights=[max(each.height, 4.2) if is_one else each.height for each in shown],
        width=7.0 if is_one else drawing.WIDTH,
        n_columns=1 if is_one else 2,
    )
    return drawing.file_of(figure, kind)


def sections(drawn: Sequence[Picture], left_out: Sequence[str]) -> list[Section]:
    """The pictures, and what is left out, as sections of a page."""
    found = []
    for title, (group, reading) in _SECTIONS.items():
        figures = [
            Figure(_svg(each, f"picture-{index}"), each.alternative)
            for index, each in enumerate(drawn)
            if each.what in group
        ]
        if figures:
            found.append(Section(title, sentences=[reading], figures=figures))
    if left_out:
        found.append(Section("Not drawn", sentences=left_out))
    return found


def _svg(picture: Picture, name: str) -> str:
    figure = drawing.drawn_figure([picture.draw], titles=[picture.title], heights=[picture.height])
    return drawing.svg_of(figure, name)


def ends(series: Sequence[Series]) -> Table:
    """Where each run is best and where it ends."""
    rows = []
    for each in series:
        evaluations, best, last = each.evaluations, each.best, each.last
        if best is None or last is None:
            continue
        ends = {axis: None if (x_E := each.x_E(axis)) is None else x_E[last] for axis in AXES}
        rows.append(
            (
                each.label,
                _loss(evaluations.val_E[best], evaluations.val_sem_E[best]),
                f"{evaluations.update_E[best]:,.0f}",
                _loss(evaluations.val_E[last], evaluations.val_sem_E[last]),
                _loss(evaluations.train_E[last], evaluations.train_sem_E[last]),
                *(
                    "not known" if end is None else plots.tick(axis, float(end))
                    for axis, end in ends.items()
                ),
            )
        )
    columns = "run,best val,at update,val at the end,train at the end,seconds,updates,tokens,FLOPs"
    return Table(
        "Where each run is best and where it ends, nats per token", columns.split(","), rows
    )


def _loss(mean: float, sem: float) -> str:
    if not np.isfinite(mean):
        return "not known"
    return f"{mean:.4f} ± {sem:.4f}" if np.isfinite(sem) else f"{mean:.4f}"
