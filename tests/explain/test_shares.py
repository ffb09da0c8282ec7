"""Shares of games whose solution is known, and error bars by hand."""

import itertools
import math

import numpy as np
import pytest

from gptjax.explain.ladder_steps import orders
from gptjax.explain.shares import Estimate, estimate, rounded, shares


def game(value, n_steps, n_seeds=1):
    """Losses of every set of steps, `value(set, seed)`."""
    return {
        frozenset(switched): np.array([value(set(switched), seed) for seed in range(n_seeds)])
        for n in range(n_steps + 1)
        for switched in itertools.combinations(range(n_steps), n)
    }


def means(estimates):
    return [each.mean for each in estimates]


@pytest.mark.parametrize("n_random", [0, 3])
def test_an_additive_game_is_divided_exactly(n_random):
    parts = [-0.5, 0.25, 0.0, -2.0]
    losses = game(lambda switched, seed: 4 + sum(parts[i] for i in switched), 4)
    found = shares(losses, orders(4, n_random, seed=0))
    assert means(found.shares) == pytest.approx(parts, abs=1e-12)
    assert means(found.interactions) == pytest.approx([0] * 4, abs=1e-12)
    assert means(found.ends) == [4, 1.75] and found.gap.mean == -2.25


def test_an_interaction_is_shared_and_reported():
    """Steps 0 and 1 give 1 only together, 2 gives 0.5 on its own."""
    losses = game(lambda switched, seed: 1.0 * ({0, 1} <= switched) + 0.5 * (2 in switched), 3)
    found = shares(losses, orders(3, 0, seed=0))
    # In the stated order 1 gets it, in the reverse 0: half each.
    assert means(found.shares) == [0.5, 0.5, 0.5]
    assert means(found.interactions) == [1, 1, 0]
    np.testing.assert_array_equal(found.difference_OS, [[0, 1, 0.5], [1, 0, 0.5]])


def test_all_orders_give_shapleys_value():
    """A game of three without symmetry, by Shapley's formula over sets."""
    rng = np.random.default_rng(0)
    losses = game(lambda switched, seed: float(rng.normal()), 3)
    wanted = []
    for i in range(3):
        others = [j for j in range(3) if j != i]
        value = 0.0
        for n in range(3):
            for before in itertools.combinations(others, n):
                weight = math.factorial(n) * math.factorial(2 - n) / math.factorial(3)
                after = frozenset({*before, i})
                value += weight * (losses[after][0] - losses[frozenset(before)][0])
        wanted.append(value)
    found = shares(losses, orders(3, 4, seed=0))
    assert means(found.shares) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("n_random", [0, 2])
def test_shares_sum_to_the_gap(n_random):
    rng = np.random.default_rng(1)
    losses = game(lambda switched, seed: float(rng.normal()), 5, n_seeds=3)
    found = shares(losses, orders(5, n_random, seed=0))
    assert math.fsum(means(found.shares)) == pytest.approx(found.gap.mean, abs=1e-12)


def test_error_bars_are_of_pairs_of_seeds():
    """A seed moves all rungs alike by 0, 5, 1; step 0 makes 1, 2, 3 by seed, step 1 always 1."""
    of_seed, of_step = [0.0, 5.0, 1.0], [1.0, 2.0, 3.0]

    def loss(switched, seed):
        return of_seed[seed] + of_step[seed] * (0 in switched) + (1 in switched)

    found = shares(game(loss, 2, n_seeds=3), orders(2, 0, seed=0))
    first, second = found.shares
    assert (first.mean, second.mean) == (2, 1)
    # Standard deviation 1 over the root of three seeds.
    assert first.error == pytest.approx(1 / math.sqrt(3))
    assert second.error == pytest.approx(0, abs=1e-12)
    assert found.gap.error == pytest.approx(1 / math.sqrt(3))
    assert found.ends[0].error == pytest.approx(np.std(of_seed, ddof=1) / math.sqrt(3))
    # Twice its error, but of three seeds: Student's t is 4.30 there.
    assert not first.is_beyond_noise and second.is_beyond_noise


def test_a_single_seed_has_no_error_bar():
    found = estimate(np.array([0.5]))
    assert math.isnan(found.error) and not found.is_beyond_noise
    assert str(found) == "+0.5000"
    assert str(Estimate(-0.25, 0.0125, 3)) == "-0.2500 ± 0.0125"


@pytest.mark.parametrize(
    ("n_seeds", "mean", "is_beyond"),
    [(2, 12.6, False), (2, -12.8, True), (5, 2.7, False), (5, 2.8, True), (40, 2.3, True)],
)
def test_beyond_noise_is_students(n_seeds, mean, is_beyond):
    assert Estimate(mean, 1.0, n_seeds).is_beyond_noise is is_beyond


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.333, 0.333, 0.334], [0.33, 0.33, 0.34]),  # sums to 1.00
        ([0.125, 0.375], [0.12, 0.38]),
        ([0.006, 0.006, 0.006], [0.0, 0.01, 0.01]),  # 0.018 rounds to 0.02
        ([-0.006, -0.006, -0.006], [0.0, -0.01, -0.01]),
        ([0.003, 0.0049, 0.004], [0.0, 0.01, 0.0]),  # the one that lost the most
        ([-0.003, -0.004, -0.0049], [0.0, 0.0, -0.01]),
        ([0.1, 0.2], [0.1, 0.2]),
    ],
)
def test_rounded_shares_sum_to_the_rounded_gap(values, wanted):
    found = rounded(values, digits=2)
    assert found == pytest.approx(wanted)
    assert math.fsum(found) == pytest.approx(round(math.fsum(values), 2))
