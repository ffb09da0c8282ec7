"""How fast a card is, beside its data sheet: what was measured is given here, not made."""

from types import SimpleNamespace

import jax
import pytest

from gptjax.device import peak, rates
from gptjax.system import cache


def card(**changes):
    """A stand-in for JAX's view of a GPU."""
    told = dict(platform="gpu", device_kind="NVIDIA A100-SXM4-80GB", compute_capability="8.0")
    return SimpleNamespace(**told | changes)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("7.5", False),
        ("8.0", True),
        ("8.9", True),
        ("12.0", True),
        ("gfx942", False),
        (None, False),
    ],
)
def test_tf32_came_with_ampere(capability, expected):
    assert rates.has_tf32(card(compute_capability=capability)) is expected


def test_a_cpu_has_no_tf32():
    assert not rates.has_tf32(jax.devices()[0])


@pytest.fixture
def rates_of(monkeypatch, tmp_path):
    """Rates of a card whose measurements are given, not made."""
    measured = {("float32", "highest"): 13e12, ("float32", "default"): 78e12}
    measured |= {("bfloat16", "default"): 234e12}

    def matmul_rate(device, dtype, *, precision, seconds):
        return measured[dtype, precision]

    monkeypatch.setattr(peak, "matmul_rate", matmul_rate)
    monkeypatch.setattr(peak, "copy_rate", lambda device, *, seconds: 1e12)
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path))
    return rates.rates


def test_each_rate_is_beside_the_data_sheets(rates_of):
    assert [rate.in_words() for rate in rates_of(card())] == [
        "matrix product, float32: 13 TFLOP/s, 67 % of the data sheet's 19.5 TFLOP/s",
        "matrix product, TF32: 78 TFLOP/s, 50 % of the data sheet's 156 TFLOP/s",
        "matrix product, bfloat16: 234 TFLOP/s, 75 % of the data sheet's 312 TFLOP/s",
        "memory, read and written: 1 TB/s, 49 % of the data sheet's 2.039 TB/s",
    ]


def test_a_card_that_is_in_no_table_has_rates_of_its_own(rates_of):
    found = rates_of(card(device_kind="NVIDIA GeForce RTX 9999", compute_capability="7.5"))
    assert [rate.in_words() for rate in found] == [
        "matrix product, float32: 13 TFLOP/s now, 13 TFLOP/s at best, which MFU is over",
        "matrix product, bfloat16: 234 TFLOP/s now, 234 TFLOP/s at best, which MFU is over",
        "memory, read and written: 1 TB/s",
    ]
    assert found[0].to_json() == {
        "what": "matrix product, float32",
        "unit": "FLOP/s",
        "measured": 13e12,
        "data_sheet": None,
        "best": 13e12,
        "share": None,
    }


def test_the_peak_is_the_one_that_a_run_takes(tmp_path, monkeypatch):
    """A probe that was busy is low, here and there: the highest of both is the peak of both."""
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(peak, "copy_rate", lambda device, *, seconds: 1e12)
    measured = {"now": 90e9}
    monkeypatch.setattr(peak, "matmul_rate", lambda *arguments, **settings: measured["now"])
    device = jax.devices()[0]

    def run_peak():
        return peak.PeakProbe([device], "float32", folder=cache.folder()).best.flops_per_s

    def doctors():
        return rates.rates(device)[0]

    assert run_peak() == 90e9
    measured["now"] = 40e9
    assert (doctors().measured, doctors().best) == (40e9, 90e9)
    measured["now"] = 120e9
    assert (doctors().measured, doctors().best) == (120e9, 120e9)
    measured["now"] = 60e9
    assert run_peak() == 120e9
    words = "matrix product, float32: 60 GFLOP/s now, 120 GFLOP/s at best, which MFU is over"
    assert doctors().in_words() == words


def test_a_call_that_does_nothing_is_timed_here():
    assert 0.1 < rates.dispatch_us(jax.devices()[0]) < 1e5
