"""What the GPT's blocks are put together from, beside attention; axes are named as in gpt.py."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.model import gradients
from gptjax.model.initial import normal

# nanoGPT's standard deviation for every Linear and Embedding.
INIT_STD = 0.02

# Keeps a row of zeros finite.
_RMS_EPSILON = 1e-6

# The slowest pair of axes turns by one radian in this many tokens: contexts here are short, where
# Su et al. 2021, RoFormer, have 10,000.
_ROTARY_BASE = 1000.0


def float32_at_least(dtype: Any) -> jnp.dtype:
    """The wider of a dtype and float32."""
    return jnp.promote_types(dtype, jnp.float32)


def is_small_vocabulary(n_symbols: int) -> bool:
    """Whether tokens are found by one-hot products and comparisons rather than by index.

    The gradient of an index is a scatter-add, slow on CPUs and GPUs alike; that of a one-hot
    product is another product, as long as those are small.
    """
    return n_symbols <= 1024


class Linear(nnx.Linear):
    """Flax's, for inputs of two axes, with a faster gradient."""

    def __call__(self, x_ND: jax.Array) -> jax.Array:  # type: ignore[override]
        y_NF = gradients.matmul(x_ND, self.kernel[...].astype(self.dtype))
        return y_NF if self.bias is None else y_NF + self.bias[...].astype(self.dtype)[None]


class LayerNorm(nnx.LayerNorm):
    """Flax's, for inputs of two axes, with a faster gradient."""

    def __call__(self, x_ND: jax.Array) -> jax.Array:  # type: ignore[override]
        assert self.scale is not None
        bias_D = None if self.bias is None else self.bias[...]
        return gradients.layer_norm(x_ND, self.scale[...], bias_D)


class RMSNorm(nnx.Module):
    """Each token divided by its root mean square; it has no weights.

    nnx.RMSNorm(use_scale=False) gives the same values and, by another way to the mean square,
    gradients with other last digits: seeds would lead elsewhere than they did.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        wide = x.astype(float32_at_least(x.dtype))
        mean_square = jnp.mean(wide * wide, axis=-1, keepdims=True)
        return (wide * jax.lax.rsqrt(mean_square + _RMS_EPSILON)).astype(x.dtype)


class TokenShift(nnx.Module):
    """Replaces half of each token's C·2 channels by those of the token before; it has no weights.

    A block then sees pairs of symbols at once. Source: RWKV's token shift (Peng et al. 2023), with
    a fixed half in place of learned shares.
    """

    def __call__(
        self,
        x_ND: jax.Array,
        *,
        batch_size: int,
        before: jax.Array | None,
        position_offset: jax.Array | int,
    ) -> tuple[jax.Array, jax.Array]:
        """The mixed tokens, and the array of what each position is given, which starts with zeros.

        With such an array (`before`, axes BSC) the tokens stand at position_offset and after it.
        """
        x_BTD = x_ND.reshape(batch_size, -1, x_ND.shape[1])
        T, C = x_BTD.shape[1], x_BTD.shape[2] // 2
        own_BTC = x_BTD[..., :C]
        if before is None:
            before = jnp.pad(own_BTC, ((0, 0), (1, 0), (0, 0)))
        else:
            before = jax.lax.dynamic_update_slice_in_dim(
                before, own_BTC, position_offset + 1, axis=1
            )
        given_BTC = jax.lax.dynamic_slice_in_dim(before, position_offset, T, axis=1)
        mixed_BTD = jnp.concatenate([given_BTC, x_BTD[..., C:]], axis=-1)
        return mixed_BTD.reshape(x_ND.shape), before


class Dropout(nnx.Module):
    """Sets each value to 0 with probability `rate`, and scales the others up to the same mean.

    jax.random.bernoulli draws 32 random bits for each value and throws as many away; 16 are enough
    for a rate to within 1/131,072, and masks are most of what dropout costs.
    """

    def __init__(self, rate: float, generator: str):
        # Of the 65,536 values of 16 bits; one at least is kept.
        self.n_dropped = min(round(rate * 2**16), 2**16 - 1)
        self.words = {"threefry": _threefry_words, "philox": _philox_words}[generator]

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """The values that are left; all of them without `rngs`."""
        return self.masked(x, self.mask(x.shape, rngs))

    def mask(self, shape: tuple[int, ...], rngs: nnx.Rngs | None) -> jax.Array | None:
        """True where a value is kept; None if all are."""
        if rngs is None or not self.n_dropped:
            return None
        words = self.words(rngs.dropout(), shape)
        draws = jnp.concatenate(
            [jax.lax.bitcast_convert_type(word, jnp.uint16) for word in words], axis=-1
        )
        return draws.reshape(*shape[:-1], -1)[..., : shape[-1]] >= self.n_dropped

    def masked(self, x: jax.Array, kept: jax.Array | None) -> jax.Array:
        """What a mask leaves of the values."""
        return x if kept is None else jnp.where(kept, x / (1 - self.n_dropped / 2**16), 0)


def _threefry_words(key: jax.Array, shape: tuple[int, ...]) -> list[jax.Array]:
    """Random words of 32 bits for four values each, in two arrays of a fitting shape.

    Each is computed from its own place alone, so that masks are split over devices as values are.
    """
    key_0, key_1 = jax.random.key_data(key)
    counts = jnp.arange(math.prod(shape[:-1]) * -(-shape[-1] // 4), dtype=jnp.uint32)
    counts = counts.reshape(*shape[:-1], -1)
    return jax.extend.random.threefry2x32_p.bind(key_0, key_1, jnp.zeros_like(counts), counts)


def _philox_words(key: jax.Array, shape: tuple[int, ...]) -> list[jax.Array]:
    """Random words of 32 bits for two values each: XLA's Philox, the same on every device."""
    _, words = jax.lax.rng_bit_generator(
        jnp.tile(jax.random.key_data(key), 2),
        (*shape[:-1], -(-shape[-1] // 2)),
        algorithm=jax.lax.RandomAlgorithm.RNG_PHILOX,
    )
    return [words]


def apply_rotary(x_BHTK: jax.Array, position_offset: jax.Array | int) -> jax.Array:
    """Queries or keys from position_offset on, each pair of axes turned by its angle.

    Axis i is paired with axis i + K/2. Source: Su et al. 2021, RoFormer; layout of GPT-NeoX.
    """
    T, K = x_BHTK.shape[2:]
    rate_K = jnp.tile(_ROTARY_BASE ** (-jnp.arange(0, K, 2) / K), 2)
    angle_TK = (position_offset + jnp.arange(T))[:, None] * rate_K[None]
    sign_K = jnp.where(jnp.arange(K) < K // 2, -1, 1)
    cos_TK = jnp.cos(angle_TK).astype(x_BHTK.dtype)
    sin_TK = (sign_K[None] * jnp.sin(angle_TK)).astype(x_BHTK.dtype)
    # A roll of the axes is one operation where splitting and joining them are three.
    return x_BHTK * cos_TK[None, None] + jnp.roll(x_BHTK, K // 2, -1) * sin_TK[None, None]


def linear(config: GPTConfig, n_in: int, n_out: int, *, std: float, rngs: nnx.Rngs) -> Linear:
    """A Linear whose weights are drawn with a standard deviation of `std`."""
    return Linear(
        n_in,
        n_out,
        use_bias=config.bias,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        kernel_init=normal(std),
        rngs=rngs,
    )


def _layer_norm(config: GPTConfig, rngs: nnx.Rngs) -> LayerNorm:
    return LayerNorm(
        config.n_embd,
        use_bias=config.bias,
        param_dtype=config.param_dtype,
        rngs=rngs,
    )


def norm(config: GPTConfig, rngs: nnx.Rngs) -> nnx.Module:
    """The config's kind of norm, as wide as the stream."""
    return RMSNorm() if config.norm == "rmsnorm" else _layer_norm(config, rngs)


def residual_std(config: GPTConfig) -> float:
    """Each block adds to the residual stream twice; this keeps its variance flat (GPT-2)."""
    if config.zero_residual:
        return 0.0
    return INIT_STD / math.sqrt(2 * config.n_layer)
