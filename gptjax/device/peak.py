"""What a device could do: matrix products and memory, from NVIDIA's figures or measured.

The peak is looked up by device kind and dtype; where no table can know it (CPUs, new cards) it is
measured as the rate of a large matrix product.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.device.cards import table_peak
from gptjax.device.devices import lacks_bfloat16, n_cores
from gptjax.system import cache


@dataclasses.dataclass(frozen=True)
class Peak:
    """The rate that MFU is measured against, FLOP/s over all devices, and where it is from."""

    flops_per_s: float
    source: str


def peak(
    devices: list[jax.Device], dtype: str, *, precision: str = "default", folder: Path | None
) -> Peak:
    """What the devices together could do: the table's figure, else a measured one.

    The highest rate ever measured on this machine is kept in `folder` (None: nowhere), since
    a measurement can be too low, when the machine is busy, but not too high.
    """
    kind = devices[0].device_kind
    known = table_peak(kind, dtype, precision=precision)
    if known is not None:
        is_tf32 = dtype == "float32" and known != table_peak(kind, dtype, precision="highest")
        name = "TF32" if is_tf32 else dtype
        return Peak(known * len(devices), f"{len(devices)} x {kind}'s peak for {name}")
    measured = matmul_rate(devices[0], dtype, precision=precision)
    # XLA's CPU devices share the same cores: more of them are not more arithmetic.
    count = 1 if devices[0].platform == "cpu" else len(devices)
    if folder is not None:
        key = f"{kind} {cache.processor()} {n_cores()} cores {dtype} jax {jax.__version__}"
        if devices[0].platform != "cpu":
            key += f" {precision}"
        measured = _highest_ever(folder / "peaks.json", key, measured)
    return Peak(measured * count, f"measured {dtype} matmul rate of this {devices[0].platform}")


def matmul_rate(
    device: jax.Device, dtype: str, *, precision: str | None = None, seconds: float = 0.1
) -> float:
    """FLOP/s of the fastest of a few square matrix products of random numbers.

    Args:
      precision: of float32 products, as jax.numpy.matmul takes it; None: as JAX is set.
      seconds: how long to repeat them. Short, since every start of a run measures again and the
        highest rate is what counts.
    """
    n = 8192
    if device.platform == "cpu":
        is_emulated = dtype == "bfloat16" and lacks_bfloat16(device)
        n = 512 if is_emulated else 1024
    rows = np.random.default_rng(0).standard_normal((n, n), np.float32)
    a = jax.device_put(jnp.asarray(rows, dtype), device)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=precision))
    return 2.0 * n**3 / _fastest(lambda _: product(a), a, device, seconds)


def copy_rate(device: jax.Device, *, seconds: float = 0.1) -> float:
    """Bytes/s of memory, those read and those written, while a large array is negated."""
    n_bytes = 2**28 if device.platform == "cpu" else 2**30
    block = np.random.default_rng(0).random(2**20, np.float32)
    blocks = jax.jit(lambda block: jnp.tile(block, n_bytes // block.nbytes))
    x = blocks(jax.device_put(block, device))
    # In place: the pages of a new array would have to be found first.
    negated = jax.jit(jnp.negative, donate_argnums=0)
    return 2.0 * n_bytes / _fastest(negated, x, device, seconds)


def _fastest(
    call: Callable[[jax.Array], jax.Array], x: jax.Array, device: jax.Device, seconds: float
) -> float:
    """Seconds of the fastest of the calls made within `seconds`, after one that compiles.

    The first gets `x`, each other what the one before returned. On a GPU several are queued before
    the last is waited for, since the wait, too, takes time.
    """
    n_queued = 1 if device.platform == "cpu" else 4
    x = call(x).block_until_ready()
    fastest, until = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        for _ in range(n_queued):
            x = call(x)
        x.block_until_ready()
        fastest = min(fastest, (time.perf_counter() - start) / n_queued)
    return fastest


def _highest_ever(path: Path, key: str, measured: float) -> float:
    """The largest rate recorded under `key`, recording this one if it is larger."""
    recorded = cache.floats(path).get(key, 0.0)
    if measured > recorded:
        cache.keep_float(path, key, measured)
    return max(measured, recorded)
