"""Functions whose gradients are written by hand, where autodiff's are slower on a CPU.

Autodiff computes parts of the forward pass again, or keeps more of it than the gradient takes; each
function here keeps just what its own gradient needs. The mathematics is that of the plain functions
they are tested against.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

# nanoGPT's.
_LAYER_NORM_EPSILON = 1e-5


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x·Φ(x). Source: Hendrycks & Gimpel 2016, Gaussian error linear units."""
    return x * _normal_cdf(x)


def _normal_cdf(x: jax.Array) -> jax.Array:
    # Through erf, not erfc as in jax.nn.gelu: erfc costs an exponential of its own.
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


def _gelu_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    cdf = _normal_cdf(x)
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return x * cdf, cdf + x * density


gelu.defvjp(_gelu_forward, lambda slope, grad: (grad * slope,))


# Of the tanh that stands in for the normal distribution. Source: as above, section 2.
_TANH_SCALE = math.sqrt(2.0 / math.pi)
_TANH_CUBIC = 0.044715


@jax.custom_vjp
def gelu_tanh(x: jax.Array) -> jax.Array:
    """GPT-2's GELU, Φ(x) by a tanh: within 0.0005 of the exact one."""
    return _gelu_tanh_forward(x)[0]


def _gelu_tanh_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    near = jnp.clip(x, -10.0, 10.0)  # Beyond, the tanh is 1 to float64's last digit.
    cubic = _TANH_SCALE * _TANH_CUBIC * near * near
    cdf = 0.5 + 0.5 * jnp.tanh(near * (_TANH_SCALE + cubic))
    # 1 − tanh² is 4·cdf·(1 − cdf).
    density = 2.0 * cdf * (1.0 - cdf) * (_TANH_SCALE + 3.0 * cubic)
    return x * cdf, cdf + x * density


gelu_tanh.defvjp(_gelu_tanh_forward, lambda slope, grad: (grad * slope,))


@jax.custom_vjp
def layer_norm(x_ND: jax.Array, scale_D: jax.Array, bias_D: jax.Array | None) -> jax.Array:
    """Each row less its mean and divided by its standard deviation, scaled and shifted.

    Computed in float32 or wider, returned as wide as x. Source: Ba et al. 2016.
    """
    return _layer_norm_forward(x_ND, scale_D, bias_D)[0]


def _layer_norm_forward(x_ND, scale_D, bias_D):
    wide_ND = x_ND.astype(jnp.promote_types(x_ND.dtype, jnp.float32))
    # Not E[x²] − E[x]², which cancels in float32.
    centred_ND = wide_ND - wide_ND.mean(-1, keepdims=True)
    variance_N1 = (centred_ND * centred_ND).mean(-1, keepdims=True)
    inverse_N1 = jax.lax.rsqrt(variance_N1 + _LAYER_NORM_EPSILON)
    normal_ND = centred_ND * inverse_N1
    y_ND = normal_ND * scale_D[None]
    if bias_D is not None:
        y_ND = y_ND + bias_D[None]
    return y_ND.astype(x_ND.dtype), (normal_ND.astype(x_ND.dtype), inverse_N1, scale_D, bias_D)


def _layer_norm_backward(kept, grad_ND):
    normal_ND, inverse_N1, scale_D, bias_D = kept
    dtype = normal_ND.dtype
    normal_ND, grad_ND = normal_ND.astype(inverse_N1.dtype), grad_ND.astype(inverse_N1.dtype)
    scaled_ND = grad_ND * scale_D[None]
    mean_N1 = scaled_ND.mean(-1, keepdims=True)
    along_N1 = (scaled_ND * normal_ND).mean(-1, keepdims=True)
    grad_x_ND = inverse_N1 * (scaled_ND - mean_N1 - normal_ND * along_N1)
    grad_scale_D = (grad_ND * normal_ND).sum(0).astype(scale_D.dtype)
    grad_bias_D = None if bias_D is None else grad_ND.sum(0).astype(bias_D.dtype)
    return grad_x_ND.astype(dtype), grad_scale_D, grad_bias_D


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


@jax.custom_vjp
def matmul(x_ND: jax.Array, w_DF: jax.Array) -> jax.Array:
    """x @ w."""
    return x_ND @ w_DF


def _matmul_backward(kept, grad_NF):
    x_ND, w_DF = kept
    return grad_NF @ w_DF.T, _transposed(x_ND) @ grad_NF


def _transposed(x_ND: jax.Array) -> jax.Array:
    """xᵀ, on a CPU as an array of its own: there a product with a transposed left side is slow."""
    return jax.lax.platform_dependent(
        x_ND, cpu=lambda x: jax.lax.optimization_barrier(x.T), default=jnp.transpose
    )


matmul.defvjp(lambda x_ND, w_DF: (x_ND @ w_DF, (x_ND, w_DF)), _matmul_backward)


def wide_einsum(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """The einsum of two arrays, summed and returned in float32 at least.

    Of narrower arrays the gradient's products are narrow too, their sums float32: autodiff would
    widen both factors, which tensor cores multiply at half the rate or less.
    """
    if a.dtype == jnp.promote_types(a.dtype, jnp.float32):
        return jnp.einsum(subscripts, a, b, preferred_element_type=a.dtype)
    return _wide_einsum_of_narrow(subscripts, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _wide_einsum_of_narrow(subscripts, a, b):
    return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)


def _narrow_backward(subscripts, kept, grad):
    (a, b), (inputs, output) = kept, subscripts.split("->")
    of_a, of_b = inputs.split(",")
    grad = grad.astype(a.dtype)
    return (
        jnp.einsum(f"{output},{of_b}->{of_a}", grad, b),
        jnp.einsum(f"{output},{of_a}->{of_b}", grad, a),
    )


_wide_einsum_of_narrow.defvjp(
    lambda subscripts, a, b: (_wide_einsum_of_narrow(subscripts, a, b), (a, b)), _narrow_backward
)


@jax.custom_vjp
def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """-ln P(target) under softmax(logits), whose last axis is the vocabulary's.

    Forward it reads all logits twice (maximum, sum), backward once.
    """
    return _cross_entropy_forward(logits, targets)[0]


def _cross_entropy_forward(logits, targets):
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    at_target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return normaliser - at_target, (logits, normaliser, targets)


def _cross_entropy_backward(kept, grad):
    logits, normaliser, targets = kept
    probability = jnp.exp(logits - normaliser[..., None])
    symbols = jnp.arange(logits.shape[-1]).reshape(*[1] * targets.ndim, -1)
    return grad[..., None] * (probability - (symbols == targets[..., None])), None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
