"""A GPT's blocks, one after another: compiled one by one or all as one, kept or computed anew.

The weights of each block stay arrays of their own whichever way it is: what is stacked, is stacked
inside the program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx

# Attention's weights, what it returns and what the MLP returns.
_MASKS_PER_BLOCK = 3


class _DropoutKeys:
    """Given to a block in place of nnx.Rngs, whose count may not change inside a transformation."""

    def __init__(self, key: jax.Array, n_drawn: jax.Array):
        self._key, self._n_drawn = key, n_drawn

    def dropout(self) -> jax.Array:
        """The next key: the one that nnx.Rngs would give."""
        key = jax.random.fold_in(self._key, self._n_drawn)
        self._n_drawn = self._n_drawn + 1
        return key


def after_blocks(
    blocks: Sequence[nnx.Module],
    x_ND: jax.Array,
    *,
    batch_size: int,
    rngs: nnx.Rngs | None,
    remat: bool,
    scan: bool,
) -> jax.Array:
    """The stream after all blocks, which are alike but for their weights.

    `remat`: of a block only what goes in is kept for its gradient, and the rest computed anew.
    `scan`: they are one block in a loop over their weights, stacked.
    """
    settings = dict(batch_size=batch_size)
    if not remat and not scan:
        for block in blocks:
            x_ND, _ = cast(Any, block)(x_ND, **settings, rngs=rngs)
        return x_ND
    graph = nnx.split(blocks[0])[0]
    weights = [nnx.split(block)[1] for block in blocks]

    def after_block(x_ND: jax.Array, inputs: Any) -> tuple[jax.Array, None]:
        params, index = inputs
        keys = None
        if rngs is not None:
            n_drawn = rngs.dropout.count[...] + _MASKS_PER_BLOCK * index
            keys = _DropoutKeys(rngs.dropout.key[...], n_drawn)
        block: Any = nnx.merge(graph, params)
        return block(x_ND, **settings, rngs=keys)[0], None

    if remat:
        # In a loop there is nothing that XLA could take for the same.
        after_block = jax.checkpoint(after_block, prevent_cse=not scan)
    indices_L = jnp.arange(len(blocks), dtype=jnp.uint32)
    if scan:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *weights)
        return jax.lax.scan(after_block, x_ND, (stacked, indices_L))[0]
    for params, index in zip(weights, indices_L, strict=True):
        x_ND, _ = after_block(x_ND, (params, index))
    return x_ND
