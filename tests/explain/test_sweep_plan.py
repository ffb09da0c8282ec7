"""What a sweep's budget is spent on."""

import pytest

from gptjax.explain.sweep_plan import (
    MemberCost,
    fitting,
    left_seconds,
    lengths,
    longest_seconds,
    resized,
)
from gptjax.system.errors import UserError

QUICK, SLOW = MemberCost(0.01, 1.0), MemberCost(0.04, 2.0)


def test_the_longest_members_fill_the_budget():
    costs = [QUICK, SLOW]
    found = longest_seconds(costs, budget=100, spent=10, run_seconds=60)
    taken = sum(cost.seconds(n) for cost in costs for n in lengths(cost, found))
    # Numbers of updates are round ones: a little may be left.
    assert 0.9 * left_seconds(100, 10) < taken <= left_seconds(100, 10)
    assert all(n == n2 / 2 == n4 / 4 for n, n2, n4 in [lengths(cost, found) for cost in costs])


def test_no_member_is_longer_than_the_run_it_is_for():
    assert longest_seconds([QUICK], budget=1e4, spent=0, run_seconds=30) == 30


def test_a_budget_that_is_too_small_is_refused_with_one_that_is_not():
    with pytest.raises(UserError, match=r"--budget: 20 s; 6 members, .* Give --budget=\d+m") as e:
        longest_seconds([QUICK, SLOW], budget=20, spent=15, run_seconds=60)
    minutes = int(str(e.value).partition("--budget=")[2].partition("m")[0])
    assert longest_seconds([QUICK, SLOW], budget=60 * minutes, spent=15, run_seconds=60) >= 6


def test_members_that_do_not_fit_are_the_longest_of_the_last_turn():
    seconds, turns = [40, 10, 20, 40, 10, 20], [0, 0, 0, 1, 1, 1]
    assert fitting(seconds, turns, budget=1000, spent=0) == [1, 2, 0, 4, 5, 3]
    # 90 of 120 seconds are planned with, after 20 that are spent.
    assert fitting(seconds, turns, budget=120, spent=20) == [1, 2, 0, 4]
    assert fitting(seconds, turns, budget=9, spent=0) == []


def test_a_recipe_is_made_shorter_as_a_whole():
    values = {"train.max_iters": 2000, "optim.warmup_iters": 100, "optim.lr_decay_iters": 0}
    assert resized(values, 500) == {**values, "train.max_iters": 500, "optim.warmup_iters": 25}
    assert resized(values, 2000) == values
    assert resized(values, 6000)["optim.warmup_iters"] == 300
