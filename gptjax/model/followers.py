"""What followed the last few tokens wherever they stand in the training text: counted, not learned.

A model that is told begins where n-grams end, and learns what they do not know. While it trains,
the part of the text that a token is from is left out: of its own text every count knows too much,
names above all. Axes are named as in gpt.py; R rows of a table, P parts of the text.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptjax.config.config import GPTConfig

# A part is about as long as val, which is a tenth of the text: as much is unknown of it.
N_PARTS = 8

# Keys have 24 bits: float32 holds them all, and of 32,768 contexts two in a thousand share one.
_KEY_BITS = 24
_NO_KEY = 2.0**_KEY_BITS

# A context of N tokens with U different followers gives each c - _DISCOUNT, and the rest, with
# _BONUS of its own, to what is expected without its first token. (Ney et al. 1994, absolute
# discounting; both are what training made of them where they were learned.)
_DISCOUNT, _BONUS = 0.8, 0.5

# Of logarithms from -8 to 4 and of counts up to e^12: about what a norm gives a token's channels.
_FEATURE_SCALE = 0.3

# What can be expected least.
_LEAST_SHARE = 1e-30

# At first the counts' share is sigmoid(-1), about a quarter.
_GATE = -1.0


class Counted(nnx.Variable):
    """Numbers of a model that no update changes."""


class Followers(nnx.Module):
    """A table for each context from one token to `followers`, and how the model reads them."""

    def __init__(self, config: GPTConfig):
        self.base = _base(config)
        self.lengths = range(1, config.followers + 1)
        shapes = [n_rows(config, length) for length in self.lengths]
        self.keys = nnx.List([Counted(jnp.full(n, _NO_KEY, jnp.float32)) for n in shapes])
        self.counts = nnx.List(
            [Counted(jnp.zeros((n, config.vocab_size), jnp.float32)) for n in shapes]
        )
        # float16 is exact up to 2,048, and within 0.05 % up to 65,504, where it ends.
        self.part_counts = nnx.List(
            [Counted(jnp.zeros((N_PARTS, n, config.vocab_size), jnp.float16)) for n in shapes]
        )
        self.part_tokens = Counted(jnp.ones((1,), jnp.float32))
        # They start with nothing to say, and draw no random number that other weights would miss.
        n_features, width = config.vocab_size + config.followers, config.n_embd
        self.reading_FD = nnx.Param(jnp.zeros((n_features, width), config.param_dtype))
        self.gate_D = nnx.Param(jnp.zeros((width,), config.param_dtype))

    def __call__(
        self,
        ids_BT: jax.Array,
        *,
        first_B: jax.Array | None = None,
        before_BS: jax.Array | None = None,
        position_offset: jax.Array | int = 0,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Log-probabilities of what follows (NV), what blocks are told (ND), all tokens' array.

        That array holds ids plus 1, behind as many zeros, no token, as the longest context reaches
        back. With it (`before_BS`) the tokens stand at position_offset and after it. Windows that
        begin at `first_B` of the training text are told nothing of the part that a follower is in.
        """
        T, reach = ids_BT.shape[1], len(self.lengths) - 1
        symbols_BT = ids_BT.astype(jnp.int32) + 1
        if before_BS is None:
            before_BS = jnp.pad(symbols_BT, ((0, 0), (reach, 0)))
        else:
            before_BS = jax.lax.dynamic_update_slice_in_dim(
                before_BS, symbols_BT, position_offset + reach, axis=1
            )
        part_N = None if first_B is None else self._part(first_B, T)
        share_NV = jax.nn.softmax(jnp.log1p(self.counts[0][...].sum(0)))[None]
        code_N, features = jnp.zeros(ids_BT.size, jnp.uint32), []
        tables = zip(self.lengths, self.keys, self.counts, self.part_counts, strict=True)
        for length, keys, counts, part_counts in tables:
            earlier_BT = jax.lax.dynamic_slice_in_dim(
                before_BS, position_offset + reach - (length - 1), T, axis=1
            )
            power = jnp.uint32(pow(self.base, length - 1, 2**32))
            code_N = code_N + earlier_BT.reshape(-1).astype(jnp.uint32) * power
            found_NV = _found(keys[...], counts[...], part_counts[...], code_N, part_N)
            n_N1 = found_NV.sum(-1, keepdims=True)
            n_kinds_N1 = (found_NV > 0).sum(-1, keepdims=True)
            kept_NV = jnp.maximum(found_NV - _DISCOUNT, 0.0)
            left_N1 = _DISCOUNT * n_kinds_N1 + _BONUS
            share_NV = (kept_NV + left_N1 * share_NV) / (n_N1 + _BONUS)
            features.append(jnp.log1p(n_N1))
        # Contexts that one symbol has followed a million times leave the others, over eight
        # lengths, a share that is 0 in float32.
        log_NV = jnp.log(jnp.maximum(share_NV, _LEAST_SHARE))
        # 0 for a symbol as likely as any.
        against_any_NV = log_NV + math.log(log_NV.shape[1])
        features_NF = _FEATURE_SCALE * jnp.concatenate([against_any_NV, *features], axis=-1)
        reading_FD = self.reading_FD[...]
        told_ND = features_NF.astype(reading_FD.dtype) @ reading_FD
        return log_NV, told_ND, before_BS

    def mixed(self, logits_NV: jax.Array, log_NV: jax.Array, x_ND: jax.Array) -> jax.Array:
        """Log-probabilities by a model's logits and by the counts, mixed as its last stream says.

        Where log_NV was added to the logits instead, the model had to undo each wrong count, and
        learned more slowly than without counts: see BENCHMARKS.md.
        """
        gate_N1 = (x_ND @ self.gate_D[...].astype(x_ND.dtype))[:, None].astype(logits_NV.dtype)
        by_counts_NV = jax.nn.log_sigmoid(gate_N1 + _GATE) + log_NV
        by_model_NV = jax.nn.log_sigmoid(-gate_N1 - _GATE) + jax.nn.log_softmax(logits_NV)
        return jnp.logaddexp(by_counts_NV, by_model_NV)

    def _part(self, first_B: jax.Array, n_tokens: int) -> jax.Array:
        """The part of the text that each token's follower is in, axis N."""
        follower_BT = first_B[:, None] + 1 + jnp.arange(n_tokens)[None]
        part_N = jnp.floor(follower_BT.reshape(-1) / self.part_tokens[...])
        return jnp.minimum(part_N.astype(jnp.int32), N_PARTS - 1)


def _found(
    keys_R: jax.Array,
    counts_RV: jax.Array,
    part_counts_PRV: jax.Array,
    code_N: jax.Array,
    part_N: jax.Array | None,
) -> jax.Array:
    """How often each symbol followed each context, but in the part to be left out; axes NV."""
    keys_R = jnp.asarray(keys_R)
    key_N = _keys(jnp, code_N)
    row_N = jnp.minimum(jnp.searchsorted(keys_R, key_N), len(keys_R) - 1)
    found_NV = jnp.asarray(counts_RV)[row_N]
    if part_N is not None:
        left_out_NV = jnp.asarray(part_counts_PRV)[part_N, row_N]
        found_NV = jnp.maximum(found_NV - left_out_NV.astype(jnp.float32), 0.0)
    return jnp.where((keys_R[row_N] == key_N)[:, None], found_NV, 0.0)


def with_counts(params: nnx.State, config: GPTConfig, ids: np.ndarray) -> nnx.State:
    """The weights of a model, its tables filled with the counts of a training text."""
    if not config.followers:
        return params
    tables: dict[str, Any] = {"part_tokens": np.full(1, len(ids) / N_PARTS, np.float32)}
    symbols = np.asarray(ids).astype(np.uint32) + np.uint32(1)
    part = (np.arange(len(ids)) / tables["part_tokens"]).astype(np.int64)
    code = np.zeros(len(ids), np.uint32)
    for length in range(1, config.followers + 1):
        power = np.uint32(pow(_base(config), length - 1, 2**32))
        code = code[1:] + symbols[: len(symbols) - length + 1] * power if length > 1 else symbols
        keys_R, counts_PRV = _counted(code[:-1], ids[length:], part[length:], length, config)
        tables[f"keys/{length - 1}"], tables[f"part_counts/{length - 1}"] = keys_R, counts_PRV
        tables[f"counts/{length - 1}"] = counts_PRV.sum(0, dtype=np.float32)

    def filled(path: jax.tree_util.KeyPath, leaf: jax.Array) -> Any:
        name = jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value")
        if not name.startswith("followers/"):
            return leaf
        return tables.get(name.removeprefix("followers/"), leaf)

    return jax.tree_util.tree_map_with_path(filled, params)


def _counted(
    code: np.ndarray, follower: np.ndarray, part: np.ndarray, length: int, config: GPTConfig
) -> tuple[np.ndarray, np.ndarray]:
    """The table of the commonest contexts: keys in order, and the counts of each part."""
    rows = n_rows(config, length)
    keys, place, n = np.unique(_keys(np, code), return_inverse=True, return_counts=True)
    # What stands once in a text tells the rest of it nothing.
    commonest = np.argsort(-n, kind="stable")[:rows]
    kept = np.sort(commonest[n[commonest] > 1])
    row_of = np.full(len(keys), rows)
    row_of[kept] = np.arange(len(kept))
    keys_R = np.full(rows, _NO_KEY, np.float32)
    keys_R[: len(kept)] = keys[kept]
    cell = (part * (rows + 1) + row_of[place]) * config.vocab_size + follower
    counts = np.bincount(cell, minlength=N_PARTS * (rows + 1) * config.vocab_size)
    counts_PRV = counts.reshape(N_PARTS, rows + 1, -1)[:, :rows]
    return keys_R, np.minimum(counts_PRV, np.finfo(np.float16).max).astype(np.float16)


def n_rows(config: GPTConfig, length: int) -> int:
    """Rows of the table of contexts so long: one for each if there are enough of them."""
    return min(config.follower_rows, config.vocab_size**length)


def n_weights(config: GPTConfig) -> int:
    """Weights that say how tables are read."""
    return (config.vocab_size + config.followers + 1) * config.n_embd * bool(config.followers)


def counted_bytes(config: GPTConfig) -> int:
    """Bytes of all tables."""
    rows = sum(n_rows(config, length) for length in range(1, config.followers + 1))
    return rows * (4 + (4 + 2 * N_PARTS) * config.vocab_size) + 4 * bool(config.followers)


def _base(config: GPTConfig) -> int:
    """What a code of several symbols is written in; odd, so that all of them count modulo 2**32."""
    return (config.vocab_size + 1) | 1


def _keys(numpy: ModuleType, code: Any) -> Any:
    """Codes of 32 bits as keys, in which each bit depends on all: a hash.

    `numpy` is NumPy or jax.numpy. Source: Appleby, MurmurHash3, fmix32.
    """
    code = (code ^ (code >> 16)) * numpy.uint32(0x85EBCA6B)
    code = (code ^ (code >> 13)) * numpy.uint32(0xC2B2AE35)
    return ((code ^ (code >> 16)) >> (32 - _KEY_BITS)).astype(numpy.float32)
