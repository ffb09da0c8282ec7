"""What a program is said to be made of is all that it is made of."""

import dataclasses

import jax
import numpy as np
import tiny
from other_values import OTHER_VALUES

from gptjax.config.config import flat, model_config
from gptjax.config.knobs import KNOBS
from gptjax.run.functions import start_source, update_source

# What the two programs are made of, by these groups' names, or given to them with their shapes.
_GROUPS = ("model", "optim", "train")


def sources(config):
    model = model_config(config, tiny.VOCABULARY)
    start = start_source(config, model)
    tokens = jax.ShapeDtypeStruct((100,), np.uint8)
    offsets_KAB = jax.ShapeDtypeStruct((3, 1, config.train.batch_size), np.int32)
    inputs = (tokens, start.returns, offsets_KAB)
    update = update_source(config, model, inputs, jax.devices()[0])
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
