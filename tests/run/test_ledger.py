"""The ledger's parts are disjoint, sum to the wall time and survive a resume."""

import json
import time

import pytest

from gptjax.run.ledger import KINDS, Ledger


def test_parts_sum_to_the_wall_time():
    ledger = Ledger()
    before = ledger.process_seconds()
    for kind, seconds in (("step", 0.05), ("eval", 0.02), ("step", 0.03)):
        with ledger.measure(kind):
            time.sleep(seconds)
    time.sleep(0.04)
    stored = ledger.to_json()
    assert set(stored["seconds"]) == set(KINDS)
    assert sum(stored["seconds"].values()) == pytest.approx(stored["wall_seconds"], rel=0.01)
    assert 0.08 <= stored["seconds"]["step"] < 0.12
    assert 0.02 <= stored["seconds"]["eval"] < 0.05
    assert stored["seconds"]["other"] >= before + 0.04


def test_blocks_must_not_overlap():
    ledger = Ledger()
    with pytest.raises(AssertionError), ledger.measure("step"), ledger.measure("eval"):
        pass


def test_time_is_counted_when_the_work_fails():
    ledger = Ledger()
    with pytest.raises(RuntimeError), ledger.measure("step"):
        time.sleep(0.02)
        raise RuntimeError
    assert ledger.seconds_here("step") >= 0.02
    with ledger.measure("eval"):
        pass


def test_quantiles_of_step_times():
    ledger = Ledger()
    for step_ms in range(1, 101):
        ledger.count_steps(10, 10 * step_ms / 1e3)
    assert ledger.step_ms(0.5) == pytest.approx(50, rel=0.02)
    assert ledger.step_ms(0.95) == pytest.approx(95, rel=0.02)
    assert Ledger().step_ms(0.5) == 0


def test_a_resumed_ledger_goes_on():
    first = Ledger()
    with first.measure("step"):
        time.sleep(0.02)
    first.count_steps(3, 0.03)
    stored = json.loads(json.dumps(first.to_json()))
    second = Ledger(stored)
    second.count_steps(1, 0.04)
    again = second.to_json()
    assert again["seconds"]["step"] >= 0.02
    assert again["wall_seconds"] > stored["wall_seconds"]
    assert sum(again["seconds"].values()) == pytest.approx(again["wall_seconds"], rel=0.01)
    assert sum(again["step_ms_bins"].values()) == 4
    assert second.seconds_here("step") == 0
