"""How a run's arrays lie over its devices.

The devices are a mesh of two axes: over `data` the state is copied, over `fsdp` each copy of it is
split, and batches are split over both. Nothing else in the program knows of it: XLA finds out from
where the arrays lie which device computes what, and which parts they send one another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.flatten_util import ravel_pytree
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

_AXES = ("data", "fsdp")

# What weights that have been put together are called in a program.
_WHOLE = "whole"


class Layout:
    """How arrays lie over devices: on a single one, all of them whole.

    Attributes:
      devices: all of them.
      device: the only one; None where there are several.
    """

    def __init__(self, devices: Sequence[jax.Device], n_fsdp: int = 1):
        """`n_fsdp` devices share a copy of the state; it divides their number."""
        self.devices = list(devices)
        self.device = devices[0] if len(devices) == 1 else None
        self._n_fsdp = n_fsdp
        self._mesh = None if self.device else _mesh(self.devices, n_fsdp)

    @property
    def replicated(self) -> Sharding:
        """The same array on every device."""
        return self._over(PartitionSpec())

    def split_last_axis(self, n_axes: int) -> Sharding:
        """An array of `n_axes` axes whose last, the sequences of a batch, is split over all."""
        return self._over(PartitionSpec(*[None] * (n_axes - 1), _AXES))

    def of_state(self, shape: Sequence[int]) -> Sharding:
        """An array of the state: split over `fsdp` along the longest axis that it divides.

        What has no such axis is the same on every device. Shapes alone decide, so that a weight,
        its gradient and the optimizer's means of it lie alike.
        """
        fitting = [axis for axis, size in enumerate(shape) if size and size % self._n_fsdp == 0]
        if self._n_fsdp == 1 or not fitting:
            return self.replicated
        longest = max(fitting, key=lambda axis: shape[axis])
        return self._over(PartitionSpec(*[None] * longest, "fsdp"))

    def placed(self, tree: Any) -> Any:
        """The shapes of a state's arrays, or of a part of them, that lie so."""
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=self.of_state(leaf.shape)
            ),
            tree,
        )

    def put(self, state: Any) -> Any:
        """A state's arrays, put on the devices from wherever they are."""
        return jax.tree.map(lambda leaf: _put(leaf, self.of_state(leaf.shape)), state)

    def copied(self, array: Any) -> jax.Array:
        """An array, the same on every device."""
        return _put(array, self.replicated)

    def split(self, array_B: Any) -> jax.Array:
        """An array, its last axis split; a process hands over only what its own devices hold."""
        return _put(array_B, self.split_last_axis(array_B.ndim))

    def gathered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of weights as one of split weights, to be traced in a program over devices.

        Each device puts a weight together before its product and forgets it after: for the gradient
        it is put together anew. Of the gradient each device keeps its part.
        """
        if self._n_fsdp == 1:
            return function

        def of_split(params: Any, *arguments: Any) -> Any:
            return function(jax.tree.map(self._whole, params), *arguments)

        kept = jax.checkpoint_policies.save_anything_except_these_names(_WHOLE)
        return jax.checkpoint(of_split, policy=kept)

    def averaged(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function of weights and micro-batches, in means over sequences, as one over devices.

        Each device computes it of its own sequences, the second axis, and the results are added up
        as one array: once an update, where XLA would once a micro-batch, and weight by weight. How
        split weights are added up is XLA's to say.
        """
        if self._mesh is None or self._n_fsdp > 1:
            return function

        def of_own(weights: Any, batch: Any) -> Any:
            flat, unravelled = ravel_pytree(function(weights, batch))
            return unravelled(jax.lax.pmean(flat, _AXES))

        return jax.shard_map(
            of_own,
            mesh=self._mesh,
            in_specs=(PartitionSpec(), PartitionSpec(None, _AXES)),
            out_specs=PartitionSpec(),
            check_vma=False,
        )

    def _whole(self, leaf: jax.Array) -> jax.Array:
        """A split weight, whole on every device."""
        split, whole = self.of_state(leaf.shape), self.replicated

        @jax.custom_vjp
        def gather(leaf: jax.Array) -> jax.Array:
            return jax.lax.with_sharding_constraint(leaf, whole)

        def scatter(_: None, grad: jax.Array) -> tuple[jax.Array]:
            # Said to be split at once, it would have what it is computed from split along the same
            # axis, in place of the batch.
            grad = jax.lax.with_sharding_constraint(grad, whole)
            return (jax.lax.with_sharding_constraint(grad, split),)

        gather.defvjp(lambda leaf: (gather(leaf), None), scatter)
        return checkpoint_name(gather(leaf), _WHOLE)

    def _over(self, spec: PartitionSpec) -> Sharding:
        if self._mesh is None:
            return SingleDeviceSharding(self.devices[0])
        return NamedSharding(self._mesh, spec)


def here(devices: Sequence[jax.Device]) -> jax.Device:
    """The first of the devices that is this process's own."""
    return next(device for device in devices if device.process_index == jax.process_index())


def whole(array: jax.Array) -> np.ndarray:
    """An array on the host, put together from all its parts; all processes must call this."""
    is_device_array = isinstance(array, jax.Array)
    if is_device_array and not (array.is_fully_addressable or array.is_fully_replicated):
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _put(array: Any, sharding: Sharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    # To devices of several processes: each puts its own part there.
    on_host = np.asarray(array)
    return jax.make_array_from_callback(on_host.shape, sharding, on_host.__getitem__)


def _mesh(devices: Sequence[jax.Device], n_fsdp: int) -> Mesh:
    """The mesh: neighbours share a copy of the state, since they have most to say to each other."""
    # Under jax.make_mesh's default, Explicit, Flax's Embed refuses a split batch.
    return jax.make_mesh(
        (len(devices) // n_fsdp, n_fsdp),
        _AXES,
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=devices,
    )
