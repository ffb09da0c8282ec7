"""How a run's arrays are laid out over its devices."""

from __future__ import annotations

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def data_mesh(devices: list[jax.Device]) -> Mesh:
    """A mesh with one axis, `data`, over which batches are split."""
    # Under jax.make_mesh's default, Explicit, Flax's Embed refuses a split batch.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_last_axis(mesh: Mesh, n_axes: int) -> NamedSharding:
    """An array of `n_axes` axes whose last, the sequences of a batch, is split over devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * (n_axes - 1), "data"))
