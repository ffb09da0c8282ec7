"""Causal self-attention; axes are named as in gpt.py."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.model import gradients
from gptjax.model.layers import (
    INIT_STD,
    Dropout,
    RMSNorm,
    apply_rotary,
    float32_at_least,
    linear,
    residual_std,
)

# With normalised queries and keys no product exceeds 1, and a softmax over them is too flat.
_QK_NORM_SHARPNESS = 1.2

# Keys and values of the tokens seen so far.
KeysValues = tuple[jax.Array, jax.Array]


class Attention(nnx.Module):
    """Causal self-attention with one fused projection for queries, keys and values."""

    def __init__(self, config: GPTConfig, *, rngs: nnx.Rngs):
        self.n_head = config.n_head
        self.is_rotary = config.position == "rotary"
        self.qk_norm = RMSNorm() if config.qk_norm else None
        self.attention_rows = config.attention_rows
        self.is_fused = config.attention == "cudnn"
        n_embd = config.n_embd
        self.qkv = linear(config, n_embd, 3 * n_embd, std=INIT_STD, rngs=rngs)
        self.out = linear(config, n_embd, n_embd, std=residual_std(config), rngs=rngs)
        self.dropout = Dropout(config.dropout, config.dropout_generator)

    def __call__(
        self,
        x_ND: jax.Array,
        *,
        batch_size: int,
        rngs: nnx.Rngs | None,
        cache: KeysValues | None,
        position_offset: jax.Array | int,
        query_index: jax.Array | int | None = None,
    ) -> tuple[jax.Array, KeysValues]:
        """What each token gathers from itself and the tokens before it, and the keys and values.

        With a cache the tokens stand at position_offset, position_offset + 1, …, and their keys and
        values are written there; without one they are all the tokens there are. With `query_index`,
        that token of each sequence gathers alone.
        """
        B, H = batch_size, self.n_head
        T, K = x_ND.shape[0] // B, x_ND.shape[1] // H
        q_BHTK, k_BHSK, v_BHSK = (
            part_ND.reshape(B, T, H, K).transpose(0, 2, 1, 3)
            for part_ND in jnp.split(self.qkv(x_ND), 3, axis=-1)
        )
        temperature = math.sqrt(K)
        if self.qk_norm is not None:
            q_BHTK, k_BHSK = self.qk_norm(q_BHTK), self.qk_norm(k_BHSK)
            temperature /= _QK_NORM_SHARPNESS
        if self.is_rotary:
            q_BHTK, k_BHSK = (
                apply_rotary(q_BHTK, position_offset),
                apply_rotary(k_BHSK, position_offset),
            )
        if cache is not None:
            k_BHSK = jax.lax.dynamic_update_slice_in_dim(cache[0], k_BHSK, position_offset, axis=2)
            v_BHSK = jax.lax.dynamic_update_slice_in_dim(cache[1], v_BHSK, position_offset, axis=2)
        if query_index is not None:
            q_BHTK = jax.lax.dynamic_slice_in_dim(q_BHTK, query_index, 1, axis=2)
            position_offset = position_offset + query_index
        is_whole = cache is None and query_index is None
        with jax.named_scope("attention"):  # Profiles tell it from the other products by this.
            if self.is_fused and is_whole and rngs is None:
                gathered_BHTK = cudnn_attention(q_BHTK, k_BHSK, v_BHSK, temperature=temperature)
            else:
                gathered_BHTK = xla_attention(
                    q_BHTK,
                    k_BHSK,
                    v_BHSK,
                    temperature=temperature,
                    position_offset=position_offset,
                    n_rows=self.attention_rows,
                    dropout=self.dropout,
                    rngs=rngs,
                )
        gathered_ND = gathered_BHTK.transpose(0, 2, 1, 3).reshape(-1, H * K)
        return self.out(gathered_ND), (k_BHSK, v_BHSK)


def xla_attention(
    q_BHTK: jax.Array,
    k_BHSK: jax.Array,
    v_BHSK: jax.Array,
    *,
    temperature: float,
    position_offset: jax.Array | int = 0,
    n_rows: int = 0,
    dropout: Dropout | None = None,
    rngs: nnx.Rngs | None = None,
) -> jax.Array:
    """The values each query gathers, `n_rows` queries at a time (0: all).

    Rows at positions known while tracing are multiplied with the keys up to the last of them
    only: what comes after them, half of all products, would be masked anyway.
    """
    (B, H, T, _), S = q_BHTK.shape, k_BHSK.shape[2]
    is_known = isinstance(position_offset, int)
    n_rows = (n_rows or T) if is_known else T
    # Rows do not change it.
    kept_BHTS = None if dropout is None else dropout.mask((B, H, T, S), rngs)
    gathered = []
    for first in range(0, T, n_rows):
        last = min(first + n_rows, T)
        n_seen = position_offset + last if is_known else S
        seen_TS = jnp.arange(n_seen)[None, :] <= position_offset + jnp.arange(first, last)[:, None]
        mask_TS = jnp.where(seen_TS, 0, -jnp.inf).astype(float32_at_least(q_BHTK.dtype))
        scores_BHTS = gradients.wide_einsum(
            "BHTK,BHSK->BHTS", q_BHTK[:, :, first:last], k_BHSK[:, :, :n_seen]
        )
        weights_BHTS = jax.nn.softmax(scores_BHTS / temperature + mask_TS[None, None], axis=-1)
        weights_BHTS = weights_BHTS.astype(q_BHTK.dtype)
        if dropout is not None and kept_BHTS is not None:
            weights_BHTS = dropout.masked(weights_BHTS, kept_BHTS[:, :, first:last, :n_seen])
        gathered.append(jnp.einsum("BHTS,BHSK->BHTK", weights_BHTS, v_BHSK[:, :, :n_seen]))
    return jnp.concatenate(gathered, axis=2)


def cudnn_attention(
    q_BHTK: jax.Array, k_BHSK: jax.Array, v_BHSK: jax.Array, *, temperature: float
) -> jax.Array:
    """Causal attention of whole sequences by cuDNN's kernel, which never stores its scores.

    Only where `kernels.choose_attention` has found it to work. Source: Dao et al. 2022,
    FlashAttention.
    """
    q_BTHK, k_BSHK, v_BSHK = (part.transpose(0, 2, 1, 3) for part in (q_BHTK, k_BHSK, v_BHSK))
    gathered_BTHK = jax.nn.dot_product_attention(
        q_BTHK, k_BSHK, v_BSHK, scale=1 / temperature, is_causal=True, implementation="cudnn"
    )
    return gathered_BTHK.transpose(0, 2, 1, 3)
