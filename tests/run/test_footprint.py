"""What an update needs of a device, by part, against closed forms and against what it is given."""

import jax
import numpy as np
import pytest
import tiny

from gptjax.config.config import model_config
from gptjax.model.gpt import expected_parameters
from gptjax.run.footprint import compiled_update

N_TOKENS = 1009


def compiled(config, n_devices, platform="cpu"):
    return compiled_update(
        config,
        jax.devices()[:n_devices],
        n_symbols=tiny.VOCABULARY,
        n_tokens=N_TOKENS,
        token_dtype=np.uint16,
        platform=platform,
    )


@pytest.fixture(scope="module")
def config():
    return tiny.config(mesh__data=2, train__updates_per_dispatch=5)


@pytest.fixture(scope="module")
def found(config):
    return compiled(config, 1).footprint


def test_parts_of_one_device(config, found):
    n_params = expected_parameters(model_config(config, tiny.VOCABULARY))
    assert found.weights == 4 * n_params
    # Two means of each weight; the step, and three of optax's counts at most.
    assert 0 < found.optimizer - 8 * n_params <= 16
    assert found.whole_state == found.weights + found.optimizer
    assert found.data == 2 * N_TOKENS
    assert found.windows == 4 * 5 * 6
    assert (found.n_micro, found.micro_batch) == (1, 6)
    assert 0 < found.gradients <= 4 * n_params and found.activations >= 0
    parts = (found.gradients, found.activations, found.data, found.windows)
    assert found.total == found.whole_state + sum(parts)


def test_two_devices_have_the_state_each_and_half_of_the_batch(config, found):
    two = compiled(config, 2)
    assert two.footprint.micro_batch == 3 and two.footprint.windows == found.windows // 2
    assert two.footprint.weights == found.weights and two.footprint.data == found.data
    assert "all-reduce" in two.hlo_text()


@pytest.mark.slow
def test_a_state_that_is_split(config, found):
    split = compiled(tiny.config(mesh__fsdp=2, train__updates_per_dispatch=5), 2)
    # Five of the blocks' axes are odd: their arrays lie whole on each device.
    assert found.weights / 2 < split.footprint.weights < found.weights
    assert split.footprint.whole_state == found.whole_state
    assert "all-gather" in split.hlo_text()


@pytest.mark.slow
def test_a_gpu_that_is_not_here_takes_a_batch_at_once():
    config = tiny.config(model__block_size=100, train__batch_size=42, model__attention_rows=50)
    on_cpu, on_gpu = (compiled(config, 1, each).footprint for each in ("cpu", "gpu"))
    assert (on_cpu.n_micro, on_gpu.n_micro) == (3, 1)
    assert on_gpu.activations > 2 * on_cpu.activations
