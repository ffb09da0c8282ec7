"""The GPT as Flax NNX modules: nanoGPT's architecture and initial weights, or a modern variant.

Axes in names: B batch, T time, S source time, D width, H heads, K head width, F MLP width,
V vocabulary, L layers, N = B·T tokens. Activations pass through every matrix product flattened to
two axes (N, D): on a CPU, XLA multiplies those about twice as fast as three.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.model import followers, gradients
from gptjax.model.attention import Attention
from gptjax.model.blocks import after_blocks
from gptjax.model.caches import Caches, LayerCache
from gptjax.model.initial import normal
from gptjax.model.layers import (
    INIT_STD,
    Dropout,
    RMSNorm,
    TokenShift,
    float32_at_least,
    is_small_vocabulary,
    linear,
    norm,
    residual_std,
)

# An untied head starts so near to zero that all symbols are equally likely.
_HEAD_STD = 1e-3


def _embed(config: GPTConfig, n: int, rngs: nnx.Rngs) -> nnx.Embed:
    return nnx.Embed(
        n,
        config.n_embd,
        dtype=config.dtype,
        param_dtype=config.param_dtype,
        embedding_init=normal(INIT_STD),
        rngs=rngs,
    )


class MLP(nnx.Module):
    """Four times wider in the middle, with the exact (erf) GELU, GPT-2's (tanh) or ReLU squared.

    Source of the last: So et al. 2021, Primer.
    """

    def __init__(self, config: GPTConfig, *, rngs: nnx.Rngs):
        n_embd = config.n_embd
        self.kind = config.mlp
        self.up = linear(config, n_embd, 4 * n_embd, std=INIT_STD, rngs=rngs)
        self.down = linear(config, 4 * n_embd, n_embd, std=residual_std(config), rngs=rngs)

    def __call__(self, x_ND: jax.Array) -> jax.Array:
        h_NF = self.up(x_ND)
        if self.kind == "relu2":
            return self.down(jnp.square(jax.nn.relu(h_NF)))
        gelu = gradients.gelu_tanh if self.kind == "gelu_tanh" else gradients.gelu
        return self.down(gelu(h_NF))


class Block(nnx.Module):
    """Attention, then MLP, each on the normalised stream and added back to it."""

    def __init__(self, config: GPTConfig, *, rngs: nnx.Rngs):
        self.ln_1 = norm(config, rngs)
        self.attention = Attention(config, rngs=rngs)
        self.ln_2 = norm(config, rngs)
        self.mlp = MLP(config, rngs=rngs)
        self.dropout = Dropout(config.dropout, config.dropout_generator)
        self.shift = TokenShift() if config.token_shift else None

    def __call__(
        self,
        x_ND: jax.Array,
        *,
        batch_size: int,
        rngs: nnx.Rngs | None = None,
        cache: LayerCache | None = None,
        position_offset: jax.Array | int = 0,
        query_index: jax.Array | int | None = None,
    ) -> tuple[jax.Array, LayerCache]:
        """The stream after this block, of all tokens or of one of each sequence (`query_index`)."""
        cache = cache or LayerCache(None, None, None)

        def shifted(normal_ND, before):
            if self.shift is None:
                return normal_ND, None
            return self.shift(
                normal_ND, batch_size=batch_size, before=before, position_offset=position_offset
            )

        read_ND, before_attention = shifted(self.ln_1(x_ND), cache.before_attention_BSC)
        attended_ND, keys_values = self.attention(
            read_ND,
            batch_size=batch_size,
            rngs=rngs,
            cache=cache.keys_values,
            position_offset=position_offset,
            query_index=query_index,
        )
        if query_index is not None:
            x_ND = _token(x_ND, query_index, batch_size)
        x_ND = x_ND + self.dropout(attended_ND, rngs)
        read_ND, before_mlp = shifted(self.ln_2(x_ND), cache.before_mlp_BSC)
        mixed_ND = self.mlp(read_ND)
        x_ND = x_ND + self.dropout(mixed_ND, rngs)
        return x_ND, LayerCache(keys_values, before_attention, before_mlp)


class GPT(nnx.Module):
    """A decoder-only transformer; its head is the token embedding, transposed, or its own."""

    def __init__(self, config: GPTConfig, *, rngs: nnx.Rngs):
        self.wide = float32_at_least(config.dtype)
        self.wte = _embed(config, config.vocab_size, rngs)
        if config.position == "learned":
            self.wpe = _embed(config, config.block_size, rngs)
        self.is_rotary = config.position == "rotary"
        self.ln_0 = RMSNorm() if config.norm == "rmsnorm" else None
        self.dropout = Dropout(config.dropout, config.dropout_generator)
        self.blocks = nnx.List([Block(config, rngs=rngs) for _ in range(config.n_layer)])
        self.followers = followers.Followers(config) if config.followers else None
        self.ln_f = norm(config, rngs)
        if not config.tie_embeddings:
            self.head = linear(config, config.n_embd, config.vocab_size, std=_HEAD_STD, rngs=rngs)
        self.is_tied = config.tie_embeddings
        self.remat, self.scan_layers = config.remat, config.scan_layers

    def __call__(
        self, ids_BT: jax.Array, *, rngs: nnx.Rngs | None = None, first_B: jax.Array | None = None
    ) -> jax.Array:
        """Logits of the token after each one, float32, axes BTV; `rngs` switches dropout on.

        Windows that begin at `first_B` of the training text are trained on: see followers.py.
        """
        B, T = ids_BT.shape
        x_ND = self._embedded(ids_BT, position_offset=0)
        x_ND, expected_NV, _ = self._told(x_ND, ids_BT, first_B=first_B)
        x_ND = self.dropout(x_ND, rngs)
        x_ND = after_blocks(
            self.blocks, x_ND, batch_size=B, rngs=rngs, remat=self.remat, scan=self.scan_layers
        )
        return self._logits(x_ND, expected_NV).reshape(B, T, -1)

    def next_logits(
        self,
        ids_BT: jax.Array,
        *,
        last: jax.Array | int,
        caches: Caches | None,
        position_offset: jax.Array | int,
    ) -> tuple[jax.Array, Caches]:
        """Logits (BV) of the token after `ids_BT[:, last]`, and the caches with these tokens in.

        The tokens stand at position_offset, position_offset + 1, …; whatever follows `last`
        (padding) is cached too, but is overwritten before anything attends to it. Without caches
        they are all the tokens there are.
        """
        B, T = ids_BT.shape
        x_ND = self._embedded(ids_BT, position_offset=position_offset)
        before_BS = caches.before_BS if caches else None
        x_ND, expected, before_BS = self._told(
            x_ND, ids_BT, before_BS=before_BS, position_offset=position_offset
        )
        filled = []
        known: Sequence[LayerCache | None] = caches.layers if caches else [None] * len(self.blocks)
        for block, cache in zip(self.blocks, known, strict=True):
            # What the last block makes of the other tokens is read by none, unless shifted to this.
            is_last = block is self.blocks[-1] and block.shift is None
            query_index = last if is_last else None
            x_ND, cache = block(
                x_ND,
                batch_size=B,
                cache=cache,
                position_offset=position_offset,
                query_index=query_index,
            )
            filled.append(cache)
        x_BD = x_ND if is_last else _token(x_ND, last, B)
        expected_BV = None if expected is None else _token(expected, last, B)
        return self._logits(x_BD, expected_BV), Caches(filled, before_BS)

    def _told(
        self, x_ND: jax.Array, ids_BT: jax.Array, **where: Any
    ) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
        """The stream with the counts added, their log-probabilities, the array of all tokens."""
        if self.followers is None:
            return x_ND, None, None
        expected_NV, told_ND, before_BS = self.followers(ids_BT, **where)
        return x_ND + told_ND.astype(x_ND.dtype), expected_NV, before_BS

    def _embedded(self, ids_BT: jax.Array, *, position_offset: jax.Array | int) -> jax.Array:
        B, T = ids_BT.shape
        ids_N = ids_BT.reshape(-1)
        table_VD, dtype = self.wte.embedding[...], self.wte.dtype
        if is_small_vocabulary(self.wte.num_embeddings):
            one_hot_NV = jax.nn.one_hot(ids_N, self.wte.num_embeddings, dtype=dtype)
            token_ND = one_hot_NV @ table_VD.astype(dtype)
        else:
            # Looked up before it is narrowed: the gradients of a frequent token are many, and
            # added up in bfloat16 most of them would be lost.
            token_ND = table_VD[ids_N].astype(dtype)
        if not self.is_rotary:
            positions_TD = jax.lax.dynamic_slice_in_dim(self.wpe.embedding[...], position_offset, T)
            x_BTD = token_ND.reshape(B, T, -1) + positions_TD.astype(token_ND.dtype)[None]
            token_ND = x_BTD.reshape(B * T, -1)
        return token_ND if self.ln_0 is None else self.ln_0(token_ND)

    def _logits(self, x_ND: jax.Array, expected_NV: jax.Array | None) -> jax.Array:
        x_ND = self.ln_f(x_ND)
        if not self.is_tied:
            logits_NV = self.head(x_ND).astype(self.wide)
        else:
            table_VD = self.wte.embedding[...].astype(x_ND.dtype)
            logits_NV = gradients.wide_einsum("ND,VD->NV", x_ND, table_VD)
        if self.followers is None or expected_NV is None:
            return logits_NV
        return self.followers.mixed(logits_NV, expected_NV, x_ND)


def _token(x_ND: jax.Array, index: jax.Array | int, batch_size: int) -> jax.Array:
    """The rows of token number `index` of each sequence, axes BD."""
    x_BTD = x_ND.reshape(batch_size, -1, x_ND.shape[1])
    return jax.lax.dynamic_index_in_dim(x_BTD, index, axis=1, keepdims=False)


def expected_parameters(config: GPTConfig) -> int:
    """Number of all weights of a model, position embeddings included, without making any."""
    width, per_bias = config.n_embd, int(config.bias)
    norm = width * (1 + per_bias) if config.norm == "layernorm" else 0
    matrices = 12 * width * width + per_bias * 9 * width
    n_rows = config.vocab_size + (config.block_size if config.position == "learned" else 0)
    head = 0 if config.tie_embeddings else config.vocab_size * (width + per_bias)
    outside = n_rows * width + head + followers.n_weights(config)
    return config.n_layer * (2 * norm + matrices) + norm + outside


def n_parameters(params: nnx.State) -> int:
    """Number of weights without the position embeddings, nanoGPT's way of counting."""
    leaves = jax.tree_util.tree_leaves_with_path(nnx.split_state(params, nnx.Param, ...)[0])
    return sum(leaf.size for path, leaf in leaves if "wpe" not in jax.tree_util.keystr(path))
