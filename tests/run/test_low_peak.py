"""Runs whose peak was measured too low at first: what they show, and what is read of them later."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import runs

import gptjax
from gptjax.config.config import set_knob
from gptjax.device import flops, peak
from gptjax.device.cores import allowed_cpus, usable_cores
from gptjax.device.data_peak import data_peak
from gptjax.explain.sources import read_series
from gptjax.run.runlog import read_records
from gptjax.system import cache
from gptjax.train import train

# An update of these runs has a few hundred microseconds to do so many FLOPs.
_FLOPS = 1e9


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that trains in a fresh cache; returns its records and what it printed."""
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(flops, "update_flops", lambda *arguments, **settings: _FLOPS)

    def trained(**knobs):
        config = runs.settings(tmp_path, log__interval=1, **knobs)
        set_knob(config, "out_dir", str(tmp_path / "run"))
        assert train(config, []) == 0
        return read_records(tmp_path / "run" / "metrics.jsonl"), capsys.readouterr().out

    return trained


def of(records, kind, name):
    return [record[name] for record in records if record["kind"] == kind]


def assert_no_mfu_is_above_1(records, said, run_dir):
    shown = of(records, "train", "mfu")
    assert len(shown) == 12 and all(0 < mfu <= 1 for mfu in shown)
    assert not re.search(r"(mfu|MFU) (1[1-9]\d|10[1-9]|[2-9]\d\d|\d{4,})%", said)
    found = gptjax.open_run(run_dir).mfu
    assert len(found) == 12 and 0 < found.max() <= 1
    highest = max(of(records, "train", "flops_per_s"))
    assert read_series(str(run_dir)).value("peak_flops_per_s") >= highest


def test_a_run_raises_the_peak_it_passes(run, tmp_path, monkeypatch):
    monkeypatch.setattr(peak, "matmul_rate", lambda *arguments, **settings: 1.0)
    records, said = run()
    assert_no_mfu_is_above_1(records, said, tmp_path / "run")
    (first,) = of(records, "run", "peak_flops_per_s")
    last = of(records, "peak", "peak_flops_per_s")[-1]
    rates = of(records, "train", "flops_per_s")
    (by_data,) = of(records, "run", "data_peak")
    cores = usable_cores(Path("/"), allowed_cpus())
    found = data_peak(Path("/"), cores)
    assert by_data == (found.in_words() if found else None)
    assert (first, last) == (1.0, max(rates))
    assert of(records, "peak", "peak_source")[-1] == "the highest rate of this run's own updates"
    assert re.search(r"\nMFU \d+% on average, of .* own updates; at the start .* for 0 GFLOP", said)
    for record in records:
        if record["kind"] == "train":
            assert record["flops_per_s"] == pytest.approx(_FLOPS / record["step_ms"] * 1e3)
    read_anew = gptjax.open_run(tmp_path / "run").mfu
    assert read_anew == pytest.approx([rate / last for rate in rates])
    # Nothing of it is believed by the next run.
    assert max(cache.floats(cache.folder() / "peaks.json").values()) == 1.0


def test_an_evaluation_finds_the_peak_that_the_start_did_not(run, tmp_path, monkeypatch):
    measured = []

    def matmul_rate(*arguments, **settings):
        measured.append(1e15 if measured else 1.0)
        return measured[-1]

    monkeypatch.setattr(peak, "matmul_rate", matmul_rate)
    records, said = run(eval__interval=6)
    assert_no_mfu_is_above_1(records, said, tmp_path / "run")
    assert len(measured) > 1 and of(records, "peak", "peak_flops_per_s")[-1] == 1e15
    # Found at update 6, before the end: the records from there on know it.
    assert all(record["step"] >= 6 for record in records if record["kind"] == "peak")
    assert max(of(records, "train", "mfu")[6:]) < 1e-2 < max(of(records, "train", "mfu")[:6])
    assert gptjax.open_run(tmp_path / "run").mfu.max() < 1e-2
    assert "of 1,000,000 GFLOP/s, measured float32 matmul rate of this cpu; at the start" in said
    assert read_series(str(tmp_path / "run")).value("peak_flops_per_s") == 1e15


def test_a_kept_peak_that_is_too_low_is_forgotten(run, tmp_path):
    """As a version that measured while the machine was busy has left it."""
    peak.PeakProbe(jax.devices()[:1], "float32", folder=cache.folder())
    path = cache.folder() / "peaks.json"
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: 1e3}))
    records, said = run(eval__interval=6)
    assert_no_mfu_is_above_1(records, said, tmp_path / "run")
    assert of(records, "peak", "peak_flops_per_s")[-1] > 1e6 and cache.floats(path)[key] > 1e6


def test_neither_peak_nor_probes_change_a_bit(run, tmp_path, monkeypatch):
    """The weights after a run that measures, and after one that does not."""
    run(eval__interval=6)
    runs.start(runs.settings(tmp_path, log__interval=1, eval__interval=6), tmp_path / "other")
    first, other = runs.newest(tmp_path / "run"), runs.newest(tmp_path / "other")
    assert first.meta["leaves"] == other.meta["leaves"]
    digests = [
        of(read_records(tmp_path / name / "metrics.jsonl"), "run", "config_digest")
        for name in ("run", "other")
    ]
    assert digests[0] == digests[1]


def test_a_machine_that_is_busy_at_the_start(run, tmp_path, monkeypatch):
    """Every core has other work until the peak is measured; then the run has them alone."""
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(2 * (os.cpu_count() or 1))]
    begin = peak.PeakProbe.__init__

    def begin_among_others(self, *arguments, **settings):
        time.sleep(0.1)
        begin(self, *arguments, **settings)
        for other in others:
            other.kill()
            other.wait()

    monkeypatch.setattr(peak.PeakProbe, "__init__", begin_among_others)
    try:
        records, said = run(eval__interval=3)
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert_no_mfu_is_above_1(records, said, tmp_path / "run")
    (first,) = of(records, "run", "peak_flops_per_s")
    assert all(later > first for later in of(records, "peak", "peak_flops_per_s"))
