"""What a device could do: matrix products and memory, from NVIDIA's figures or measured.

The peak is looked up by device kind and dtype; where no table can know it (CPUs, new cards) it is
measured as the highest rate of matrix products. A measurement can be too low, when the machine is
busy, but not too high: so several products are timed, again and again, and the highest counts.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.device.cards import table_peak
from gptjax.device.devices import lacks_bfloat16, n_cores
from gptjax.device.mesh import here
from gptjax.system import cache

# A product's rows, depth and columns: its FLOPs are twice their product.
Shape = tuple[int, int, int]

# How long one shape is repeated. The first start on a machine waits for one of them.
_SECONDS_EACH = 0.04

# What measuring during a run may take of its time, and how often a product is timed at most: what
# has not been reached by then will not be, and each time leaves some memory in pieces.
_SHARE_OF_RUN = 0.01
_MOST_TURNS = 3


@dataclasses.dataclass(frozen=True)
class Peak:
    """The rate that MFU is measured against, FLOP/s over all devices, and where it is from."""

    flops_per_s: float
    source: str


class PeakProbe:
    """Finds out what devices could do: at once, and better the longer a run lasts.

    Attributes:
      best: the highest Peak that is known by now.
    """

    def __init__(
        self,
        devices: list[jax.Device],
        dtype: str,
        *,
        precision: str = "default",
        shapes: Sequence[Shape] = (),
        folder: Path | None,
    ):
        """Looks the peak up, or takes the highest rate ever measured here, or times a product.

        Args:
          shapes: of the run's own products, timed when the run is under way.
          folder: where the highest rate of this machine is kept; None: nowhere.
        """
        self._devices, self._dtype = devices, dtype
        self._precision, self._folder = precision, folder
        self._spent_seconds = 0.0
        kind = devices[0].device_kind
        known = table_peak(kind, dtype, precision=precision)
        self._is_measured = known is None
        if known is not None:
            is_tf32 = dtype == "float32" and known != table_peak(kind, dtype, precision="highest")
            name = "TF32" if is_tf32 else dtype
            words = f"{len(devices)} x {kind}'s peak for {name}"
            self.best = Peak(known * len(devices), words)
            return
        first, *others = squares(here(devices), dtype)
        # A GPU's memory is the model's by then: its own products find room there.
        is_cpu = devices[0].platform == "cpu"
        self._shapes = [*shapes, first, *others] if is_cpu else list(shapes) or [first]
        self._turns = iter(self._shapes * _MOST_TURNS)
        self.best = Peak(0.0, "")
        self._take(0.0)
        if not self.best.flops_per_s:
            self._measure(first)

    def again(self, run_seconds: float) -> None:
        """Times products anew: some, or each once, as a hundredth of `run_seconds` allows."""
        if not self._is_measured:
            return
        for _ in self._shapes:
            is_due = self._spent_seconds < _SHARE_OF_RUN * run_seconds
            shape = next(self._turns, None) if is_due else None
            if shape is None:
                return
            start = time.perf_counter()
            self._measure(shape)
            self._spent_seconds += time.perf_counter() - start

    def reached(self, flops_per_s: float) -> None:
        """Corrects a peak that has been reached and passed: then it was none."""
        if flops_per_s > self.best.flops_per_s:
            self.best = Peak(flops_per_s, "the highest rate of this run's own updates")

    def _measure(self, shape: Shape) -> None:
        device = here(self._devices)  # All of a run are alike.
        self._take(matmul_rate(device, self._dtype, precision=self._precision, shapes=[shape]))

    def _take(self, measured: float) -> None:
        """Raises the best to what has been measured, now or ever."""
        device = here(self._devices)
        rate = highest_ever(
            device, self._dtype, measured, precision=self._precision, folder=self._folder
        )
        # XLA's CPU devices share the cores of a process: more of them are not more arithmetic.
        n_processes = len({device.process_index for device in self._devices})
        rate *= n_processes if device.platform == "cpu" else len(self._devices)
        if rate > self.best.flops_per_s:
            self.best = Peak(rate, f"measured {self._dtype} matmul rate of this {device.platform}")


def squares(device: jax.Device, dtype: str) -> list[Shape]:
    """Square products that keep all of a device busy, the quickest first."""
    n = 8192
    if device.platform == "cpu":
        # As much for each core whether they are 2, 16 or 128. On two a product of 512 takes a
        # millisecond: too short for other programs to disturb every one of them.
        n = 512 if n_cores() <= 2 else 1024 if n_cores() <= 16 else 2048
        if dtype == "bfloat16" and lacks_bfloat16(device):
            return [(512, 512, 512)]
        return [(n, n, n), (2 * n, 2 * n, 2 * n)]
    return [(n, n, n)]


def model_shapes(n_rows: int, width: int) -> list[Shape]:
    """A GPT's widest products: a block's MLP forwards, and the gradient of its weights.

    `n_rows` are an update's tokens; on a CPU products of more than 1,024 rows are no faster, but
    longer, so that something disturbs each of them.
    """
    n_rows, n_hidden = min(n_rows, 1024), 4 * width
    return [(n_rows, width, n_hidden), (n_rows, n_hidden, width), (width, n_rows, n_hidden)]


def highest_ever(
    device: jax.Device, dtype: str, measured: float, *, precision: str, folder: Path | None
) -> float:
    """The highest rate measured on this machine, this one included, which is kept in `folder`."""
    if folder is None:
        return measured
    key = (
        f"{device.device_kind} {cache.processor()} {n_cores()} cores {dtype} jax {jax.__version__}"
    )
    if device.platform != "cpu":
        key += f" {precision}"
    path = folder / "peaks.json"
    recorded = cache.floats(path).get(key, 0.0)
    if measured > recorded:
        cache.keep_float(path, key, measured)
    return max(measured, recorded)


def matmul_rate(
    device: jax.Device,
    dtype: str,
    *,
    precision: str | None = None,
    shapes: Sequence[Shape] = (),
    seconds: float = _SECONDS_EACH,
) -> float:
    """FLOP/s of the fastest of some matrix products of random numbers.

    Args:
      precision: of float32 products, as jax.numpy.matmul takes it; None: as JAX is set.
      shapes: of the products; none: `squares`.
      seconds: how long to repeat each.
    """
    shapes = shapes or squares(device, dtype)
    return max(_rate(device, dtype, shape, precision, seconds) for shape in shapes)


def _rate(
    device: jax.Device, dtype: str, shape: Shape, precision: str | None, seconds: float
) -> float:
    rows, depth, columns = shape
    random = np.random.default_rng(0)
    a, b = (
        jax.device_put(jnp.asarray(random.standard_normal(size, np.float32), dtype), device)
        for size in ((rows, depth), (depth, columns))
    )
    fastest = _fastest(lambda _: _product(a, b, precision), a, device, seconds)
    return 2.0 * rows * depth * columns / fastest


@functools.partial(jax.jit, static_argnums=2)
def _product(a: jax.Array, b: jax.Array, precision: str | None) -> jax.Array:
    return jnp.matmul(a, b, precision=precision)


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
