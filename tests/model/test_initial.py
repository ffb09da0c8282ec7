"""Initial weights are Flax's to the bit, and their program does not grow with the layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.model.gpt import GPT
from gptjax.model.initial import initial_params, normal

KEY = jax.random.key(7, impl="threefry2x32")


def drawn(config):
    return initial_params(lambda rngs: GPT(config, rngs=rngs), KEY)


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"n_layer": 3, "bias": True},
        {"tie_embeddings": False, "norm": "rmsnorm", "position": "rotary", "mlp": "relu2"},
        {"param_dtype": "bfloat16"},
    ],
)
def test_they_are_those_flax_draws(knobs):
    config = tiny.model_config(**knobs)
    wanted = jax.jit(lambda: nnx.state(GPT(config, rngs=nnx.Rngs(params=KEY)), nnx.Param))()
    found = jax.jit(lambda: drawn(config))()
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    tiny.assert_same_bits(found, wanted)
    largest = [np.abs(np.asarray(leaf, np.float32)).max() for leaf in jax.tree.leaves(found)]
    assert max(largest) > 0.02


def test_the_program_does_not_grow_with_the_layers():
    def n_random(n_layer):
        config = tiny.model_config(n_layer=n_layer)
        return str(jax.make_jaxpr(lambda: drawn(config))()).count("random_bits")

    assert n_random(2) == n_random(6) < 8


def test_elsewhere_it_is_flaxs_own_initializer():
    wanted = nnx.initializers.normal(0.3)(KEY, (4, 5), jnp.float32)
    np.testing.assert_array_equal(normal(0.3)(KEY, (4, 5), jnp.float32), wanted)
