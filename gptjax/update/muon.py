"""Muon: momentum made orthogonal, for the matrices inside the blocks.

Source: Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks. optax.contrib
has it too, with five Newton-Schulz steps that cost a small model on a CPU nearly as much as the
whole gradient; the three here, made on the smaller Gram matrix, cost half of that. Given the same
three triples it would multiply the long matrices all the same, and round otherwise.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax

# (a, b, c) of p(s) = a·s + b·s³ + c·s⁵, one step after another: each is the quintic nearest to 1
# on the range into which those before it bring the singular values [0.01, 1]; the last leaves
# [0.73, 1.27]. Source: Amsel et al. 2025, The Polar Express, whose minimax problem this solves.
_QUINTICS = (
    (8.0934, -23.6204, 17.4462),
    (3.6366, -2.7219, 0.5365),
    (2.6613, -1.9772, 0.4526),
)


def muon(
    learning_rate: optax.Schedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """The rule for matrices (in, out); Nesterov's momentum, and AdamW's decoupled weight decay."""

    def decayed_update(path, update_IO, weights_IO):
        return _orthogonal_update(path, update_IO) + weight_decay * weights_IO

    return optax.chain(
        optax.trace(decay=momentum, nesterov=True),
        optax.stateless(functools.partial(jax.tree_util.tree_map_with_path, decayed_update)),
        optax.scale_by_learning_rate(learning_rate),
    )


def _orthogonal_update(path: jax.tree_util.KeyPath, update_IO: jax.Array) -> jax.Array:
    """Queries, keys and values, which one matrix holds side by side, are made orthogonal apart.

    A layer with more outputs than inputs is scaled up, so that its outputs change as much.
    """
    n_parts = 3 if "qkv" in jax.tree_util.keystr(path) else 1
    parts = [orthogonal(part) for part in jnp.split(update_IO, n_parts, axis=1)]
    n_in, n_out = update_IO.shape
    return jnp.concatenate(parts, axis=1) * max(1.0, n_out / n_in) ** 0.5


def orthogonal(x_IO: jax.Array) -> jax.Array:
    """About U·Vᵀ, where x = U·S·Vᵀ: singular values from 1 % of x's largest up become 0.73 to 1.27.

    The steps are made on the smaller Gram matrix: p(x) = q(xxᵀ)·x, so that long matrices cost
    little more than square ones. Computed in float32 or wider.
    """
    is_tall = x_IO.shape[0] > x_IO.shape[1]
    wide_IO = x_IO.astype(jnp.promote_types(x_IO.dtype, jnp.float32))
    gram_MM = wide_IO.T @ wide_IO if is_tall else wide_IO @ wide_IO.T
    # The root of the Gram matrix's norm bounds the largest singular value, more closely than x's.
    squared = jnp.linalg.norm(gram_MM) + jnp.finfo(gram_MM.dtype).tiny
    gram_MM = gram_MM / squared
    identity_MM = jnp.eye(gram_MM.shape[0], dtype=gram_MM.dtype)
    product_MM = identity_MM
    for step, (a, b, c) in enumerate(_QUINTICS):
        factor_MM = a * identity_MM + b * gram_MM + c * (gram_MM @ gram_MM)
        product_MM = factor_MM @ product_MM if step else factor_MM
        gram_MM = factor_MM @ gram_MM @ factor_MM
    scaled_IO = wide_IO * jax.lax.rsqrt(squared)
    result_IO = scaled_IO @ product_MM if is_tall else product_MM @ scaled_IO
    return result_IO.astype(x_IO.dtype)
