"""Batches and sweeps: Philox in plain Python, coverage counted token by token."""

import hashlib
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.data import batches

MANY_TOKENS = 2**31 - 1


def philox(key, counter):
    """The four 64-bit words of Philox4x64-10.

    Source: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (2011);
    words are written lowest first, as numpy's Philox takes them.
    """
    mask = 2**64 - 1
    (k0, k1), (x0, x1, x2, x3) = key, counter
    for _ in range(10):
        high_0, low_0 = divmod(0xD2E7470EE14C6C93 * x0, 2**64)
        high_1, low_1 = divmod(0xCA5A826395121157 * x2, 2**64)
        x0, x1, x2, x3 = high_1 ^ x1 ^ k0, low_1, high_0 ^ x3 ^ k1, low_0
        k0, k1 = k0 + 0x9E3779B97F4A7C15 & mask, k1 + 0xBB67AE8584CAA73B & mask
    return [x0, x1, x2, x3]


def draw(seed=1337, split="train", index=0, n_tokens=MANY_TOKENS, block_size=64, batch_size=13):
    """One batch."""
    sizes = dict(n_tokens=n_tokens, block_size=block_size, batch_size=batch_size)
    return batches.offsets(seed, split, index, 1, **sizes)[0]


def sweep(n_tokens, block_size, max_tokens=0):
    return batches.sweep_offsets(n_tokens=n_tokens, block_size=block_size, max_tokens=max_tokens)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("seed", [0, 1337, 2**32 - 1])
@pytest.mark.parametrize("index", [0, 1, 2_000, 2**62])
def test_offsets_are_philox_words_modulo_the_number_of_offsets(seed, split, index):
    # numpy counts one up before it draws; the batch index is the counter's third word.
    words = []
    for block in (1, 2, 3, 4):
        words += philox((seed, {"train": 0, "val": 1}[split]), (block, 0, index, 0))
    expected = [word % (1_000_003 - 64) for word in words[:13]]
    found = draw(seed, split, index, n_tokens=1_000_003)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)


def test_offsets_never_change():
    # A changed stream would silently change every run and break resuming. The numbers are those
    # of Tiny Shakespeare's splits with nanoGPT's laptop batch.
    sizes = dict(block_size=64, batch_size=5)
    train = draw(1337, "train", 0, n_tokens=1_003_854, **sizes)
    later = draw(1337, "train", 1_999, n_tokens=1_003_854, **sizes)
    val = draw(1337, "val", 0, n_tokens=111_540, **sizes)
    np.testing.assert_array_equal(train, [247095, 544727, 703278, 766883, 916602])
    np.testing.assert_array_equal(later, [878537, 747346, 880159, 551654, 429299])
    np.testing.assert_array_equal(val, [110006, 109329, 99390, 3236, 40272])


def test_a_batch_depends_on_nothing_but_its_arguments():
    expected = draw(index=7)
    np.random.seed(5)
    draw(index=8)
    draw(split="val", index=7)
    np.testing.assert_array_equal(draw(index=7), expected)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 13])
def test_many_batches_are_those_drawn_one_by_one(batch_size):
    sizes = dict(n_tokens=MANY_TOKENS, block_size=64, batch_size=batch_size)
    found = batches.offsets(1337, "train", 5, 7, **sizes)
    alone = [draw(index=index, batch_size=batch_size) for index in range(5, 12)]
    np.testing.assert_array_equal(found, alone)
    assert batches.offsets(1337, "train", 5, 0, **sizes).shape == (0, batch_size)


def test_the_batch_size_only_appends():
    np.testing.assert_array_equal(draw(batch_size=13)[:7], draw(batch_size=7))


def test_seeds_splits_and_indices_share_no_offsets():
    streams = [
        draw(seed, split, index, batch_size=31)
        for seed in (0, 1, 2)
        for split in ("train", "val")
        for index in (0, 1, 2, 3)
    ]
    # 744 draws from 2**31 offsets: a chance repeat has probability 1e-4, while a stream that is
    # another's shifted by a few draws repeats at once.
    assert len(np.unique(np.concatenate(streams))) == 24 * 31


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**62))
@example(1, 1, 0)
def test_every_window_and_its_target_lie_in_the_split(block_size, n_offsets, index):
    n_tokens = block_size + n_offsets
    found = draw(index=index, n_tokens=n_tokens, block_size=block_size, batch_size=29)
    assert found.shape == (29,)
    assert found.min() >= 0
    # Inputs end at offset + block_size - 1; the last target is one further.
    assert found.max() + block_size <= n_tokens - 1


def test_the_last_window_is_drawn_too():
    found = draw(n_tokens=64 + 3, batch_size=101)
    assert set(found.tolist()) == {0, 1, 2}


def test_a_split_of_one_window():
    np.testing.assert_array_equal(draw(n_tokens=65, batch_size=3), [0, 0, 0])


@pytest.mark.parametrize("n_tokens", [64, 63, 1, 0])
def test_a_split_too_short_for_a_window_is_refused(n_tokens):
    with pytest.raises(ValueError, match=rf"val: {n_tokens} tokens cannot hold 64 \+ 1"):
        draw(split="val", n_tokens=n_tokens)


def test_offsets_are_uniform():
    n_offsets, n_draws = 101, 10_100
    found = draw(n_tokens=n_offsets + 64, batch_size=n_draws)
    counts = np.bincount(found, minlength=n_offsets)
    expected = n_draws / n_offsets
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    # 100 degrees of freedom: mean 100, standard deviation sqrt(200); four of them either way.
    assert abs(chi_squared - 100) < 4 * 200**0.5


@pytest.mark.parametrize("index", [10**6, 2**62])
def test_p7_a_far_batch_costs_no_more_than_the_first(index):
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        draw(index=index)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.010


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 2_000))
@example(7, 1)  # Exactly one window.
@example(7, 8)  # Two windows, the second ending with the split.
@example(7, 7)  # One token too few for the second.
def test_a_full_sweep_predicts_each_token_once(block_size, n_more):
    n_tokens = block_size + n_more
    times_predicted = np.zeros(n_tokens, dtype=int)
    offsets = sweep(n_tokens, block_size)
    assert offsets.dtype == np.int64
    for offset in offsets.tolist():
        assert 0 <= offset and offset + block_size <= n_tokens - 1
        times_predicted[offset + 1 : offset + block_size + 1] += 1
    n_predicted = times_predicted.sum()
    # All from the second token on, but for an end too short for a window.
    assert (times_predicted[1 : n_predicted + 1] == 1).all()
    assert n_tokens - 1 - n_predicted < block_size


def test_a_full_sweep_by_hand():
    # Targets 1-3, 4-6, 7-9; token 10 is left over.
    np.testing.assert_array_equal(sweep(11, 3), [0, 3, 6])
    np.testing.assert_array_equal(sweep(13, 3), [0, 3, 6, 9])
    np.testing.assert_array_equal(sweep(12, 3), [0, 3, 6])


def test_a_limited_sweep_by_hand():
    # Seven windows, three wanted: windows 0, 2 and 4.
    np.testing.assert_array_equal(sweep(36, 5, max_tokens=17), [0, 10, 20])


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 2_000), st.integers(1, 3_000))
@example(7, 700, 3)  # Fewer than one window.
@example(7, 700, 7)
@example(7, 700, 10**6)  # More than there is.
def test_a_limited_sweep_is_spread_evenly(block_size, n_more, max_tokens):
    n_tokens = block_size + n_more
    every = sweep(n_tokens, block_size)
    kept = sweep(n_tokens, block_size, max_tokens)
    assert set(kept.tolist()) <= set(every.tolist())
    n_wanted = min(len(every), max_tokens // block_size)
    assert len(kept) == (n_wanted or 1)
    assert kept[0] == 0
    # Counted in windows, no gap, the one after the last window included, exceeds another by
    # more than one.
    gaps = np.diff([*(kept // block_size), len(every)])
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("block_size", "n_tokens"), [(7, 8), (7, 9), (7, 24), (1, 5), (2, 3)])
def test_windows_that_read_a_text_predict_each_token_from_half_a_window_or_more(
    block_size, n_tokens
):
    starts = batches.reading_offsets(n_tokens, block_size).tolist()
    assert starts == sorted(set(starts)) and starts[-1] + block_size == n_tokens - 1
    for target in range(1, n_tokens):
        read = [target - start for start in starts if 0 < target - start <= block_size]
        assert max(read) == target if target <= block_size else 2 * max(read) >= block_size


def test_digest_of_ids():
    ids = np.array([1, 2, 3], dtype=np.uint8)
    # Checkpoints store it, so its definition may not change.
    assert batches.sha256(ids) == hashlib.sha256(b"|u1 3 \x01\x02\x03").hexdigest()


def test_digest_tells_dtype_content_and_order_apart():
    different = [
        np.array([1, 2, 3], dtype=np.uint8),
        np.array([1, 2, 4], dtype=np.uint8),
        np.array([2, 1, 3], dtype=np.uint8),
        np.array([1, 2], dtype=np.uint8),
        np.array([1, 2, 3], dtype=np.uint16),
        np.array([1, 0, 2, 0, 3, 0], dtype=np.uint8),  # The bytes of the line above.
        np.array([], dtype=np.uint8),
        np.array([], dtype=np.uint16),
    ]
    assert len({batches.sha256(ids) for ids in different}) == len(different)


def test_digest_does_not_see_the_memory_layout():
    ids = np.arange(10, dtype=np.uint16)
    assert batches.sha256(ids[::2]) == batches.sha256(np.array([0, 2, 4, 6, 8], dtype=np.uint16))


def test_windows_begin_anywhere_in_more_tokens_than_an_int32_counts():
    n_tokens = 9 * 2**30
    offsets = draw(n_tokens=n_tokens, batch_size=1009)
    assert offsets.min() >= 0 and 2**32 < offsets.max() < n_tokens - 64
    assert 0.45 < (offsets > n_tokens // 2).mean() < 0.55
    found = sweep(n_tokens, 64, max_tokens=640)
    n_windows = (n_tokens - 1) // 64
    assert found.tolist() == [number * n_windows // 10 * 64 for number in range(10)]
