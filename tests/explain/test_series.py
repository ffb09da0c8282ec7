"""Series of evaluations from a log written by hand."""

import json

import numpy as np
import pytest

from gptjax.explain.series import AXES
from gptjax.explain.sources import read_series
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
    """A loss that was not a number, and one of a single window."""
    folder = write_log(
        tmp_path / "a",
        dict(kind="run", n_params=11),
        evaluation(0, 2.0, 4.2),
        dict(kind="train", step=10, loss=2.6, seconds=4.0, lr=1e-3),
        evaluation(10, 5.0, 2.5, None),
        evaluation(20, 8.0, 2.7),
        evaluation(30, 9.0, None),
    )
    knobs = {"train.batch_size": 3, "model.block_size": 5, "model.n_layer": 2, "model.n_embd": 4}
    (folder / "config.json").write_text(json.dumps(knobs))
    return folder


def test_evaluations_stand_at_updates_tokens_flops_and_seconds(run_dir):
    series = read_series(str(run_dir))
    assert series.label == "a"
    np.testing.assert_array_equal(series.evaluations.val_E, [4.2, 2.5, 2.7, np.nan])
    np.testing.assert_array_equal(series.evaluations.val_sem_E, [0.01, np.nan, 0.01, 0.01])
    # 3 sequences of 5; (6 · 11 parameters + 12 · 2 · 4 · 5) FLOPs a token.
    wanted = dict(
        seconds=[2, 5, 8, 9],
        updates=[0, 10, 20, 30],
        tokens=[0, 150, 300, 450],
        flops=[0, 150 * 546, 300 * 546, 450 * 546],
    )
    assert set(wanted) == set(AXES)
    for axis, values in wanted.items():
        np.testing.assert_allclose(series.x_E(axis), values)
    assert (series.best, series.last) == (1, 2)
    assert series.updates.loss_U == [2.6]
    places = {axis: float(series.x_U(axis)[0]) for axis in AXES}
    assert places == dict(seconds=4.0, updates=10.0, tokens=150.0, flops=81_900.0)
    assert read_series(f"laptop={run_dir}").label == "laptop"
    assert read_series(str(run_dir / "metrics.jsonl")).label == "a"


def test_facts_are_those_of_config_and_record(run_dir):
    series = read_series(str(run_dir))
    assert series.value("model.n_layer") == 2 and series.facts["model.n_layer"].how == "config"
    assert series.value("parameters") == 11 and series.facts["parameters"].how == "record"
    assert series.value("device") is None and series.value("device", "?") == "?"
    (run_dir / "config.json").write_text("{torn")
    series = read_series(str(run_dir))
    assert series.value("parameters") == 11 and series.x_E("tokens") is None


def test_times_are_those_of_the_ledger(run_dir):
    """Three updates of about 20 ms and one of about 148 ms (e**(150 / 50) and e**(250 / 50))."""
    ledger = dict(
        kind="ledger",
        step=30,
        seconds=dict(step=6.0, eval=2.0),
        step_ms_median=20.1,
        step_ms_p95=148.4,
        step_ms_bins={"150": 3, "250": 1},
    )
    with open(run_dir / "metrics.jsonl", "a") as log:
        log.write(json.dumps(ledger) + "\n")
    times = read_series(str(run_dir)).times
    assert (times.update_ms, times.update_ms_high, times.n_updates) == (20.1, 148.4, 4)
    assert times.update_ms_low == pytest.approx(20.09, abs=0.01)
    assert (times.evaluation_share, times.evaluation_seconds) == (0.25, 0.5)
    assert times.ledger == dict(step=6.0, eval=2.0)


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
