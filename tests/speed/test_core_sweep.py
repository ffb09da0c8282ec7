"""Variants in turns: who runs when, and what is done when time runs out.

Processes are stand-ins; the last two tests start real ones.
"""

import os
import time

import pytest
import tiny

from gptjax.speed import core_sweep
from gptjax.speed.core_sweep import OutOfTime, sweep
from gptjax.speed.timing import Variant, best
from gptjax.system.errors import RunError

ALL, TWO, ONE = (Variant(tuple(range(n)), "float32") for n in (7, 2, 1))
NARROW = Variant(ALL.cpus, "bfloat16")


class StandIn:
    """A process whose updates take what a table says; nothing is waited for but turns of time."""

    compiles_in: dict = {}
    takes: dict = {}
    alive: set = set()
    most_alive = 0

    def __init__(self, config, vocab_size, variant):
        self.variant, self.ended = variant, False

    def __enter__(self):
        self.alive.add(self.variant)
        StandIn.most_alive = max(StandIn.most_alive, len(self.alive))
        return self

    def __exit__(self, *error):
        self.alive.discard(self.variant)

    def end(self):
        self.ended = True

    def ready(self, until):
        if self.compiles_in.get(self.variant, 0) > until - time.perf_counter():
            raise OutOfTime
        return self.seconds(1, until)

    def seconds(self, n_updates, until):
        assert not self.ended, "nothing is asked of a process that was ended"
        seconds = self.takes[self.variant]
        if isinstance(seconds, Exception):
            raise seconds
        return seconds


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(core_sweep, "Worker", StandIn)
    monkeypatch.setattr(StandIn, "compiles_in", {})
    monkeypatch.setattr(StandIn, "takes", {ALL: 0.02, TWO: 0.01, ONE: 0.04, NARROW: 0.03})
    monkeypatch.setattr(StandIn, "most_alive", 0)
    return StandIn


def swept(*variants, seconds=60.0):
    said, done = [], []
    until = time.perf_counter() + seconds
    timings = sweep(
        None, 65, variants, until=until, say=said.append, meanwhile=lambda: done.append(1)
    )
    assert done == [1]
    return timings, said


def test_all_variants_take_turns_with_the_first(stand_in):
    timings, said = swept(ALL, TWO, NARROW, ONE)
    assert [t.variant for t in timings] == [ALL, TWO, NARROW, ONE]
    assert [round(t.update_ms) for t in timings] == [20, 10, 30, 40]
    assert timings[0].ratios == () and timings[1].ratios == pytest.approx([0.5] * 5)
    assert best(timings).variant == TWO
    # Seven CPUs: three beside the first at once.
    assert (stand_in.most_alive, said, stand_in.alive) == (4, ["timed 4 of 4"], set())


def test_on_two_cores_they_come_one_by_one(stand_in):
    variants = [TWO, ONE, Variant(TWO.cpus, "bfloat16")]
    stand_in.takes[variants[2]] = 0.02
    timings, said = swept(*variants)
    assert all(t.ms for t in timings) and said == ["timed 2 of 3", "timed 3 of 3"]
    assert stand_in.most_alive == 2


def test_what_compiles_for_too_long_is_left_out(stand_in):
    stand_in.compiles_in = {TWO: 100.0}
    timings, _ = swept(ALL, TWO, NARROW)
    assert [bool(t.ms) for t in timings] == [True, False, True]
    assert timings[1].skipped == "not measured, no time left"


def test_without_the_first_there_is_nothing_to_compare(stand_in):
    stand_in.compiles_in = {ALL: 100.0}
    timings, _ = swept(ALL, TWO)
    assert timings[0].skipped and timings[1].ratios == () and not timings[1].is_better


def test_no_time_for_turns(stand_in):
    stand_in.takes = {ALL: 50.0, TWO: 50.0, ONE: 50.0}
    timings, _ = swept(ALL, TWO, ONE)
    assert [t.skipped for t in timings] == ["not measured, no time left"] * 3


def test_a_process_that_fails_at_the_start_is_left_out(stand_in):
    stand_in.takes[TWO] = RunError("python -m ended with -9: it said nothing")
    timings, _ = swept(ALL, TWO, NARROW)
    assert timings[1].skipped == "not measured: python -m ended with -9: it said nothing"
    assert timings[2].ratios


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone lets one choose")
def test_real_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path))
    cpus = sorted(os.sched_getaffinity(0))
    variants = [Variant(tuple(cpus), "float32"), Variant((cpus[0],), "float32")]
    until = time.perf_counter() + 300
    config = tiny.config(train__batch_size=2)
    timings = sweep(config, 11, variants, until=until, say=print, meanwhile=lambda: None)
    assert all(len(t.ms) == 5 and 0 < t.update_ms < 1e4 for t in timings), timings


def test_a_real_process_that_cannot_start_says_why():
    config = tiny.config()
    config.model.n_head = 4  # 15 channels do not split into 4 heads
    variants = [Variant((), "float32")]
    until = time.perf_counter() + 300
    (found,) = sweep(config, 11, variants, until=until, say=print, meanwhile=lambda: None)
    assert "ended with 1: " in found.skipped and "model.n_embd" in found.skipped
