"""How long, how many seeds, and what it takes, by hand."""

import pytest

from gptjax.explain.ladder_plan import Cost, budget_seconds, plan, seconds_left
from gptjax.system.errors import UserError


def cost(n_updates=2000, update_seconds=0.01, run_seconds=0.0, compile_seconds=0.0):
    return Cost(n_updates, update_seconds, run_seconds, compile_seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10m", 600), ("90s", 90), ("1h30m", 5400), ("600", 600), ("2h", 7200), ("1m30s", 90)],
)
def test_a_budget_is_a_time(text, seconds):
    assert budget_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "ten", "-5m", "1.5h", "5m3h", "m"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UserError, match="--budget: '.*'; must be a time. Try 10m, 90s or 1h30m."):
        budget_seconds(text)


def test_the_horizon_takes_the_budget():
    """Two rungs, three seeds, both horizons: 0.09 s for each of the whole run's updates."""
    chosen = plan([cost()] * 2, budget=40.0, n_seeds=0)
    # 444 updates would take it all; 440 is the round number below that has a half.
    assert chosen.n_seeds == 3
    assert chosen.shares == pytest.approx((220 / 2000, 440 / 2000))
    assert chosen.seconds == pytest.approx(440 * 0.09)


def test_compiling_and_evaluating_are_paid_for():
    rungs = [cost(run_seconds=1.0, compile_seconds=4.0)] * 2
    # 2 rungs x (4 s + 2 horizons x 3 seeds x 1 s).
    chosen = plan(rungs, budget=20.0 + 40.0, n_seeds=0)
    assert chosen.shares[-1] == pytest.approx(440 / 2000)
    assert chosen.seconds == pytest.approx(20 + 440 * 0.09)


def test_less_time_gives_one_horizon_then_two_seeds():
    # Half of it would be below 50 updates: 6 s are 66 updates with both, 100 of the full one alone.
    chosen = plan([cost()] * 2, budget=6.0, n_seeds=0)
    assert (chosen.n_seeds, len(chosen.shares)) == (3, 1)
    assert chosen.shares[0] == pytest.approx(100 / 2000)
    # 2.4 s are 40 updates of three seeds, 60 of two.
    chosen = plan([cost()] * 2, budget=2.4, n_seeds=0)
    assert (chosen.n_seeds, chosen.shares) == (2, pytest.approx((60 / 2000,)))
    with pytest.raises(UserError) as e:
        plan([cost()] * 2, budget=1.9, n_seeds=0)
    assert str(e.value) == (
        "--budget: 2 s; 2 seeds of 2 configs, 50 updates each, take 2 s. "
        "Give --budget=1m or more, or smaller experiments."
    )


def test_seeds_that_were_asked_for_stay():
    assert plan([cost()] * 2, budget=40.0, n_seeds=5).n_seeds == 5
    assert plan([cost()] * 2, budget=1e6, n_seeds=1).n_seeds == 1
    with pytest.raises(UserError, match="3 seeds of 2 configs"):
        plan([cost()] * 2, budget=2.4, n_seeds=3)


def test_whole_runs_that_leave_time_get_more_seeds():
    rungs = [cost(n_updates=101)] * 2
    whole = 2 * 1.5 * 101 * 0.01  # a seed of both rungs at both horizons
    chosen = plan(rungs, budget=4.5 * whole, n_seeds=0)
    assert (chosen.n_seeds, chosen.shares) == (4, (0.5, 1.0))
    assert chosen.seconds == pytest.approx(4 * whole)
    assert plan(rungs, budget=1e6, n_seeds=0).n_seeds == 10


def test_ends_of_unlike_length_are_cut_at_the_same_share():
    chosen = plan([cost(n_updates=2000), cost(n_updates=5000)], budget=10.5 * 4.5, n_seeds=0)
    # A share of 0.15: 300 and 750 updates.
    assert chosen.shares[-1] == pytest.approx(0.15)


def test_what_is_left_follows_the_pace_so_far():
    # As long as the first is being made, as expected.
    assert seconds_left([2.0, 4.0], 0, 0.5, passed=99.0) == pytest.approx(5.0)
    # It took 3 s instead of 2: the other, too, takes 1.5 times as long.
    assert seconds_left([2.0, 4.0], 1, 0.0, passed=3.0) == pytest.approx(6.0)
    assert seconds_left([2.0, 4.0], 1, 0.5, passed=6.0) == pytest.approx(3.0)
    assert seconds_left([2.0, 4.0], 1, 1.0, passed=7.0) == 0
