"""What a program is said to be made of is all that it is made of."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from other_values import OTHER_VALUES

from gptjax.config.config import flat, model_config, set_knob
from gptjax.config.config_file import load_config
from gptjax.config.knobs import KNOBS
from gptjax.device import kernels, memory
from gptjax.device.mesh import Layout
from gptjax.run.functions import start_source, update_source

CONFIGS = Path(__file__).parents[2] / "configs"

# What the two programs are made of, by these groups' names, or given to them with their shapes.
_GROUPS = ("model", "optim", "train")


def sources(config):
    model = model_config(config, tiny.VOCABULARY)
    start = start_source(config, model)
    tokens = jax.ShapeDtypeStruct((100,), np.uint8)
    inputs = (tokens, start.returns, (3, 1, config.train.batch_size))
    update = update_source(config, model, Layout(jax.devices()[:1]), inputs)
    return start, update


def code(source):
    leaves = jax.tree.leaves(source.arguments)
    return jax.jit(source._flat).lower(*leaves).as_text()


def test_knobs_of_other_groups_change_no_program():
    config = tiny.config(model__dropout=0.1)
    others = tiny.config(model__dropout=0.1)
    changed = [name for name in KNOBS if name.partition(".")[0] not in _GROUPS and name != "seed"]
    with others.unlocked():
        others.update_from_flattened_dict({name: OTHER_VALUES[name] for name in changed})
    assert all(flat(others)[name] != flat(config)[name] for name in changed if name != "init_from")
    for one, other in zip(sources(config), sources(others), strict=True):
        assert one._key == other._key
        assert code(one) == code(other)


def test_a_seed_is_part_of_a_program_with_dropout_alone():
    for dropout, is_same in ((0.0, True), (0.1, False)):
        one, other = (sources(tiny.config(model__dropout=dropout, seed=seed)) for seed in (1, 2))
        assert one[0]._key == other[0]._key
        assert (one[1]._key == other[1]._key) == is_same


def test_a_start_is_that_of_its_seed():
    config = tiny.config()
    start, _ = sources(config)
    program = dataclasses.replace(start).compile()
    for seed in (1, 2**31 + 5):
        model = model_config(config, tiny.VOCABULARY)
        tiny.assert_same_bits(program(np.uint32(seed)).params, tiny._initial_params(model, seed))


def gpt2(n_devices, n_fsdp, **knobs):
    """XLA's account of GPT-2's update, compiled from shapes alone: nothing of its size is made."""
    config = load_config(str(CONFIGS / "gpt2_124m.py"), {})
    for name, value in knobs.items():
        set_knob(config, name.replace("__", "."), value)
    devices = jax.devices()[:n_devices]
    layout = Layout(devices, n_fsdp)
    model = kernels.with_attention(model_config(config, 50_257), "xla", devices[0])
    n_micro = memory.micro_batches(config, "cpu", n_devices)
    sizes_KAB = (10, n_micro, config.train.batch_size // n_micro)
    tokens = jax.ShapeDtypeStruct((10**7,), np.uint16, sharding=layout.replicated)
    inputs = (tokens, start_source(config, model).returns, sizes_KAB)
    source = update_source(config, model, layout, inputs)
    return source, source.compile().executable.memory_analysis()


@pytest.mark.slow
@pytest.mark.parametrize(("n_devices", "n_fsdp"), [(1, 1), (4, 4)])
def test_gpt2_is_compiled_without_weights(n_devices, n_fsdp):
    source, memory_needed = gpt2(n_devices, n_fsdp)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(source.arguments[1]))
    assert state == pytest.approx(3 * 4 * 124e6, rel=0.01)
    assert memory_needed.alias_size_in_bytes == pytest.approx(state / n_fsdp, rel=0.01)
