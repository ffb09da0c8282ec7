"""Bars are as long as the seconds they stand for."""

import numpy as np
import pytest
import to_draw

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from gptjax.explain import time_plots
from gptjax.explain.series import Times


def panel():
    return Figure(figsize=(5, 3.6), dpi=72).subplots()


def words(axes):
    return [text.get_text() for text in axes.texts]


def bars(axes):
    return [(round(bar.get_x(), 3), round(bar.get_width(), 3)) for bar in axes.patches]


def test_the_ledger_is_drawn_in_seconds_end_to_end():
    axes = panel()
    other = to_draw.everything("b", times=Times(ledger=dict(compile=2.0, step=9.0)))
    time_plots.ledger(axes, {0: to_draw.everything(), 2: other})
    # Kind by kind, in the ledger's order, a bar a run.
    assert bars(axes) == [(0, 4), (0, 2), (4, 9), (2, 9), (13, 6), (11, 0)]
    assert [text.get_text() for text in axes.get_legend().texts] == ["compile", "step", "eval"]
    assert words(axes) == ["4.0 s", "2.0 s", "9.0 s", "9.0 s", "6.0 s", "a: 19.0 s", "b: 11.0 s"]
    assert axes.get_xlabel() == "seconds"
    assert len({bar.get_hatch() for bar in axes.patches}) == 3, "not by colour alone"


def test_runs_of_unlike_length_are_drawn_as_shares():
    axes = panel()
    long = to_draw.everything("b", times=Times(ledger=dict(compile=400.0, step=7200.0)))
    time_plots.ledger(axes, {0: to_draw.everything(), 1: long})
    assert "%" in axes.get_xlabel()
    widths = [width for _, width in bars(axes)]
    assert sum(widths[0::2]) == pytest.approx(100) and sum(widths[1::2]) == pytest.approx(100)
    assert "2.0 h" in words(axes) and "b: 2.1 h" in words(axes)


def test_updates_are_counted_and_evaluations_stand_apart():
    axes = panel()
    run = to_draw.everything()
    time_plots.update_times(axes, {0: run})
    (steps,) = axes.patches
    tops, edges, floor = steps.get_data()
    assert edges[0] == pytest.approx(3) and edges[-1] == pytest.approx(7)
    heights = (floor - tops) / (floor - tops).max()
    # 30 updates of 3, 4, 5, 6 and 7 ms, six of each.
    assert sorted(heights)[-5:] == [1] * 5 and heights.sum() == pytest.approx(5)
    median, evaluation = axes.lines
    assert list(median.get_xdata()) == [5, 5] and list(evaluation.get_xdata()) == [250]
    assert words(axes) == ["a: update 5 ms; evaluation 250 ms"]
    assert axes.get_xlim()[1] > 250


def test_updates_that_take_the_same_time_are_still_seen():
    logged = [(step, 3.0, 766.0, np.nan, np.nan, np.nan) for step in range(1, 9)]
    run = to_draw.series(logged=logged, times=Times(evaluation_seconds=88.6))
    axes = panel()
    time_plots.update_times(axes, {0: run})
    _, edges, _ = axes.patches[0].get_data()
    low, high = np.log(axes.get_xlim())
    assert len(edges) == 2 and np.ptp(np.log(edges)) > (high - low) / 110


def test_of_quantiles_alone_there_is_a_bar():
    axes = panel()
    time_plots.update_times(axes, {0: to_draw.LAPTOP, 1: to_draw.GPU})
    assert bars(axes) == [(95, 1388)]
    assert words(axes) == [
        "laptop: update 132 ms, bar: 5 to 95 %",
        "gpu: update 766 ms; evaluation 88.6 s",
    ]


def test_what_is_not_known_is_not_drawn():
    unknown = to_draw.series()
    assert not time_plots.draws_times(unknown) and not time_plots.draws_ledger(unknown)
    logged = to_draw.series(logged=[(1, np.nan, 5.0, np.nan, np.nan, np.nan)])
    assert time_plots.draws_times(logged) and time_plots.median_ms(logged) == 5


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(0.012, "12 ms"), (7.26, "7.3 s"), (720, "12 min"), (7200, "2.0 h")],
)
def test_seconds_are_shown_as_they_are_read(seconds, wanted):
    assert time_plots.seconds_shown(seconds) == wanted
