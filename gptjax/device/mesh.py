"""How a run's arrays are laid out over its devices."""

from __future__ import annotations

import jax
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)


def replicated(devices: list[jax.Device]) -> Sharding:
    """The same array on every device."""
    if len(devices) == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(_mesh(devices), PartitionSpec())


def split_last_axis(devices: list[jax.Device], n_axes: int) -> Sharding:
    """An array of `n_axes` axes whose last, the sequences of a batch, is split over devices."""
    if len(devices) == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(_mesh(devices), PartitionSpec(*[None] * (n_axes - 1), "data"))


def _mesh(devices: list[jax.Device]) -> Mesh:
    """A mesh with one axis, `data`, over which batches are split."""
    # Under jax.make_mesh's default, Explicit, Flax's Embed refuses a split batch.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
