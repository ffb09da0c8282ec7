"""Blocks compiled as one, or computed anew for their gradients, are the same blocks."""

import jax
import numpy as np
import pytest
import tiny
from flax import nnx

from gptjax.update import step

WAYS = [dict(remat=True), dict(remat=True, scan_layers=True)]


def loss_and_gradients(model, params, dropout_key):
    graph = step.model_graph(model)
    x_BT, y_BT = tiny.batch(2, 7)

    def loss(params):
        rngs = None if dropout_key is None else nnx.Rngs(dropout=dropout_key)
        return step.next_token_losses(nnx.merge(graph, params)(x_BT, rngs=rngs), y_BT).mean()

    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_losses_and_gradients_are_the_loops(way):
    """With dropout, whose masks are those that the loop over blocks draws."""
    settings = dict(n_layer=2, dropout=0.4, bias=True)
    model = tiny.model_config(**settings)
    _, _, start = tiny.parts(model, tiny.config())
    key = jax.random.key(3)
    wanted = loss_and_gradients(model, start.params, key)
    found = loss_and_gradients(tiny.model_config(**settings, **way), start.params, key)
    for a, b in zip(tiny.arrays(found), tiny.arrays(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    without = loss_and_gradients(model, start.params, None)
    assert abs(float(without[0]) - float(wanted[0])) > 1e-3  # the masks do something


def test_weights_are_those_of_any_other_model():
    """Names, shapes and first values: what a checkpoint holds."""
    plain = tiny.model_config(n_layer=2)
    other = tiny.model_config(n_layer=2, remat=True, scan_layers=True)
    tx = tiny.parts(plain, tiny.config())[1]
    shapes = [jax.eval_shape(lambda m=m: step.initial_state(m, tx, 0)) for m in (plain, other)]
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    assert jax.tree.leaves(shapes[0]) == jax.tree.leaves(shapes[1])
    texts = [jax.jit(lambda seed, m=m: step.initial_state(m, tx, seed)) for m in (plain, other)]
    one, two = (text.lower(np.uint32(0)).as_text() for text in texts)
    assert one == two


def test_what_is_inside_a_block_is_computed_anew_in_any_way():
    """As many products as in a forward pass more: of the blocks' own, none of the head's."""

    def n_products(**way):
        model = tiny.model_config(n_layer=3, **way)
        graph = step.model_graph(model)
        params = jax.eval_shape(lambda: step.initial_state(model, tx, 0)).params

        def loss(params, x_BT):
            return step.next_token_losses(nnx.merge(graph, params)(x_BT), x_BT).mean()

        ids_BT = jax.ShapeDtypeStruct((2, 7), np.int32)
        return jax.jit(jax.grad(loss)).lower(params, ids_BT).as_text().count("dot_general")

    tx = tiny.parts(tiny.model_config(), tiny.config())[1]
    # Of a block: qkv, scores, values, out, up; `down` ends it, and no gradient needs what it makes.
    plain, one = n_products(), n_products(scan_layers=True)
    assert n_products(remat=True) == plain + 3 * 5
    assert n_products(remat=True, scan_layers=True) == one + 5
    assert one < plain
