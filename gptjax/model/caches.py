"""What generation keeps of the tokens seen so far; axes are named as in gpt.py."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp

from gptjax.config.config import GPTConfig
from gptjax.model.attention import KeysValues


@flax.struct.dataclass
class LayerCache:
    """What one block keeps; without token shift, keys and values only."""

    keys_values: KeysValues | None
    before_attention_BSC: jax.Array | None
    before_mlp_BSC: jax.Array | None


@flax.struct.dataclass
class Caches:
    """What all blocks keep, and the tokens themselves where what followed them is counted."""

    layers: list[LayerCache]
    before_BS: jax.Array | None


def empty_caches(config: GPTConfig, batch_size: int) -> Caches:
    """Zeroed caches for `block_size` tokens."""
    B, S, D, H = batch_size, config.block_size, config.n_embd, config.n_head

    def zeros(*shape: int) -> jax.Array:
        return jnp.zeros(shape, config.dtype)

    def before() -> jax.Array | None:
        # One place more: what the last token would give to its successor is written, never read.
        return zeros(B, S + 1, D // 2) if config.token_shift else None

    layers = [
        LayerCache((zeros(B, H, S, D // H), zeros(B, H, S, D // H)), before(), before())
        for _ in range(config.n_layer)
    ]
    n_tokens = S + config.followers - 1
    return Caches(layers, jnp.zeros((B, n_tokens), jnp.int32) if config.followers else None)
