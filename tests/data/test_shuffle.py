"""Permutations without a list, and the epochs that are made of them."""

import numpy as np
import pytest

from gptjax.data import batches, shuffle

KEYS = np.random.Philox(key=[7, 0]).random_raw(shuffle.ROUNDS)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 101, 1009, 65_537])
def test_every_number_comes_once(n):
    found = shuffle.shuffled(np.arange(n), n, KEYS)
    np.testing.assert_array_equal(np.sort(found), np.arange(n))
    parts = [shuffle.shuffled(np.array([place]), n, KEYS)[0] for place in range(min(n, 9))]
    np.testing.assert_array_equal(parts, found[:9])


def test_the_order_looks_random():
    found = shuffle.shuffled(np.arange(10_007), 10_007, KEYS)
    other = shuffle.shuffled(np.arange(10_007), 10_007, KEYS[::-1].copy())
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.05
    assert abs(np.corrcoef(found, np.arange(10_007))[0, 1]) < 0.05
    assert (found == other).sum() < 10  # One on average.
    assert (np.diff(found) == 1).sum() < 10


def test_of_trillions_any_place_is_found_at_once():
    n = 10**13
    found = shuffle.shuffled(np.arange(n - 1009, n), n, KEYS)
    assert 0 <= found.min() and found.max() < n and len(set(found.tolist())) == 1009


def epoch(first, n_batches, *, n_tokens=1000, seed=1337, split="train"):
    sizes = dict(n_tokens=n_tokens, block_size=7, batch_size=5)
    return batches.offsets(seed, split, first, n_batches, order="epoch", **sizes)


def test_each_epoch_has_every_window_once_in_an_order_of_its_own():
    n_windows = 999 // 7  # 142: of 5 in a batch, epochs begin within batches.
    found = epoch(0, 143).reshape(-1)[: 5 * n_windows].reshape(5, n_windows)
    shifts = set()
    for row in found:
        shifts.add(row.min())
        np.testing.assert_array_equal(np.sort(row), row.min() + 7 * np.arange(n_windows))
        assert row.max() + 7 < 1000
    assert shifts <= set(range(999 % 7 + 1)) and len(shifts) > 1
    assert len({tuple(row // 7) for row in found}) == 5


def test_a_batch_depends_on_its_number_alone():
    whole = epoch(0, 90)
    for first in (0, 1, 28, 29, 57):
        np.testing.assert_array_equal(epoch(first, 3), whole[first : first + 3])
    assert not np.array_equal(whole, epoch(0, 90, seed=1))
    assert not np.array_equal(whole, epoch(0, 90, split="val"))
