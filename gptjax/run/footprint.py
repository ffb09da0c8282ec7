"""What an update needs of each device's memory, by part; nothing is allocated."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import ml_collections
import numpy as np

from gptjax.config.config import model_config
from gptjax.device import kernels, memory
from gptjax.device.mesh import Layout
from gptjax.run.functions import start_source, update_source
from gptjax.run.program import max_updates_per_call


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes of each device, and how the update is cut.

    Attributes:
      weights, optimizer: the state.
      gradients: one of each weight, in float32.
      activations: all else that an update needs for a while: what XLA's memory analysis calls
        temporary, without the gradients.
      data: the corpus.
      windows: where those of a call's updates start.
      n_micro: micro-batches of an update.
      micro_batch: sequences of one of them on each device.
      whole_state: weights and optimizer, of all devices that share them; a checkpoint's size.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    data: int
    windows: int
    n_micro: int
    micro_batch: int
    whole_state: int

    @property
    def total(self) -> int:
        """All of them together."""
        # The new state takes the old one's place.
        return self.state + self.gradients + self.activations + self.data + self.windows

    @property
    def state(self) -> int:
        """What no way of cutting an update into smaller pieces makes less."""
        return self.weights + self.optimizer


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled update, and its memory."""

    footprint: Footprint
    executable: jax.stages.Compiled

    def hlo_text(self) -> str:
        """XLA's text of it: megabytes."""
        return str(self.executable.as_text())


def compiled_update(
    config: ml_collections.ConfigDict,
    devices: list[jax.Device],
    *,
    n_symbols: int,
    n_tokens: int,
    token_dtype: Any,
    platform: str,
) -> Compiled:
    """The updates of a config, compiled for devices, on a corpus of so many tokens.

    Args:
      platform: of the devices that are meant, "cpu" or "gpu"; these may stand in for them.
    """
    n_devices, train = len(devices), config.train
    n_micro = memory.micro_batches(config, platform, n_devices)
    model = model_config(config, n_symbols)
    if platform == "cpu" or devices[0].platform != "cpu":
        kernel = kernels.choose_attention(model, devices[0]).updates
        model = kernels.with_attention(model, kernel, devices[0])
    else:  # As a GPU that is not here would have it, but for a fused kernel.
        rows = model.attention_rows or model.block_size
        model = dataclasses.replace(model, attention="xla", attention_rows=rows)
    layout = Layout(devices, config.mesh.fsdp)
    tokens = jax.ShapeDtypeStruct((n_tokens,), token_dtype, sharding=layout.replicated)
    sizes_KAB = (max_updates_per_call(config), n_micro, train.batch_size // n_micro)
    with kernels.matmul_precision(model):
        state = layout.placed(start_source(config, model).returns)
        source = update_source(config, model, layout, (tokens, state, sizes_KAB))
        executable = source.compile().executable
    needed: Any = executable.memory_analysis()
    gradients = sum(
        math.prod(_share(leaf)) * max(4, leaf.dtype.itemsize)
        for leaf in jax.tree.leaves(state.params)
    )
    # XLA may write a gradient over what is no longer needed.
    gradients = min(gradients, needed.temp_size_in_bytes)
    parts = Footprint(
        weights=_bytes(state.params),
        optimizer=_bytes((state.step, state.opt_state)),
        gradients=gradients,
        activations=needed.temp_size_in_bytes - gradients,
        data=_bytes(tokens),
        windows=_bytes(source.arguments[2]),
        n_micro=n_micro,
        micro_batch=train.batch_size // n_micro // n_devices,
        whole_state=sum(
            math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
        ),
    )
    return Compiled(parts, executable)


def _bytes(tree: Any) -> int:
    """What each device holds of the arrays of a tree."""
    return sum(
        math.prod(_share(leaf)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )


def _share(leaf: Any) -> tuple[int, ...]:
    """The axes' sizes of the part of an array that a device holds."""
    return leaf.sharding.shard_shape(leaf.shape)
