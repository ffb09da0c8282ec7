"""Labels cover neither each other nor the curves."""

import itertools

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gptjax.explain.labels import Drawn, Label, place


def boxes_of(labels, curves=()):
    """Where labels were written on a panel from 0 to 10: their boxes, and the panel."""
    figure = Figure(figsize=(5, 3.6), dpi=72)
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.set(xlim=(0, 10), ylim=(0, 10))
    place(panel, Drawn(labels, curves))
    assert [text.get_text() for text in panel.texts] == [
        label.text for label in sorted(labels, key=lambda each: (each.x is None, -each.y))
    ]
    return [text.get_window_extent() for text in panel.texts], panel


@pytest.mark.parametrize("n_labels", [1, 2, 3, 5, 6, 9])
@pytest.mark.parametrize("apart", [0.0, 0.05, 2.0])
def test_labels_of_close_ends_do_not_overlap(n_labels, apart):
    labels = [Label(f"run {n}: 1.8857", 5, 5 - apart * n, "#000000") for n in range(n_labels)]
    labels += [Label("floor: 0.8", None, 5, "#000000")]
    boxes, panel = boxes_of(labels)
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5))
    frame = panel.get_window_extent().padded(1)
    if n_labels * apart < 5:
        assert all(frame.contains(*corner) for box in boxes for corner in box.corners())


def test_labels_in_a_column_stand_in_the_order_of_the_ends():
    labels = [Label(f"run {n}", 5, 5 + 0.01 * n, "#000000") for n in range(7)]
    boxes, panel = boxes_of(labels)
    assert [text.get_text() for text in panel.texts] == [f"run {n}" for n in range(6, -1, -1)]
    assert [box.y0 for box in boxes] == sorted((box.y0 for box in boxes), reverse=True)


def test_a_label_keeps_off_the_curves():
    """The place at the right of the point, the best, is taken by the curve itself."""
    curve = (np.array([0.0, 10.0]), np.array([5.0, 5.0]))
    (box,), panel = boxes_of([Label("run: 1.8857", 4, 5, "#000000")], [curve])
    y = panel.transData.transform((4, 5))[1]
    assert box.y0 > y or box.y1 < y


def test_a_label_far_from_its_point_is_led_to_it():
    labels = [Label(f"run {n}", 5, 5, "#000000") for n in range(9)]
    _, panel = boxes_of(labels)
    assert len(panel.lines) > 0


def test_nothing_to_write_is_nothing_written():
    boxes, _ = boxes_of([])
    assert boxes == []
