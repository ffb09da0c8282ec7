"""What a device could do: NVIDIA's figures by name, and measured rates."""

import json
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.device import peak

CPU = jax.devices()[:1]


def probe(folder=None, *, devices=CPU, shapes=()):
    return peak.PeakProbe(devices, "float32", shapes=shapes, folder=folder)


@pytest.fixture
def products(monkeypatch):
    """Products as made-up machines time them: a function that sets their GFLOP/s, by shape.

    Returns as well the shapes that were asked for.
    """
    asked, rates = [], {}

    def matmul_rate(device, dtype, *, precision, shapes):
        (shape,) = shapes
        asked.append(shape)
        return 1e9 * rates.get(shape, 1.0)

    def given(new):
        rates.update(new)
        return asked

    monkeypatch.setattr(peak, "matmul_rate", matmul_rate)
    return given


def test_measured_peak_is_kept_at_its_highest(tmp_path):
    found = probe(tmp_path).best
    assert 1e9 < found.flops_per_s < 1e15 and "measured" in found.source
    (path,) = tmp_path.glob("peaks.json")
    (key,) = json.loads(path.read_text())
    path.write_text(json.dumps({key: 9e14}))
    assert probe(tmp_path).best.flops_per_s == 9e14
    path.write_text("{broken")
    assert probe(tmp_path).best.flops_per_s < 9e14
    # What an earlier start was too busy for is measured anew during the run.
    path.write_text(json.dumps({key: 1e6}))
    found = probe(tmp_path)
    assert found.best.flops_per_s == 1e6
    found.again(60.0)
    assert found.best.flops_per_s > 1e9
    assert json.loads(path.read_text())[key] > 1e9


def test_several_cpu_devices_share_the_same_cores(tmp_path, products):
    products({(512, 512, 512): 7, (1024, 1024, 1024): 7, (2048, 2048, 2048): 7})
    assert probe(tmp_path, devices=jax.devices()[:4]).best.flops_per_s == 7e9


def test_a_start_times_one_product_and_the_run_all_of_them(tmp_path, products):
    shapes = [(3, 5, 7), (5, 7, 11)]
    asked = products({(3, 5, 7): 20.0})
    found = probe(tmp_path, shapes=shapes)
    assert len(asked) == 1 and found.best.flops_per_s == 1e9
    found.again(60.0)
    assert asked[1:3] == shapes and set(asked[3:]) == set(peak.squares(CPU[0], "float32"))
    assert found.best.flops_per_s == 20e9
    # The highest of all moments counts, and of all runs.
    products({(3, 5, 7): 2.0, (5, 7, 11): 30.0})
    found.again(60.0)
    assert found.best.flops_per_s == 30e9
    products({(5, 7, 11): 3.0})
    found.again(60.0)
    assert found.best.flops_per_s == probe(tmp_path).best.flops_per_s == 30e9


def test_measuring_takes_a_hundredth_of_the_run(monkeypatch, products):
    """Each product takes 0.4 s here."""
    clock = Clock(0)
    asked = products({})
    rate = peak.matmul_rate

    def slow(*arguments, **settings):
        clock.now += 0.4
        return rate(*arguments, **settings)

    monkeypatch.setattr(peak, "matmul_rate", slow)
    monkeypatch.setattr(peak, "time", clock)
    found = probe(shapes=[(3, 5, 7)])
    turns = []
    for run_seconds in (0.0, 10.0, 39.0, 60.0, 90.0, 1000.0, 1001.0):
        del asked[:]
        found.again(run_seconds)
        turns.append(len(asked))
    assert turns == [0, 1, 0, 1, 1, 3, 3]


def test_what_a_run_reaches_was_no_peak(products):
    products({})
    found = probe()
    found.reached(0.5e9)
    assert found.best.flops_per_s == 1e9 and "measured" in found.best.source
    found.reached(4e9)
    assert found.best == peak.Peak(4e9, "the highest rate of this run's own updates")
    products({square: 9.0 for square in peak.squares(CPU[0], "float32")})
    found.again(60.0)
    assert found.best.flops_per_s == 9e9 and "measured" in found.best.source


def test_a_known_card_is_not_measured(products):
    asked = products({})
    card = mock.Mock(platform="gpu", device_kind="NVIDIA A100-SXM4-80GB")
    found = peak.PeakProbe([card] * 3, "bfloat16", folder=None)
    found.again(1e6)
    assert not asked
    assert found.best == peak.Peak(3 * 312e12, "3 x NVIDIA A100-SXM4-80GB's peak for bfloat16")


def test_an_unknown_cards_memory_is_the_models(products):
    """After the start only products that an update makes as well; each card counts."""
    asked = products({(3, 5, 7): 2.0})
    card = mock.Mock(platform="gpu", device_kind="NVIDIA GeForce RTX 9999", process_index=0)
    found = probe(devices=[card] * 2, shapes=[(3, 5, 7)])
    found.again(60.0)
    assert asked == [(8192, 8192, 8192), (3, 5, 7)] and found.best.flops_per_s == 2 * 2e9


def test_a_models_products():
    up, down, gradient = peak.model_shapes(768, 128)
    assert (up, down, gradient) == ((768, 128, 512), (768, 512, 128), (128, 768, 512))
    assert peak.model_shapes(12_288, 768)[0] == (1024, 768, 3072)


def test_two_cores_take_products_too_short_to_be_disturbed(monkeypatch):
    quickest = {}
    for n in (1, 2, 16, 64):
        monkeypatch.setattr(peak, "n_cores", lambda n=n: n)
        shapes = peak.squares(CPU[0], "float32")
        assert shapes[1] == tuple(2 * length for length in shapes[0])
        quickest[n] = shapes[0][0]
    assert quickest == {1: 512, 2: 512, 16: 1024, 64: 2048}
    monkeypatch.setattr(peak, "lacks_bfloat16", lambda device: True)
    assert peak.squares(CPU[0], "bfloat16") == [(512, 512, 512)]


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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_of_random_numbers_has_2mkn_flops(monkeypatch, dtype):
    made = []
    seconds_of = {210: 0.5, 55: 0.25}  # By the size of the result.

    def fastest(call, x, *_):
        made.append(call(None))
        return seconds_of[made[-1].size]

    monkeypatch.setattr(peak, "_fastest", fastest)
    shapes = [(14, 700, 15), (5, 900, 11)]
    with mock.patch.object(peak.jnp, "matmul", wraps=jnp.matmul) as matmul:
        rate = peak.matmul_rate(CPU[0], dtype, precision="highest", shapes=shapes)
    assert rate == 2 * 14 * 700 * 15 / 0.5 > 2 * 5 * 900 * 11 / 0.25
    assert all(call.kwargs == {"precision": "highest"} for call in matmul.call_args_list)
    assert [product.shape for product in made] == [(14, 15), (5, 11)]
    assert made[0].dtype == dtype
    # An entry is a sum of 700 products of two standard normals.
    assert np.std(np.asarray(made[0], np.float32)) == pytest.approx(700**0.5, rel=0.2)


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
