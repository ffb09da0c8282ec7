"""Generating text from a GPT: nanoGPT's distribution, computed with a key-value cache; no I/O.

nanoGPT feeds the model the last `block_size` tokens at positions 0, 1, …. Up to block_size tokens
a cache holds what earlier tokens contributed. Beyond, every new token moves all others one
position down, which changes their keys and values: then the window is computed anew, which is
exactly what nanoGPT computes. (A cache that merely slides would be another model.)
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptjax.config import GPTConfig
from gptjax.model import LayerCache, empty_caches


@flax.struct.dataclass
class Progress:
    """Where generation stands: all samples of a batch have the same number of tokens."""

    window_BT: jax.Array  # the last tokens, from position 0 on; padding after `length`
    length: jax.Array  # tokens in the window
    n_new: jax.Array  # tokens generated so far
    logits_BV: jax.Array  # of the next token
    caches: list[LayerCache]


def begin(
    graph: nnx.GraphDef, config: GPTConfig, params: nnx.State, prompt_BT: jax.Array, length: int
) -> Progress:
    """The state after reading a prompt of `length` ≥ 1 tokens, padded to block_size."""
    logits_BV, caches = nnx.merge(graph, params).next_logits(
        prompt_BT, last=length - 1, caches=empty_caches(config, prompt_BT.shape[0]), start=0
    )
    return Progress(
        window_BT=prompt_BT,
        length=jnp.asarray(length, jnp.int32),
        n_new=jnp.zeros((), jnp.int32),
        logits_BV=logits_BV,
        caches=caches,
    )


def choose(
    logits_BV: jax.Array, keys_B: jax.Array, *, temperature: jax.Array, top_k: int
) -> jax.Array:
    """One token per row: softmax(logits / temperature) over the top_k likeliest; ties stay in.

    temperature 0 takes the likeliest token; top_k 0 keeps all. Source: nanoGPT model.py, generate.
    """
    scaled_BV = logits_BV / jnp.where(temperature == 0, 1, temperature)
    if top_k:
        kept_BK, _ = jax.lax.top_k(scaled_BV, min(top_k, scaled_BV.shape[-1]))
        scaled_BV = jnp.where(scaled_BV < kept_BK[:, -1:], -jnp.inf, scaled_BV)
    drawn_B = jax.vmap(jax.random.categorical)(keys_B, scaled_BV)
    return jnp.where(temperature == 0, jnp.argmax(logits_BV, axis=-1), drawn_B).astype(jnp.int32)


def extend(
    graph: nnx.GraphDef,
    params: nnx.State,
    progress: Progress,
    key: jax.Array,
    n_tokens: jax.Array,
    temperature: jax.Array,
    *,
    n_slots: int,
    top_k: int,
) -> tuple[Progress, jax.Array]:
    """Generates `n_tokens` ≤ n_slots more: the state after them, and the tokens, axes B, n_slots.

    Sample b's i-th token depends on the key, b and i alone: neither on how many samples there are
    nor on how generation is cut into calls.
    """
    model = nnx.merge(graph, params)
    B, block_size = progress.window_BT.shape

    def grow(window_BT, length, caches, token_B):
        window_BT = jax.lax.dynamic_update_slice_in_dim(window_BT, token_B[:, None], length, axis=1)
        logits_BV, caches = model.next_logits(token_B[:, None], last=0, caches=caches, start=length)
        return window_BT, logits_BV, caches

    def slide(window_BT, length, caches, token_B):
        window_BT = jnp.concatenate([window_BT[:, 1:], token_B[:, None]], axis=1)
        logits_BV, caches = model.next_logits(window_BT, last=length - 1, caches=caches, start=0)
        return window_BT, logits_BV, caches

    def one_token(index, carry):
        progress, tokens_BK = carry
        at = jax.vmap(lambda b: jax.random.fold_in(jax.random.fold_in(key, b), progress.n_new))
        token_B = choose(
            progress.logits_BV, at(jnp.arange(B)), temperature=temperature, top_k=top_k
        )
        window_BT, logits_BV, caches = jax.lax.cond(
            progress.length < block_size,
            grow,
            slide,
            progress.window_BT,
            progress.length,
            progress.caches,
            token_B,
        )
        progress = Progress(
            window_BT=window_BT,
            length=jnp.minimum(progress.length + 1, block_size),
            n_new=progress.n_new + 1,
            logits_BV=logits_BV,
            caches=caches,
        )
        return progress, tokens_BK.at[:, index].set(token_B)

    empty_BK = jnp.zeros((B, n_slots), jnp.int32)
    return jax.lax.fori_loop(0, n_tokens, one_token, (progress, empty_BK))


def pad_prompt(ids: np.ndarray, *, block_size: int, batch_size: int) -> tuple[np.ndarray, int]:
    """The last block_size tokens of a prompt, padded and repeated (BT), and how many they are."""
    kept = np.asarray(ids, np.int32)[-block_size:]
    prompt_T = np.zeros(block_size, np.int32)
    prompt_T[: len(kept)] = kept
    return np.tile(prompt_T, (batch_size, 1)), len(kept)
