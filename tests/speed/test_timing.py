"""Which times are better than noise."""

import pytest

from gptjax.speed.timing import Timing, Variant, best

ALL, TWO = (Variant(tuple(range(n)), "float32") for n in (7, 2))


def timing(variant, *ratios, ms=10.0):
    return Timing(variant, tuple(ms * ratio for ratio in ratios), tuple(ratios))


@pytest.mark.parametrize(
    ("ratios", "is_better"),
    [
        ((0.8, 0.7, 0.8, 0.75, 0.9), True),
        ((0.8, 0.7, 0.8, 0.75, 1.9), True),  # One turn may be disturbed.
        ((0.8, 0.7, 0.8, 1.1, 1.9), False),
        ((0.97, 0.96, 0.98, 0.96, 0.97), False),  # Too little to care.
        ((0.5, 0.5), False),  # Too few turns.
        ((), False),
    ],
)
def test_what_is_better_than_noise(ratios, is_better):
    assert timing(TWO, *ratios).is_better is is_better


def test_the_best_is_the_first_unless_another_is_better():
    first = Timing(ALL, (10.0,) * 5)
    slower, faster, fastest = (timing(TWO, *[r] * 5) for r in (1.2, 0.9, 0.7))
    assert best([first, slower]) is first
    assert best([first, slower, faster, fastest]) is fastest


def test_in_words():
    assert timing(TWO, 0.5, 0.75, 0.6).in_words() == (
        "CPUs 0-1 (2), float32: 6 ms (5 to 7.5), 0.60x the time on all"
    )
    assert Timing(Variant((), "bfloat16"), (2.5,)).in_words() == (
        "all CPUs, bfloat16: 2.5 ms (2.5 to 2.5)"
    )
