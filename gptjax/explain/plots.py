"""Curves of runs: losses, learning rates, gradient norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gptjax.explain import palette
from gptjax.explain.drawing import shown
from gptjax.explain.labels import Drawn, Label
from gptjax.explain.series import AXES, Series

# Logged updates that a point of a batches' line is the mean of: each is one batch's loss.
_SMOOTHED = 10
# Points that a curve of updates is drawn with: more are not seen, and a page holds each.
_MOST_POINTS = 300
# Of more runs names are short, and bests a star without words: there is no room for them.
_FEW = 2
# Runs whose ends lie further apart than this are drawn over a log axis: the shorter would be lost.
_ENDS_APART = 4.0
# Over a wider range only powers of ten are written below a log axis: more would touch.
_WIDE = 40


def draws_losses(each: Series, over: str) -> bool:
    """Whether there is something to draw of a run over one of AXES."""
    return each.best is not None and each.x_E(over) is not None


def losses(
    panel: Any, runs: Mapping[int, Series], *, over: str, marks: Mapping[str, float]
) -> Drawn:
    """Draws val and train over one of AXES, val with its standard error, and its best.

    `runs` are by their place among all runs, which says how they look. `marks` are losses to
    compare with, by label: each is a line across, and so is what no model can be below.
    """
    labels, curves, lefts, rights = [], [], [], []
    for index, each in runs.items():
        look = palette.run_style(index)
        colour, evaluations, name = look["color"], each.evaluations, _name(each, runs)
        x_E, best, last = each.x_E(over), each.best, each.last
        assert x_E is not None and best is not None and last is not None
        # The loss before the first update would press all that follows into a corner.
        is_drawn = (evaluations.update_E > 0) & np.isfinite(evaluations.val_E)
        x, val, sem = (
            values[is_drawn] for values in (x_E, evaluations.val_E, evaluations.val_sem_E)
        )
        sem = np.nan_to_num(sem)
        panel.plot(x, val, **look, markersize=3, lw=1.5, zorder=4)
        panel.fill_between(x, val - sem, val + sem, color=colour, alpha=0.25, lw=0)
        x_train, train = _train(each, over, is_drawn)
        panel.plot(x_train, train, color=colour, ls=look["linestyle"], lw=0.8, alpha=0.75)
        curves += [(x, val), (x_train, train)]
        lefts.append(x.min())
        rights.append(x.max())
        panel.plot(x_E[best], evaluations.val_E[best], "*", color=colour, ms=9, zorder=5)
        end = f"{name}: {evaluations.val_E[last]:.4f}"
        if len(runs) <= _FEW and best == last:
            end += ", best"
        elif len(runs) <= _FEW:
            words = f"best {evaluations.val_E[best]:.4f}"
            labels.append(Label(words, x_E[best], evaluations.val_E[best], colour))
        labels.append(Label(end, x_E[last], evaluations.val_E[last], colour))
    for words, loss in {**marks, **floors(list(runs.values()))}.items():
        panel.axhline(loss, color=palette.FAINT.light, lw=0.8, ls=(0, (6, 3)))
        labels.append(Label(f"{shown(words)}: {loss:.4f}", None, loss, palette.FAINT.light))
    _scale_x(panel, over, lefts, rights, labels)
    panel.set_ylabel("loss, nats per token (thin: train)")
    return Drawn(labels, curves)


def _name(each: Series, runs: Mapping[int, Series]) -> str:
    return shown(each.label, 24 if len(runs) <= _FEW else 14)


def _train(each: Series, over: str, is_drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Train losses: of evaluations, where they tell them, else of batches, a few in a row."""
    x_E, train_E, x_U = each.x_E(over), each.evaluations.train_E, each.x_U(over)
    if x_E is not None and np.isfinite(train_E[is_drawn]).any():
        return x_E[is_drawn], train_E[is_drawn]
    if x_U is None:
        return np.empty(0), np.empty(0)
    smooth = running_mean(each.updates.loss_U)
    return thinned(x_U[len(x_U) - len(smooth) :], smooth)


def running_mean(values_U: np.ndarray) -> np.ndarray:
    """The mean of each few values in a row; empty if there are fewer."""
    if len(values_U) < _SMOOTHED:
        return values_U[:0]
    return np.convolve(values_U, np.full(_SMOOTHED, 1 / _SMOOTHED), "valid")


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many points as are seen, evenly chosen: first and last among them."""
    if len(x) <= _MOST_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).round().astype(int))
    return x[kept], y[kept]


def floors(series: Sequence[Series]) -> dict[str, float]:
    """What no model's loss is below, where the text's entropy is known; by its words."""
    return {
        f"floor of {each.value('corpus', 'the text')}": float(each.value("floor_nats"))
        for each in series
        if each.value("floor_nats") is not None
    }


def _scale_x(
    panel: Any,
    over: str,
    lefts: Sequence[float],
    rights: Sequence[float],
    labels: Sequence[Label],
) -> None:
    """Scales one of AXES for curves from `lefts` to `rights`, with room for labels at the right."""
    from matplotlib import ticker

    left, right = min(lefts), max(rights)
    if right > _ENDS_APART * min(rights):
        start = left / 1.3
        room = _room(panel, labels, lambda x: np.log(x / start) / np.log(right / start))
        panel.set_xscale("log")
        panel.set_xlim(start, start * (right / start) ** (1 / (1 - room)))
        is_short = panel.get_xlim()[1] < _WIDE * start
        panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if is_short else (1,)))
        panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    else:
        is_from_0 = left < 0.4 * right or left == right
        start = 0 if is_from_0 else left - 0.05 * (right - left)
        room = _room(panel, labels, lambda x: (x - start) / (right - start))
        panel.set_xlim(start, start + (right - start) / (1 - room))
        panel.xaxis.set_major_locator(ticker.MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick(over, value)))
    panel.set_xlabel(AXES[over])


def _room(panel: Any, labels: Sequence[Label], place: Callable[[float], float]) -> float:
    """The part of the width, right of all curves, that labels to the right of their points need.

    `place` says how far right a point is, from 0 to 1 where the last curve ends.
    """
    rooms = [0.03]
    for each in labels:
        if each.x is not None:
            # 6 units a letter; the panel's width is known within a tenth before all has its place.
            width = (6 * len(each.text) + 24) / panel.get_window_extent().width
            rooms.append(1 - (1 - width) / max(place(each.x), 0.1))
    return min(0.5, max(rooms))


def tick(over: str, value: float) -> str:
    """A place on one of AXES, without its unit."""
    if over == "flops":
        return f"{value:.3g}".replace("e+", "e")
    if over == "tokens" and value >= 1e9:
        return f"{value / 1e9:.4g} G"
    if over == "tokens" and value >= 1e6:
        return f"{value / 1e6:.4g} M"
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.3g}"


def column(each: Series, what: str) -> np.ndarray:
    """`lr` or `grad_norm` of the logged updates."""
    return {"lr": each.updates.lr_U, "grad_norm": each.updates.grad_norm_U}[what]


def draws_updates(each: Series, what: str) -> bool:
    """Whether two updates or more tell their `lr` or `grad_norm`."""
    return int(np.isfinite(column(each, what)).sum()) > 1


def updates(panel: Any, runs: Mapping[int, Series], *, what: str) -> Drawn:
    """Draws `lr`, or `grad_norm` with the mean of a few in a row, over updates."""
    labels, curves, lefts, rights = [], [], [], []
    for index, each in runs.items():
        look = palette.run_style(index)
        colour, y_U = look["color"], column(each, what)
        is_known = np.isfinite(y_U)
        x, y = each.updates.update_U[is_known], y_U[is_known]
        lefts.append(max(x[0], 1))
        if what == "grad_norm" and len(y) >= 2 * _SMOOTHED:
            panel.plot(*thinned(x, y), color=colour, lw=0.5, alpha=0.4)
            smooth = running_mean(y)
            x, y = x[len(x) - len(smooth) :], smooth
        x, y = thinned(x, y)
        panel.plot(x, y, color=colour, ls=look["linestyle"], lw=1.5)
        panel.plot(x[-1], y[-1], color=colour, marker=look["marker"], ms=5)
        curves.append((x, y))
        rights.append(x[-1])
        labels.append(Label(_name(each, runs), x[-1], y[-1], colour))
    _scale_x(panel, "updates", lefts, rights, labels)
    panel.set_ylabel({"lr": "learning rate", "grad_norm": "gradient norm before clipping"}[what])
    if what == "lr":
        panel.set_ylim(bottom=0)
    else:
        _log_y(panel)
    return Drawn(labels, curves)


def _log_y(panel: Any) -> None:
    """A logarithmic y axis where there are numbers enough for one, without raised digits."""
    from matplotlib import ticker

    low, high = panel.get_ylim()
    if low > 0 and high < 10 * low:
        return
    panel.set_yscale("log")
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(ticker.NullFormatter())
