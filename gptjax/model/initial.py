"""Initial weights, all matrices of a kind drawn by one loop.

Flax gives each matrix a key and operations of its own, a program that XLA compiles for seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def normal(std: float) -> Callable[..., jax.Array]:
    """An initializer: nnx.initializers.normal, which `initial_params` may leave for later."""
    drawn = nnx.initializers.normal(std)

    def initialize(key: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        if not isinstance(key, _Place):
            return drawn(key, shape, dtype)
        placeholder = jnp.zeros(shape, dtype)
        key.draws.append(_Draw(placeholder, key.number, std))
        return placeholder

    return initialize


@dataclasses.dataclass(frozen=True)
class _Draw:
    """A matrix that is yet to be drawn, with the number of its key."""

    placeholder: jax.Array
    number: int
    std: float

    @property
    def kind(self) -> tuple[Any, ...]:
        return self.placeholder.shape, self.placeholder.dtype, self.std


@dataclasses.dataclass(frozen=True)
class _Place:
    """Given in place of a key: its number, and where to put what is to be drawn with it."""

    number: int
    draws: list[_Draw]


class _Places:
    """Given to modules in place of nnx.Rngs."""

    def __init__(self) -> None:
        self.draws: list[_Draw] = []
        self._n_given = 0

    def params(self) -> _Place:
        """The next place."""
        self._n_given += 1
        return _Place(self._n_given - 1, self.draws)


def initial_params(make: Callable[[nnx.Rngs], nnx.Module], key: jax.Array) -> nnx.State:
    """The weights, to the bit, of the model that `make` builds with nnx.Rngs(params=key)."""
    places = _Places()
    params = nnx.split(make(cast(nnx.Rngs, places)))[1]
    by_kind: dict[tuple[Any, ...], list[_Draw]] = {}
    for draw in places.draws:
        by_kind.setdefault(draw.kind, []).append(draw)
    drawn: dict[int, jax.Array] = {}
    for alike in by_kind.values():
        for draw, values in zip(alike, _drawn(key, alike), strict=True):
            drawn[id(draw.placeholder)] = values
    return jax.tree.map(lambda leaf: drawn.get(id(leaf), leaf), params)


def _drawn(key: jax.Array, alike: list[_Draw]) -> list[jax.Array]:
    """The values of matrices of one kind."""
    shape, dtype, std = alike[0].kind
    initialize = nnx.initializers.normal(std)

    def draw(number: jax.typing.ArrayLike) -> jax.Array:
        # A key's number is folded in, as nnx.RngStream does it.
        return initialize(jax.random.fold_in(key, number), shape, dtype)

    numbers = [draw.number for draw in alike]
    if dtype != jnp.float32:
        # XLA rounds narrower ones elsewhere inside a loop.
        return [draw(np.uint32(number)) for number in numbers]
    # XLA fuses other forms than a loop with what follows, one operation a matrix again.
    return list(jax.lax.map(draw, np.array(numbers, np.uint32)))
