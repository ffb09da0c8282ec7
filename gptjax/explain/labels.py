"""Words beside points and lines of a picture, where they cover nothing."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptjax.explain import palette

_Box = tuple[float, float, float, float]  # Left, bottom, right and top, in pixels.


@dataclasses.dataclass(frozen=True)
class Label:
    """Words that go with a point, or with a line across.

    Attributes:
      x: in the panel's units; None for a line across.
    """

    text: str
    x: float | None
    y: float
    color: str


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a panel needs when its place is known: labels, and the curves they should not cover."""

    labels: Sequence[Label] = ()
    curves: Sequence[tuple[np.ndarray, np.ndarray]] = ()


# Where a label may stand beside its point, best first: right, right above and below, above, …
_SIDES = ((1, 0), (1, 1), (1, -1), (0, 1), (0, -1), (-1, 1), (-1, -1), (-1, 0))
_DISTANCES = (6, 14, 26, 40, 56)  # Units, 72 an inch.


# Labels of which every order of placing is tried, 120 for five; more stand in a column.
_TRIED = 5


def place(panel: Any, drawn: Drawn) -> None:
    """Writes the labels where they cover neither each other nor, if it can be, a curve."""
    if not drawn.labels:
        return
    curves = [_dense(panel.transData.transform(np.column_stack(each))) for each in drawn.curves]
    obstacles_P2 = np.concatenate(curves) if curves else np.empty((0, 2))
    frame = panel.get_window_extent()
    paper = dict(facecolor=palette.PAPER.light, edgecolor="none", alpha=0.75, pad=0.5)
    # Lines across have the whole width to choose from: they come last.
    labels = sorted(drawn.labels, key=lambda each: (each.x is None, -each.y))
    texts, choices = [], []
    for label in labels:
        text = panel.text(0, 0, label.text, color=label.color, fontsize=9.5, zorder=6, bbox=paper)
        size = text.get_window_extent()
        boxes = _boxes_beside(panel, frame, label, size.width, size.height)
        texts.append(text)
        choices.append([(cost + _cost(box, frame, obstacles_P2), box) for cost, box in boxes])
    n_points = sum(label.x is not None for label in labels)
    column = _column(panel, frame, labels[:n_points], texts) if n_points > _TRIED else []
    choices[: len(column)] = [[(0.0, box)] for box in column]
    for text, label, box in zip(texts, labels, _chosen(labels, choices), strict=True):
        text.set_verticalalignment("bottom")
        text.set_transform(panel.transAxes)
        text.set_position(panel.transAxes.inverted().transform(box[:2]))
        if label.x is not None:
            _lead(panel, label, box)


def _chosen(labels: Sequence[Label], choices: Sequence[Sequence[tuple[float, _Box]]]) -> list[_Box]:
    """A box for each label: of the orders in which they may choose, that with the least cost."""
    n_points = sum(label.x is not None for label in labels)
    lines = range(n_points, len(labels))
    best: tuple[float, dict[int, _Box]] = (np.inf, {})
    orders = itertools.permutations(range(n_points))
    for order in itertools.islice(orders, math.factorial(_TRIED)):
        total = 0.0
        taken: dict[int, _Box] = {}
        for index in [*order, *lines]:
            costs = [
                cost + 1000 * any(_overlap(box, other) for other in taken.values())
                for cost, box in choices[index]
            ]
            cheapest = int(np.argmin(costs))
            total += costs[cheapest]
            taken[index] = choices[index][cheapest][1]
        if total < best[0]:
            best = total, taken
    return [best[1][index] for index in range(len(labels))]


def _column(panel: Any, frame: Any, labels: Sequence[Label], texts: Sequence[Any]) -> list[_Box]:
    """Boxes of many labels, highest point first: one below the other at the right."""
    sizes = [text.get_window_extent() for text in texts[: len(labels)]]
    left, height = frame.x1 - max(size.width for size in sizes), sizes[0].height + 1
    wanted_L = panel.transData.transform([(label.x, label.y) for label in labels])[:, 1]
    placed_L = wanted_L.copy()
    for index in range(1, len(labels)):
        placed_L[index] = min(placed_L[index], placed_L[index - 1] - height)
    placed_L += np.mean(wanted_L - placed_L)
    placed_L += max(frame.y0 + height / 2 - placed_L[-1], 0)
    return [
        (left, y - height / 2, left + size.width, y + height / 2 - 1)
        for y, size in zip(placed_L, sizes, strict=True)
    ]


def _overlap(box: _Box, other: _Box) -> bool:
    left, bottom, right, top = box
    return left < other[2] + 3 and right > other[0] - 3 and bottom < other[3] and top > other[1]


def _dense(points_P2: np.ndarray) -> np.ndarray:
    """Points at most 3 units apart along a line through the given ones."""
    points_P2 = points_P2[np.isfinite(points_P2).all(axis=1)]
    if len(points_P2) < 2:
        return points_P2
    steps_P = np.hypot(*np.diff(points_P2, axis=0).T)
    along_P = np.concatenate([[0], np.cumsum(steps_P)])
    where = np.linspace(0, along_P[-1], int(along_P[-1] / 3) + 2)
    return np.column_stack([np.interp(where, along_P, each) for each in points_P2.T])


def _boxes_beside(
    panel: Any, frame: Any, label: Label, width: float, height: float
) -> list[tuple[float, _Box]]:
    """Costs and boxes (left, bottom, right, top) where a label may stand, in pixels."""
    boxes = []
    if label.x is None:
        _, y = panel.transData.transform((panel.get_xlim()[0], label.y))
        for fraction in np.linspace(0, 1, 12):
            left = frame.x0 + 3 + fraction * max(frame.width - width - 6, 0)
            for cost, bottom in ((0, y + 1.5), (1, y - height - 1.5)):
                boxes.append((cost + 3 * fraction, (left, bottom, left + width, bottom + height)))
        return boxes
    x, y = panel.transData.transform((label.x, label.y))
    for distance in _DISTANCES:
        for order, (side, rise) in enumerate(_SIDES):
            left = x + side * distance - (width if side < 0 else width / 2 if side == 0 else 0)
            bottom = y + rise * distance - (height if rise < 0 else height / 2 if rise == 0 else 0)
            box = (left, bottom, left + width, bottom + height)
            boxes.append((0.2 * distance + 0.5 * order, box))
    return boxes


def _cost(box: _Box, frame: Any, obstacles_P2: np.ndarray) -> float:
    """How bad a place is by itself: what sticks out is worst, then curves covered."""
    left, bottom, right, top = box
    out = max(frame.x0 - left, right - frame.x1, frame.y0 - bottom, top - frame.y1, 0)
    x_P, y_P = obstacles_P2.T
    n_inside = ((x_P > left) & (x_P < right) & (y_P > bottom) & (y_P < top)).sum()
    return 20 * out + 2 * float(n_inside)


def _lead(panel: Any, label: Label, box: _Box) -> None:
    """A thin line from a label that stands far from its point."""
    x, y = panel.transData.transform((label.x, label.y))
    nearest = np.clip(x, box[0], box[2]), np.clip(y, box[1], box[3])
    if np.hypot(nearest[0] - x, nearest[1] - y) > 12:
        ends = panel.transAxes.inverted().transform([nearest, (x, y)])
        panel.plot(*ends.T, color=label.color, lw=0.6, alpha=0.7, transform=panel.transAxes)
