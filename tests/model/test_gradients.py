"""Every gradient written by hand is autodiff's of the plain function, to float64's last digits."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model import gradients


def plain_gelu(x):
    return 0.5 * x * jax.lax.erfc(-x * math.sqrt(0.5))


def plain_layer_norm(x_ND, scale_D, bias_D=None):
    mean_N1 = x_ND.mean(-1, keepdims=True)
    variance_N1 = ((x_ND - mean_N1) ** 2).mean(-1, keepdims=True)
    y_ND = (x_ND - mean_N1) / jnp.sqrt(variance_N1 + 1e-5) * scale_D[None]
    return y_ND if bias_D is None else y_ND + bias_D[None]


# (by hand, plain, shapes of the arguments)
CASES = {
    "gelu": (gradients.gelu, plain_gelu, [(5, 7)]),
    "layer_norm": (gradients.layer_norm, plain_layer_norm, [(5, 7), (7,), (7,)]),
    "layer_norm without bias": (
        lambda x_ND, scale_D: gradients.layer_norm(x_ND, scale_D, None),
        plain_layer_norm,
        [(5, 7), (7,)],
    ),
    "gelu_tanh": (gradients.gelu_tanh, functools.partial(jax.nn.gelu, approximate=True), [(5, 7)]),
    "product": (gradients.matmul, jnp.matmul, [(5, 7), (7, 3)]),
}


def arguments(shapes, dtype=np.float64):
    rng = np.random.default_rng(0)
    return [jnp.asarray(3 * rng.normal(size=shape) + 1, dtype) for shape in shapes]


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_the_plain_functions(x64, name):
    by_hand, plain, shapes = CASES[name]
    given = arguments(shapes)
    y, pull = jax.vjp(by_hand, *given)
    wanted_y, wanted_pull = jax.vjp(plain, *given)
    np.testing.assert_allclose(y, wanted_y, rtol=1e-13, atol=1e-14)
    grad = jnp.asarray(np.random.default_rng(1).normal(size=y.shape))
    for found, wanted in zip(pull(grad), wanted_pull(grad), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_bfloat16_and_near_float32(name):
    by_hand, _, shapes = CASES[name]
    narrow = arguments(shapes, jnp.bfloat16)
    wide = [array.astype(jnp.float32) for array in narrow]
    y, pull = jax.vjp(by_hand, *narrow)
    wide_y, wide_pull = jax.vjp(by_hand, *wide)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), wide_y, rtol=0.02, atol=0.02)
    grads = zip(pull(jnp.ones_like(y)), wide_pull(jnp.ones_like(wide_y)), strict=True)
    for found, wanted in grads:
        assert found.dtype == jnp.bfloat16
        scale = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.02 * scale)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh"])
def test_gelu_far_from_zero_is_finite_with_a_flat_gradient(name):
    x = jnp.asarray([-1e30, -50.0, 0.0, 50.0, 1e30])
    y, pull = jax.vjp(getattr(gradients, name), x)
    np.testing.assert_array_equal(y, [0, 0, 0, 50, np.float32(1e30)])
    np.testing.assert_array_equal(pull(jnp.ones_like(x))[0], [0, 0, 0.5, 1, 1])


def test_gpt2s_gelu_is_near_the_exact_one(x64):
    x = jnp.linspace(-12.0, 12.0, 4801)
    difference = jnp.abs(gradients.gelu_tanh(x) - gradients.gelu(x))
    assert 0.0004 < difference.max() < 0.0005


def test_a_wide_einsum_of_bfloat16_has_narrow_gradients_near_the_wide_ones():
    a, b = arguments([(2, 3, 5, 7), (2, 3, 4, 7)], jnp.bfloat16)
    attend = functools.partial(gradients.wide_einsum, "BHTK,BHSK->BHTS")
    y, pull = jax.vjp(attend, a, b)
    wide_y, wide_pull = jax.vjp(attend, a.astype(jnp.float32), b.astype(jnp.float32))
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, wide_y, rtol=1e-5)  # bfloat16's products are exact in float32
    grad = jnp.asarray(np.random.default_rng(1).normal(size=y.shape), jnp.float32)
    for found, wanted in zip(pull(grad), wide_pull(grad), strict=True):
        assert found.dtype == jnp.bfloat16
        scale = float(jnp.abs(wanted).max())
        np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.02 * scale)
    # Nothing is widened: the three products take bfloat16 alone.
    text = jax.jit(lambda a, b: jax.vjp(attend, a, b)[1](grad)).lower(a, b).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products and not any("f32>, tensor" in line for line in products)


def test_cross_entropy_is_the_plain_one(x64):
    logits, grad = arguments([(2, 5, 7), (2, 5)])
    targets = jnp.asarray(np.random.default_rng(1).integers(0, 7, (2, 5)), jnp.int32)

    def plain(logits):
        log_probs = jax.nn.log_softmax(logits, axis=-1)
        return -(log_probs * jax.nn.one_hot(targets, 7)).sum(-1)

    y, pull = jax.vjp(lambda logits: gradients.cross_entropy(logits, targets), logits)
    wanted_y, wanted_pull = jax.vjp(plain, logits)
    np.testing.assert_allclose(y, wanted_y, rtol=1e-13)
    np.testing.assert_allclose(pull(grad)[0], wanted_pull(grad)[0], rtol=1e-12, atol=1e-14)
