"""What is asked of a device before anything runs on it."""

import os
from types import SimpleNamespace

import jax
import pytest
import tiny

from gptjax.device import devices, memory
from gptjax.run.evaluator import tokens_per_batch
from gptjax.system import versions
from gptjax.system.errors import UserError

SHARES = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")


@pytest.mark.parametrize(
    ("gpu_memory", "set_before", "wanted"),
    [
        (devices.GPU_MEMORY, {}, (None, None)),  # JAX's own
        (0.5, {}, (None, "0.5")),
        (0.0, {}, ("false", None)),
        (0.5, {SHARES[0]: "false"}, ("false", None)),
        (0.0, {SHARES[1]: "0.9"}, (None, "0.9")),
    ],
)
def test_gpu_memory_is_said_to_jax_unless_the_environment_does(
    monkeypatch, gpu_memory, set_before, wanted
):
    for name in SHARES:
        monkeypatch.setenv(name, "")  # so that it is as it was after the test
        monkeypatch.delenv(name)
    for name, value in set_before.items():
        monkeypatch.setenv(name, value)
    with devices._memory_shared(gpu_memory):
        assert tuple(os.environ.get(name) for name in SHARES) == wanted
    assert {name: os.environ[name] for name in SHARES if name in os.environ} == set_before


@pytest.mark.parametrize(
    ("plugins", "words"), [({}, "pip install"), ({"jax-cuda13-pjrt": "0.10.2"}, "nvidia-smi")]
)
def test_the_remedy_for_a_missing_gpu_depends_on_what_is_installed(monkeypatch, plugins, words):
    monkeypatch.setattr(versions, "cuda_plugins", lambda: plugins)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match="no cuda device here; have: cpu") as error:
        devices.available_devices()
    assert words in str(error.value)


def card(gigabytes):
    return SimpleNamespace(
        platform="gpu", memory_stats=lambda: {"bytes_limit": int(gigabytes * 2**30)}
    )


def test_without_compiling_nothing_is_begun(monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    with jax.disable_jit():
        with pytest.raises(UserError, match="JAX_DISABLE_JIT: 1; gptjax compiles.* Unset it"):
            devices.available_devices()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_threefry_partitionable", False),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_transfer_guard", "disallow"),
    ],
)
def test_a_setting_that_would_change_numbers_or_fail_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(name.upper(), str(value))
    before = jax.config.values[name]
    jax.config.update(name, value)
    try:
        with pytest.raises(UserError, match=f"{name.upper()}: {value}; .* Unset it"):
            devices.available_devices()
    finally:
        jax.config.update(name, before)


def test_the_older_name_of_a_variable_is_named(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("JAX_PLATFORM_NAME", "cpu")
    assert devices.available_devices()[1] == "JAX_PLATFORM_NAME=cpu"

    def fails():
        raise RuntimeError("no gpu")

    monkeypatch.setenv("JAX_PLATFORM_NAME", "gpu")
    monkeypatch.setattr(jax, "devices", fails)
    with pytest.raises(UserError, match="JAX_PLATFORM_NAME: gpu; no such device here"):
        devices.available_devices()


@pytest.mark.parametrize(("batch_size", "fix"), [(2, "Use 3, or"), (4, "Use 3 or 6, or")])
def test_batches_that_split_are_named(batch_size, fix):
    with pytest.raises(UserError, match=fix):
        devices.choose_devices([None] * 3, tiny.config(mesh__data=3, train__batch_size=batch_size))


def test_gpu_is_another_word_for_cuda(monkeypatch):
    monkeypatch.setattr(versions, "cuda_plugins", lambda: {})
    monkeypatch.setenv("JAX_PLATFORMS", "gpu")
    with pytest.raises(UserError, match=r'pip install -e "\.\[cuda\]"'):
        devices.available_devices()


def test_an_update_larger_than_the_card_is_refused_before_it_runs():
    memory.check_program_memory(7 * 2**30, card(8))
    with pytest.raises(UserError, match=r"needs 9.0 GiB; this gpu has 8.0 GiB. Lower .*gpu_memory"):
        memory.check_program_memory(9 * 2**30, card(8))


def test_a_sweep_on_a_gpu_takes_what_fills_it_and_fits_it():
    small = tiny.model_config(n_head=6, block_size=256, vocab_size=65)
    large = tiny.model_config(n_head=12, block_size=1024, vocab_size=50_304)
    assert tokens_per_batch(small, "cpu") == tokens_per_batch(large, "cpu") == 2048
    assert tokens_per_batch(small, "gpu") == 65_536
    n_tokens = tokens_per_batch(large, "gpu")
    assert 1024 <= n_tokens and 4 * n_tokens * large.vocab_size <= 2**31
