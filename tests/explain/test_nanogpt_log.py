"""Logs of nanoGPT, whole and torn, as series."""

import numpy as np
import pytest
from nanogpt_logs import body, header, real_log

from gptjax.explain.nanogpt_log import read_log
from gptjax.explain.sources import read_series
from gptjax.system.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Reads lines, or bytes, as a log."""

    def from_lines(lines, name="a.log"):
        path = tmp_path / name
        text = lines if isinstance(lines, bytes | str) else "".join(f"{line}\n" for line in lines)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_log(path, "a")

    return from_lines


def test_the_laptop_recipe():
    series = read_series(str(real_log("nanogpt_laptop_cpu.log")))
    evaluations, updates, times = series.evaluations, series.updates, series.times
    assert list(evaluations.update_E) == list(range(0, 2001, 250))
    assert (evaluations.train_E[-1], evaluations.val_E[-1]) == (1.7648, 1.8857)
    # nanoGPT makes one update more, whose batch's loss this is.
    assert (len(updates), updates.update_U[-1], updates.loss_U[-1]) == (2001, 2001, 1.6958)
    assert series.value("train.max_iters") == 2000
    assert series.value("parameters") == 795_904
    assert series.value("tokens_per_update") == 768
    assert series.value("flops_per_update") == 3_969_515_520
    assert (series.value("device"), series.value("model.dtype")) == ("cpu", "float32")
    assert series.facts["model.bias"].how == "nanoGPT's default, its config was read"
    assert series.facts["model.n_layer"].how == "log"
    assert times.update_ms == pytest.approx(131.83)
    assert (times.update_ms_low, times.update_ms_high) == pytest.approx((95, 1479), abs=0.1)
    # All iterations are there, so the clock is their sum.
    np.testing.assert_allclose(updates.seconds_U[-1], 730.265, atol=1e-3)
    assert np.isnan(updates.ms_U[::250]).all() and np.isfinite(updates.ms_U[1:250]).all()
    assert series.notes == ()


def test_the_default_recipe():
    series = read_series(str(real_log("nanogpt_default_mps.log")))
    evaluations, times = series.evaluations, series.times
    assert (evaluations.update_E[series.best], evaluations.val_E[series.best]) == (1750, 1.4723)
    assert (evaluations.train_E[-1], evaluations.val_E[-1]) == (0.6175, 1.7093)
    assert series.value("parameters") == 10_646_784
    assert series.value("flops_per_update") / 3_969_515_520 * 5000 / 2000 == pytest.approx(
        732, abs=1
    )
    assert times.update_ms == pytest.approx(765.63)
    assert times.iteration_ms == pytest.approx(89_332.44)
    assert times.evaluation_seconds == pytest.approx(88.57, abs=0.01)
    assert times.evaluation_share == pytest.approx(0.33, abs=0.01)
    assert series.value("shown_mfu") == 0.0047
    (note,) = series.notes
    assert note.startswith("seconds are estimated: 53 of 5,001 iterations")


def test_updates_times_and_the_clock(read):
    """30, 31, 32, 30 … ms, 500 more where an evaluation is in them."""
    series = read([*header(), *body(last=20)])
    np.testing.assert_array_equal(series.evaluations.update_E, [0, 10, 20])
    np.testing.assert_allclose(series.evaluations.val_E, [4.1, 4.0, 3.9])
    assert np.isnan(series.evaluations.val_sem_E).all()
    np.testing.assert_array_equal(series.updates.update_U, np.arange(1, 22))
    ms_U = 30.0 + np.arange(21) % 3
    with_evaluations_U = ms_U + 500 * (np.arange(21) % 10 == 0)
    np.testing.assert_allclose(series.updates.seconds_U, np.cumsum(with_evaluations_U) / 1e3)
    ms_U[::10] = np.nan
    np.testing.assert_array_equal(series.updates.ms_U, ms_U)
    times = series.times
    assert (times.update_ms, times.n_updates, times.iteration_ms) == (31.0, 18, 531.5)
    assert times.evaluation_seconds == 0.5005
    assert times.evaluation_share == pytest.approx(3 * 0.5005 / series.updates.seconds_U[-1])
    # An evaluation has ended one update before its iteration has.
    np.testing.assert_allclose(
        series.evaluations.seconds_E, series.updates.seconds_U[::10] - 0.031, atol=1e-9
    )
    assert series.value("shown_mfu") == 0.0043
    assert series.notes == ()


def test_what_is_no_log_is_refused(tmp_path, read):
    with pytest.raises(UserError, match="has no line of nanoGPT's"):
        read("epoch 1: loss 3\n")
