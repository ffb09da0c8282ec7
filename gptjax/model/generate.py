"""Generating text from a GPT: nanoGPT's distribution, computed with a key-value cache; no I/O.

nanoGPT feeds the model the last `block_size` tokens at positions 0, 1, …. Up to block_size tokens
a cache holds what earlier tokens contributed. Beyond, every new token moves all others one
position down, which changes their keys and values: then the window is computed anew, which is
exactly what nanoGPT computes. (A cache that merely slides would be another model.) A window that
gives up `stride` tokens at once is computed anew as much less often, and grows again in between:
far quicker, from the same model, with at least block_size − stride tokens in view.
(run/continuation.py puts these functions together.)
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.model.caches import Caches, empty_caches


@flax.struct.dataclass
class DecodeState:
    """Where generation stands: all samples of a batch have the same number of tokens."""

    window_BT: jax.Array  # the last tokens, from position 0 on; padding after `length`
    length: jax.Array  # tokens in the window
    n_new: jax.Array  # tokens generated so far
    logits_BV: jax.Array  # of the next token
    caches: Caches  # of the window's tokens, where `decode` is to follow


def prefill(
    graph: nnx.GraphDef,
    config: GPTConfig,
    params: nnx.State,
    window_BT: jax.Array,
    length: int,
    n_new: int,
) -> DecodeState:
    """The state after reading `length` ≥ 1 tokens, n_new of them ours, padded to block_size."""
    logits_BV, caches = nnx.merge(graph, params).next_logits(
        window_BT,
        last=length - 1,
        caches=empty_caches(config, window_BT.shape[0]),
        position_offset=0,
    )
    return DecodeState(
        window_BT=jnp.asarray(window_BT),
        length=jnp.asarray(length, jnp.int32),
        n_new=jnp.asarray(n_new, jnp.int32),
        logits_BV=logits_BV,
        caches=caches,
    )


def sample_token(
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


def decode(
    graph: nnx.GraphDef,
    params: nnx.State,
    state: DecodeState,
    key: jax.Array,
    n_tokens: jax.Array,
    temperature: jax.Array,
    **settings: int,
) -> tuple[DecodeState, jax.Array]:
    """Generates `n_tokens` ≤ n_slots more, for which the window has room.

    Returns the state after them, and the tokens, axes B, n_slots; settings are `_repeated`'s.
    """
    model = nnx.merge(graph, params)

    def take(state, token_B):
        window_BT = jax.lax.dynamic_update_slice_in_dim(
            state.window_BT, token_B[:, None], state.length, axis=1
        )
        logits_BV, caches = model.next_logits(
            token_B[:, None], last=0, caches=state.caches, position_offset=state.length
        )
        return DecodeState(window_BT, state.length + 1, state.n_new + 1, logits_BV, caches)

    return _repeated(take, state, key, n_tokens, temperature, **settings)


def decode_sliding(
    graph: nnx.GraphDef,
    params: nnx.State,
    state: DecodeState,
    key: jax.Array,
    n_tokens: jax.Array,
    temperature: jax.Array,
    **settings: int,
) -> tuple[DecodeState, jax.Array]:
    """As `decode`, for a full window, whose first token makes room for each new one.

    Every window is computed anew, and nothing of it is kept for the next.
    """
    model = nnx.merge(graph, params)

    def take(state, token_B):
        window_BT = jnp.concatenate([state.window_BT[:, 1:], token_B[:, None]], axis=1)
        logits_BV, _ = model.next_logits(
            window_BT, last=window_BT.shape[1] - 1, caches=None, position_offset=0
        )
        return state.replace(window_BT=window_BT, n_new=state.n_new + 1, logits_BV=logits_BV)

    return _repeated(take, state, key, n_tokens, temperature, **settings)


def _repeated(take, state, key, n_tokens, temperature, *, n_slots, top_k, n_symbols):
    """`n_tokens` times: draws each sample's next token and lets `take` put it into the window."""
    B = state.window_BT.shape[0]

    def one_token(index, carry):
        state, tokens_BK = carry
        at = jax.vmap(lambda b: jax.random.fold_in(jax.random.fold_in(key, b), state.n_new))
        token_B = sample_token(
            state.logits_BV[:, :n_symbols],
            at(jnp.arange(B)),
            temperature=temperature,
            top_k=top_k,
        )
        return take(state, token_B), tokens_BK.at[:, index].set(token_B)

    empty_BK = jnp.zeros((B, n_slots), jnp.int32)
    return jax.lax.fori_loop(0, n_tokens, one_token, (state, empty_BK))


def pad_prompt(ids: np.ndarray, *, block_size: int, batch_size: int) -> tuple[np.ndarray, int]:
    """The last block_size tokens of a prompt, padded and repeated (BT), and how many they are."""
    kept = np.asarray(ids, np.int32)[-block_size:]
    prompt_T = np.zeros(block_size, np.int32)
    prompt_T[: len(kept)] = kept
    return np.tile(prompt_T, (batch_size, 1)), len(kept)
