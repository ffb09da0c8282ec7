"""Logs whose peak was found out late, worked out by hand."""

import math

from gptjax.run.final_peak import final_mfus, final_peak

LAPTOP = dict(kind="run", host="laptop", device="cpu", flops_per_update=6e9)


def peak(rate, source="measured", **more):
    return {"kind": "peak", "peak_flops_per_s": rate, "peak_source": source, **more}


def update(rate):
    return {"kind": "train", "flops_per_s": rate}


def test_the_highest_peak_is_everyones():
    start = LAPTOP | peak(50e9, "low", kind="run")
    records = [start, update(40e9), peak(80e9), update(20e9), peak(100e9, "found"), update(60e9)]
    found = final_peak(records)
    assert (found.flops_per_s, found.source) == (100e9, "found")
    assert final_mfus(records) == [0.4, 0.2, 0.6]


def test_a_run_that_was_killed_before_its_peak_was_raised():
    records = [LAPTOP | peak(50e9, kind="run"), update(40e9), update(80e9)]
    assert final_mfus(records) == [0.5, 1.0]
    assert final_peak(records).source == "the run's own updates"


def test_each_machine_has_its_own():
    laptop, server = LAPTOP | peak(50e9, kind="run"), LAPTOP | peak(200e9, kind="run", host="b")
    records = [laptop, update(25e9), server, update(50e9), laptop, peak(100e9), update(50e9)]
    assert final_mfus(records) == [0.25, 0.25, 0.5]
    assert final_peak(records).flops_per_s == 100e9
    assert final_peak(records[:4]).flops_per_s == 200e9


def test_logs_of_0_1_0_tell_times_alone():
    """6 GFLOP in 60 ms are 100 GFLOP/s."""
    records = [LAPTOP | peak(50e9, kind="run"), {"kind": "train", "step_ms": 60.0, "mfu": 2.0}]
    assert final_mfus(records) == [1.0] and final_peak(records).flops_per_s == 100e9


def test_nothing_is_known_of_a_run_that_was_imported():
    records = [dict(kind="run", host="laptop"), update(None)]
    assert final_peak(records) is None and math.isnan(final_mfus(records)[0])
    assert final_peak([]) is None and final_mfus([]) == []
    # What was reached alone is no peak.
    assert final_peak([dict(kind="run"), update(9e9)]) is None
