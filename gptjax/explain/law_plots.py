"""A sweep, drawn: losses over compute with their law, and over learning rates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.explain import drawing, palette
from gptjax.explain.labels import Drawn, Label
from gptjax.explain.loss_law import MOST_TIMES
from gptjax.explain.sweep_findings import RATE, Cell, Findings
from gptjax.run.progress import count

_WIDTH, _HEIGHT = 5.6, 4.0


def picture_file(found: Findings, name: str) -> bytes:
    """The content of a picture file of that name: .png, .pdf or .svg."""
    draws = [lambda panel: over_compute(panel, found)]
    titles = ["loss over compute"]
    if any(len(_rates(found, cell)) > 1 for cell in _longest(found)):
        draws.append(lambda panel: over_rates(panel, found))
        titles.append("loss over learning rate, longest runs")
    figure = drawing.drawn_figure(
        draws, titles=titles, heights=[_HEIGHT] * len(draws), width=_WIDTH
    )
    return drawing.file_of(figure, Path(name).suffix.lower().removeprefix("."))


def over_compute(panel: Any, found: Findings) -> Drawn:
    """Draws each size's runs and its law over FLOPs, the frontier, and what is asked for."""
    panel.set_xscale("log")
    labels: list[Label] = []
    curves: list[Any] = []
    for index, cells in enumerate(_by_size(found.best)):
        look, run = palette.run_style(index), cells[-1].first
        flops_P = np.array([cell.first.flops for cell in cells])
        val_P = np.array([cell.val_nats for cell in cells])
        style = "none" if found.law else look["linestyle"]
        panel.plot(flops_P, val_P, **{**look, "linestyle": style}, ms=5, zorder=4)
        curves.append((flops_P, val_P))
        if found.law:
            # A size's FLOPs grow with its tokens alone.
            tokens = np.geomspace(cells[0].first.n_tokens, 4 * run.n_tokens, 60)
            drawn = found.law.losses(float(run.n_params), tokens)
            flops = tokens * run.flops / run.n_tokens
            panel.plot(flops, drawn, color=look["color"], ls=look["linestyle"], lw=1.2, zorder=3)
            curves.append((flops, drawn))
        # Above its shortest runs, where the sizes lie furthest apart.
        top = dict(textcoords="offset points", xytext=(7, 5), color=look["color"], fontsize=9.5)
        panel.annotate(count(run.n_params), (flops_P[0], val_P[0]), **top, zorder=6)
    others = [cell for cell in found.cells if cell not in found.best]
    if others:
        others_P = [(each.first.flops, each.val_nats) for each in others]
        panel.plot(
            *zip(*others_P, strict=True), ".", color=palette.FAINT.light, ms=4, alpha=0.7, zorder=2
        )
    if found.law:
        labels += _frontier(panel, found, curves)
    if found.choices and (predicted := found.choices[0].predicted):
        asked = found.choices[0].flops
        panel.errorbar(
            asked,
            predicted.value,
            predicted.error,
            fmt="*",
            color=palette.INK.light,
            ms=10,
            zorder=5,
        )
        labels.append(
            Label(f"asked: {predicted.value:.3f}", asked, predicted.value, palette.INK.light)
        )
    from matplotlib import ticker

    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.0e}"))
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    panel.set_xlabel("FLOPs")
    panel.set_ylabel("val, nats per token")
    low, high = panel.get_ylim()
    best = min(cell.val_nats for cell in found.cells)
    worst = max(cell.val_nats for cell in found.best)
    # A run that went wrong is not to press all others together.
    panel.set_ylim(low, min(high, worst + 0.25 * (worst - best) + 0.05))
    return Drawn(labels, curves)


def _frontier(panel: Any, found: Findings, curves: list[Any]) -> list[Label]:
    """Draws the lowest loss that compute buys, with its error, as far as it may be said."""
    assert found.law is not None
    points, frontier = found.law.points, found.law.frontier
    flops = np.geomspace(points.flops_P.min(), MOST_TIMES * points.most_flops * 0.999, 40)
    bars = [frontier.loss(each) for each in flops]
    values = np.array([bar.value for bar in bars])
    errors = np.array([bar.error for bar in bars])
    ink = palette.FAINT.light
    panel.plot(flops, values, color=ink, ls=(0, (6, 3)), lw=1.2)
    panel.fill_between(flops, values - errors, values + errors, color=ink, alpha=0.15, lw=0)
    curves.append((flops, values))
    words = f"lowest, falls as C^-{frontier.exponent.value:.2f}"
    return [Label(words, flops[-12], values[-12], ink)]


def over_rates(panel: Any, found: Findings) -> Drawn:
    """Draws the longest runs of each size over their learning rate."""
    panel.set_xscale("log")
    labels, curves = [], []
    for index, cell in enumerate(_longest(found)):
        look, tried = palette.run_style(index), _rates(found, cell)
        rates = np.array(sorted(tried))
        vals = np.array([tried[rate] for rate in rates])
        panel.plot(rates, vals, **look, ms=5, lw=1.2)
        labels.append(Label(count(cell.first.n_params), rates[-1], vals[-1], look["color"]))
        curves.append((rates, vals))
    from matplotlib import ticker

    every = sorted({rate for cell in _longest(found) for rate in _rates(found, cell)})
    panel.xaxis.set_major_locator(ticker.FixedLocator(every))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_locator(ticker.NullLocator())
    panel.set_xlim(every[0] / 1.2, every[-1] * 1.6)
    panel.set_xlabel("learning rate")
    panel.set_ylabel("val, nats per token")
    return Drawn(labels, curves)


def _by_size(cells: Sequence[Cell]) -> list[list[Cell]]:
    sizes: dict[int, list[Cell]] = {}
    for cell in cells:
        sizes.setdefault(cell.first.n_params, []).append(cell)
    return list(sizes.values())


def _longest(found: Findings) -> list[Cell]:
    return [cells[-1] for cells in _by_size(found.best)]


def _rates(found: Findings, cell: Cell) -> dict[float, float]:
    """The lowest val of each learning rate at a size and length."""
    tried: dict[float, float] = {}
    for each in found.same_size(cell):  # The best first.
        tried.setdefault(each.first.values[RATE], each.val_nats)
    return tried
