"""Quantities in words."""

from gptjax.speed.quantities import flops_words, long_duration, ratio, short_duration, size


def test_sizes():
    assert [size(n) for n in (12, 1536, 9.6 * 2**20, 21.25 * 2**30, 3 * 2**40)] == [
        "12 B",
        "1.5 KiB",
        "9.6 MiB",
        "21.2 GiB",
        "3 TiB",
    ]


def test_durations():
    assert short_duration(0.0213) == "21.3 ms" and short_duration(2.5) == "2.5 s"
    assert short_duration(185) == "3 min 05 s" == long_duration(185)
    assert long_duration(86_400 * 4.26) == "4.3 days"


def test_flops():
    assert flops_words(4.046e9) == "4.046 GFLOP" and flops_words(2.5e20) == "250 EFLOP"
    assert ratio(1.526) == "1.53" and ratio(2371.4) == "2,371"
    assert flops_words(3.2e5) == "0.32 MFLOP"
