"""Muon against singular value decompositions and a plain NumPy reference."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from gptjax.update import muon, optim, step

SHAPES = [(12, 12), (12, 48), (48, 12)]


def matrix(shape, *, values, seed=0):
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    n = min(shape)
    u = np.linalg.qr(rng.normal(size=(shape[0], n)))[0]
    v = np.linalg.qr(rng.normal(size=(shape[1], n)))[0]
    return u @ np.diag(values) @ v.T, u @ v.T


@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_become_nearly_one_and_vectors_stay(shape, size):
    values = np.geomspace(1, 0.02, 12)
    given, polar = matrix(shape, values=values)
    found = np.asarray(muon.orthogonal(jnp.asarray(size * given, jnp.float32)))
    spread = np.linalg.svd(found, compute_uv=False)
    assert 0.72 < spread.min() and spread.max() < 1.28
    # The same singular vectors: found·polarᵀ is symmetric, with those values.
    symmetric = found @ polar.T
    np.testing.assert_allclose(symmetric, symmetric.T, atol=2e-3)


def test_the_quintics_keep_the_promised_range():
    values = np.geomspace(0.01, 1, 10_000)
    for a, b, c in muon._QUINTICS:
        values = a * values + b * values**3 + c * values**5
    assert 0.725 < values.min() and values.max() < 1.275


def test_steps_on_the_gram_matrix_are_newton_schulz_steps(x64):
    given, _ = matrix((12, 48), values=np.geomspace(1, 0.05, 12))
    x = given / np.sqrt(np.linalg.norm(given @ given.T))
    for a, b, c in muon._QUINTICS:
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    np.testing.assert_allclose(muon.orthogonal(jnp.asarray(given)), x, atol=1e-10)


def test_nothing_to_learn_changes_nothing():
    found = muon.orthogonal(jnp.zeros((3, 5)))
    np.testing.assert_array_equal(found, np.zeros((3, 5)))


def test_updates_are_nesterovs_momentum_with_decay_each_part_of_qkv_apart(x64):
    rng = np.random.default_rng(0)
    grads = [{"qkv": rng.normal(size=(4, 12)), "up": rng.normal(size=(4, 16))} for _ in range(3)]
    weights = {"qkv": rng.normal(size=(4, 12)), "up": rng.normal(size=(4, 16))}
    rule = muon.muon(lambda count: 0.1 / (1 + count), momentum=0.9, weight_decay=0.3)
    state = rule.init(weights)
    trace = {"qkv": 0.0, "up": 0.0}
    for count, grad in enumerate(grads):
        updates, state = rule.update(grad, state, weights)
        for name in grad:
            trace[name] = 0.9 * trace[name] + grad[name]
            ahead = 0.9 * trace[name] + grad[name]
            parts = np.split(ahead, 3, axis=1) if name == "qkv" else [ahead]
            wide = np.concatenate([muon.orthogonal(jnp.asarray(p)) for p in parts], axis=1)
            scale = np.sqrt(wide.shape[1] / wide.shape[0])
            wanted = -0.1 / (1 + count) * (scale * wide + 0.3 * weights[name])
            np.testing.assert_allclose(updates[name], wanted, rtol=1e-9)


def test_blocks_matrices_get_muon_and_all_else_adamw():
    settings = tiny.config(optim__name="muon", optim__weight_decay=0.0)
    model = tiny.modern_config(norm="layernorm", zero_residual=False)
    graph, tx, state = tiny.parts(model, settings)
    x, y = tiny.batch(1, 6, 7)
    after, _ = jax.jit(lambda *given: step.train_step(graph, tx, None, *given))(state, x, y)
    plain = tiny.config(optim__weight_decay=0.0)
    adamw = optim.optimizer(plain)
    old = step.TrainState(state.step, state.params, adamw.init(state.params))
    wanted, _ = jax.jit(lambda *given: step.train_step(graph, adamw, None, *given))(old, x, y)
    rate = float(optim.learning_rate(settings)(0)) * 0.02 / settings.optim.learning_rate
    leaves = jax.tree_util.tree_leaves_with_path(after.params)
    n_muon = 0
    for (path, leaf), before, other in zip(
        leaves, jax.tree.leaves(state.params), jax.tree.leaves(wanted.params), strict=True
    ):
        if "blocks" in jax.tree_util.keystr(path) and leaf.ndim == 2:
            n_muon += 1
            largest = np.linalg.svd(np.asarray(leaf - before), compute_uv=False)[0]
            bound = max(1.0, leaf.shape[1] / leaf.shape[0]) ** 0.5 * 1.28 * 3**0.5
            assert 0.7 * rate < largest < bound * rate, path
        else:
            np.testing.assert_array_equal(leaf, other, err_msg=str(path))
    assert n_muon == 8


def test_it_learns_faster_than_plain_steps_along_ill_conditioned_gradients():
    wanted, _ = matrix((12, 12), values=np.geomspace(1, 1e-2, 12))
    wanted = jnp.asarray(wanted, jnp.float32)
    # The gradient's directions differ by 1e4 in size.
    stretch = jnp.asarray(np.geomspace(1, 1e-2, 12), jnp.float32)

    def loss(w):
        return jnp.sum((stretch[:, None] * (w - wanted)) ** 2)

    def distance(rule):
        def one(_, carry):
            w, state = carry
            updates, state = rule.update(jax.grad(loss)(w), state, w)
            return optax.apply_updates(w, updates), state

        w = jnp.zeros((12, 12))
        w, _ = jax.lax.fori_loop(0, 100, one, (w, rule.init(w)))
        return float(jnp.linalg.norm(w - wanted))

    rule = muon.muon(lambda count: 0.05 * (1 - count / 100), momentum=0.9, weight_decay=0.0)
    assert distance(rule) < 0.3 * distance(optax.sgd(0.4))
