"""How many updates a call makes, and how long a run will take."""

from types import SimpleNamespace

import tiny

from gptjax.run.pace import Pace


def pace(step_seconds, *, first=0, most=1000, **knobs):
    values = dict(train__max_iters=100, eval__interval=30, checkpoint__interval=40, **knobs)
    ledger = SimpleNamespace(seconds_here=lambda kind: {"step": step_seconds}[kind])
    return Pace(tiny.config(**values), ledger, first=first, most=most)


def test_a_call_ends_where_something_is_due():
    ends = {0: 30, 29: 30, 30: 40, 40: 60, 60: 80, 80: 90, 90: 100, 99: 100, 100: 100, 120: 120}
    for done, end in ends.items():
        assert done + pace(1e-9, first=-1).updates(done) == end, done


def test_a_call_takes_about_a_second_and_the_first_is_short():
    assert pace(0.0).updates(0) == 1
    assert pace(2.0, first=4).updates(4) == 1
    assert pace(2.0).updates(10) == 5  # 0.2 s each
    assert pace(50.0).updates(10) == 1
    assert pace(2.0, most=3).updates(10) == 3
    assert pace(50.0, most=7, train__updates_per_dispatch=7).updates(10) == 7


def test_what_is_left_counts_evaluations():
    found = pace(2.0, first=5)
    assert found.left_seconds(15) == 85 * 0.2
    found.eval_seconds = 3.0
    assert found.left_seconds(15) == 85 * 0.2 + 3 * 3.0
    assert not found.is_shown and pace(2.1).is_shown
