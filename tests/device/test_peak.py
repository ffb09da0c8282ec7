"""What a device could do: NVIDIA's figures by name, and measured rates."""

import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.device import peak


def test_measured_peak_is_kept_at_its_highest(tmp_path):
    found = peak.peak(jax.devices()[:1], "float32", folder=tmp_path)
    assert 1e9 < found.flops_per_s < 1e15 and "measured" in found.source
    (path,) = tmp_path.glob("peaks.json")
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: 9e14}))
    assert peak.peak(jax.devices()[:1], "float32", folder=tmp_path).flops_per_s == 9e14
    path.write_text("{broken")
    assert peak.peak(jax.devices()[:1], "float32", folder=tmp_path).flops_per_s < 9e14


def test_several_cpu_devices_share_the_same_cores(tmp_path, monkeypatch):
    monkeypatch.setattr(peak, "matmul_rate", lambda *arguments, **settings: 7e9)
    four = peak.peak(jax.devices()[:4], "float32", folder=tmp_path)
    assert four.flops_per_s == 7e9


class Clock:
    """Time that passes only in calls, which take the milliseconds given, the last for ever."""

    def __init__(self, *milliseconds):
        self.now, self.left, self.n_calls = 0.0, list(milliseconds), 0

    def perf_counter(self):
        return self.now

    def call(self, x):
        assert x is self
        self.n_calls += 1
        self.now += 1e-3 * (self.left.pop(0) if len(self.left) > 1 else self.left[0])
        return self

    def block_until_ready(self):
        return self


@pytest.mark.parametrize(
    ("platform", "milliseconds", "n_calls"),
    [
        ("cpu", 7, 1 + 4),  # 13, 7, 11 and 19 of the 50 that there are
        ("gpu", (13 + 7 + 11 + 19) / 4, 1 + 4),
    ],
)
def test_the_fastest_call_counts_but_not_the_first(monkeypatch, platform, milliseconds, n_calls):
    clock = Clock(1, 13, 7, 11, 19)
    monkeypatch.setattr(peak, "time", clock)
    fastest = peak._fastest(clock.call, clock, mock.Mock(platform=platform), 0.050)
    assert fastest == pytest.approx(1e-3 * milliseconds)
    assert clock.n_calls == n_calls


@pytest.mark.parametrize(
    ("dtype", "is_slow", "n"),
    [("float32", True, 1024), ("bfloat16", False, 1024), ("bfloat16", True, 512)],
)
def test_a_product_of_random_numbers_has_2n3_flops(monkeypatch, dtype, is_slow, n):
    products = []
    monkeypatch.setattr(peak, "lacks_bfloat16", lambda device: is_slow)
    monkeypatch.setattr(peak, "_fastest", lambda call, *_: products.append(call(None)) or 0.5)
    with mock.patch.object(peak.jnp, "matmul", wraps=jnp.matmul) as matmul:
        rate = peak.matmul_rate(jax.devices()[0], dtype, precision="highest")
    assert rate == 4 * n**3 and matmul.call_args.kwargs == {"precision": "highest"}
    assert products[0].shape == (n, n) and products[0].dtype == dtype
    # An entry is a sum of n products of two standard normals, those of the diagonal as well.
    assert np.std(np.asarray(products[0], np.float32)) == pytest.approx(n**0.5, rel=0.05)


def test_memory_is_counted_read_and_written_in_place(monkeypatch):
    seen = []

    def fastest(call, x, *_):
        assert x.nbytes == 2**28
        seen.append(np.asarray(x[-5:]))
        seen.append(np.asarray(call(x)[-5:]))
        assert x.is_deleted()
        return 0.5

    monkeypatch.setattr(peak, "_fastest", fastest)
    assert peak.copy_rate(jax.devices()[0]) == 2 * 2**28 / 0.5
    assert len(set(seen[0])) == 5 and (seen[0] > 0).all()
    np.testing.assert_array_equal(seen[1], -seen[0])
