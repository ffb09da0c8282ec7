"""Series of evaluations from a log written by hand."""

import json

import numpy as np
import pytest

from gptjax import plot as plot_module
from gptjax.explain import plots
from gptjax.explain.series import AXES, read_series
from gptjax.system.errors import UserError


def write_log(folder, *records):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def evaluation(step, seconds, val, sem=0.01):
    return dict(kind="eval", step=step, seconds=seconds, val_loss=val, val_sem=sem)


@pytest.fixture
def run_dir(tmp_path):
    """Three tokens and seven FLOPs an update; a loss that was not a number, and one window."""
    return write_log(
        tmp_path / "a",
        dict(kind="run"),
        evaluation(0, 2.0, 4.2),
        dict(kind="train", step=10, loss=2.6, seconds=4.0, tokens_seen=30, flops_total=70.0),
        evaluation(10, 5.0, 2.5, None),
        evaluation(20, 8.0, 2.7),
        evaluation(30, 9.0, None),
    )


def test_evaluations_stand_at_updates_tokens_flops_and_seconds(run_dir):
    series = read_series(str(run_dir))
    assert series.label == "a"
    np.testing.assert_array_equal(series.val_E, [4.2, 2.5, 2.7])
    np.testing.assert_array_equal(series.sem_E, [0.01, 0.0, 0.01])
    wanted = dict(seconds=[2, 5, 8], updates=[0, 10, 20], tokens=[0, 30, 60], flops=[0, 70, 140])
    assert set(wanted) == set(AXES)
    for axis, values in wanted.items():
        np.testing.assert_allclose(series.x[axis], values)
    assert series.best == 1
    assert series.loss_U == [2.6]
    places = {axis: float(values[0]) for axis, values in series.update_x.items()}
    assert places == dict(seconds=4.0, updates=10.0, tokens=30.0, flops=70.0)
    assert read_series(f"laptop={run_dir}").label == "laptop"


def test_a_run_without_evaluations_is_refused(tmp_path):
    write_log(tmp_path / "a", dict(kind="run"))
    with pytest.raises(UserError, match="no evaluation yet"):
        read_series(str(tmp_path / "a"))
    for trained in ([], [dict(kind="train", step=1, loss=1.0, seconds=3.0, tokens_seen=3)]):
        write_log(tmp_path / "a", evaluation(0, 2.0, 4.2), *trained)
        with pytest.raises(UserError, match="no evaluation after an update yet"):
            read_series(str(tmp_path / "a"))
    with pytest.raises(UserError, match="no metrics.jsonl"):
        read_series(str(tmp_path))


@pytest.mark.parametrize("over", AXES)
def test_the_picture_has_a_curve_and_a_line_for_each_mark(run_dir, tmp_path, over, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot

    drawn = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    plot_module.plot(
        [f"one={run_dir}", f"two={run_dir}"],
        over=over,
        mark=["nanoGPT, laptop=1.8857"],
        png=str(tmp_path / "losses.png"),
    )
    (panel,) = drawn[0].axes
    monkeypatch.undo()
    pyplot.close(drawn[0])
    curves = [line.get_ydata().tolist() for line in panel.lines if line.get_linestyle() == "-"]
    assert curves.count([2.5, 2.7]) == 2  # What came before the first update is not drawn.
    assert [1.8857, 1.8857] in [list(line.get_ydata()) for line in panel.lines]
    said = " ".join(text.get_text() for text in panel.texts)
    assert "one: 2.5000" in said and "nanoGPT, laptop: 1.8857" in said
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_batches_losses_are_drawn_as_means_of_ten():
    smooth = plots._running_mean(np.arange(12.0))
    np.testing.assert_allclose(smooth, [4.5, 5.5, 6.5])
    assert len(plots._running_mean(np.arange(9.0))) == 0


@pytest.mark.parametrize("mark", ["1.8857", "=1.8", "a=b", "a=nan"])
def test_a_mark_that_is_none_is_refused(run_dir, tmp_path, mark):
    with pytest.raises(UserError, match="must be LABEL=LOSS"):
        plot_module.plot([str(run_dir)], over="updates", mark=[mark], png=str(tmp_path / "a.png"))


def test_without_matplotlib_the_extra_is_named(run_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"needs matplotlib\. Install it: pip install -e"):
        plots.draw_losses([read_series(str(run_dir))], tmp_path / "a.png", over="updates", marks={})


@pytest.mark.parametrize("png", ["losses", "losses.txt", "folder.png"])
def test_a_picture_that_would_be_written_elsewhere_is_refused(run_dir, tmp_path, png):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="must end in .png, .pdf or .svg|is a folder"):
        plot_module.plot([str(run_dir)], over="updates", mark=[], png=str(tmp_path / png))
    assert {path.name for path in tmp_path.iterdir()} == {"a", "folder.png"}
