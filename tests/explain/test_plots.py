"""Curves are those of the series, on an axis on which they are seen."""

import numpy as np
import pytest
import to_draw

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from gptjax.explain import plots
from gptjax.explain.series import AXES


def panel():
    return Figure(figsize=(5, 3.6), dpi=72).subplots()


def curves(drawn_on):
    return [line.get_xydata().tolist() for line in drawn_on.lines]


@pytest.mark.parametrize("over", AXES)
def test_losses_stand_over_each_axis(over):
    run, axes = to_draw.everything(), panel()
    plots.losses(axes, {0: run}, over=over, marks={"nanoGPT": 1.8857})
    x = {
        "updates": [10, 20, 30],
        "seconds": [7, 13, 19],
        "tokens": [60, 120, 180],
        "flops": [7e10, 14e10, 21e10],
    }[over]
    found = curves(axes)
    # What came before the first update is not drawn; val, then train, then the best.
    assert found[0] == [[x[0], 2.5], [x[1], 2.3], [x[2], 2.7]]
    assert found[1] == [[x[0], 2.4], [x[1], 2.0], [x[2], 1.5]]
    assert found[2] == [[x[1], 2.3]] and axes.lines[2].get_marker() == "*"
    assert [line.get_ydata()[0] for line in axes.lines[3:]] == [1.8857, 0.83]
    assert axes.get_xlabel() == AXES[over]


def test_the_band_is_one_standard_error_wide():
    axes = panel()
    plots.losses(axes, {0: to_draw.series()}, over="updates", marks={})
    (band,) = axes.collections
    assert set(band.get_paths()[0].vertices[:, 1].round(4)) == {2.49, 2.51, 2.29, 2.31, 2.69, 2.71}


def test_the_axis_is_logarithmic_where_one_run_would_be_lost():
    axes = panel()
    plots.losses(axes, {0: to_draw.LAPTOP, 1: to_draw.GPU}, over="updates", marks={})
    assert axes.get_xscale() == "linear" and axes.get_xlim()[0] == 0
    axes = panel()
    drawn = plots.losses(axes, {0: to_draw.LAPTOP, 1: to_draw.GPU}, over="tokens", marks={})
    assert axes.get_xscale() == "log"
    low, high = axes.get_xlim()
    assert low < 250 * 768 and high > 5000 * 16_384
    words = [label.text for label in drawn.labels]
    assert words == ["laptop: 1.8857, best", "best 1.4723", "gpu: 1.7093"]


def test_runs_differ_in_more_than_colour():
    axes = panel()
    runs = {index: to_draw.series(str(index)) for index in range(6)}
    plots.losses(axes, runs, over="updates", marks={})
    vals = [line for line in axes.lines if line.get_marker() not in ("*", "None")]
    looks = {(line.get_marker(), str(line._unscaled_dash_pattern)) for line in vals}
    assert len(vals) == len(looks) == 6


def test_without_train_losses_batches_are_drawn_as_means_of_ten():
    logged = [(step, float(step), np.nan, np.nan, np.nan, np.nan) for step in range(1, 13)]
    run = to_draw.series(train=[np.nan] * 4, logged=logged)
    axes = panel()
    plots.losses(axes, {0: run}, over="updates", marks={})
    np.testing.assert_allclose(curves(axes)[1], [[10, 5.5], [11, 6.5], [12, 7.5]])
    assert len(plots.running_mean(np.arange(9.0))) == 0


@pytest.mark.filterwarnings("error")
def test_one_evaluation_is_a_point_on_an_axis_from_0():
    axes = panel()
    run = to_draw.series(update=[5], val=[1.7], train=[1.6])
    plots.losses(axes, {0: run}, over="updates", marks={})
    assert curves(axes)[0] == [[5, 1.7]] and axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 5


def test_a_long_curve_keeps_its_ends():
    x, y = plots.thinned(np.arange(5000.0), -np.arange(5000.0))
    assert (len(x), x[0], x[-1]) == (300, 0, 4999)
    assert (y == -x).all()


def test_learning_rates_and_gradient_norms_stand_over_updates():
    run = to_draw.everything()
    axes = panel()
    plots.updates(axes, {0: run}, what="lr")
    np.testing.assert_allclose(curves(axes)[0], [[n, 1e-3 / n] for n in range(1, 31)])
    axes = panel()
    plots.updates(axes, {0: run}, what="grad_norm")
    raw, smooth, _ = (np.array(each) for each in curves(axes))
    np.testing.assert_allclose(raw[:, 1], 2 / np.arange(1, 31))
    np.testing.assert_allclose(smooth[0], [10, np.mean(2 / np.arange(1, 11))])
    assert not plots.draws_updates(to_draw.GPU, "lr")


@pytest.mark.parametrize(
    ("over", "value", "wanted"),
    [
        ("updates", 2000, "2,000"),
        ("tokens", 1_536_000, "1.536 M"),
        ("tokens", 81_920_000_000, "81.92 G"),
        ("flops", 5.5e15, "5.5e15"),
        ("seconds", 0.25, "0.25"),
        ("seconds", 0, "0"),
    ],
)
def test_ticks_are_short(over, value, wanted):
    assert plots.tick(over, value) == wanted
