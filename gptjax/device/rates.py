"""How fast a device multiplies matrices and moves memory, beside what its data sheet says."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any

import jax
import numpy as np

from gptjax.device import cards, devices, peak
from gptjax.system import cache

# For each product; short, since the best of many repetitions is what counts.
_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Rate:
    """Something measured, beside NVIDIA's figure for the card, if it is in the table.

    `best` is the highest that was ever measured here, where that is what MFU is taken over.
    """

    what: str
    unit: str
    measured: float
    data_sheet: float | None
    best: float | None = None

    @property
    def share(self) -> float | None:
        """The part of the data sheet's figure that was reached."""
        return self.measured / self.data_sheet if self.data_sheet else None

    def to_json(self) -> dict[str, Any]:
        """All of it with the share, as JSON has it."""
        return {**dataclasses.asdict(self), "share": self.share}

    def in_words(self) -> str:
        """A line for people."""
        words = f"{self.what}: {_scaled(self.measured, self.unit)}"
        if self.share and self.data_sheet:
            sheet = _scaled(self.data_sheet, self.unit)
            words += f", {100 * self.share:.0f} % of the data sheet's {sheet}"
        if self.best:
            words += f" now, {_scaled(self.best, self.unit)} at best, which MFU is over"
        return words


def rates(device: jax.Device) -> list[Rate]:
    """How fast a device multiplies matrices, in each precision, and moves memory."""
    kind = device.device_kind
    products = [("float32", "highest", "float32"), ("bfloat16", "default", "bfloat16")]
    if has_tf32(device):
        products.insert(1, ("float32", "default", "TF32"))
    found = []
    for dtype, precision, words in products:
        rate = peak.matmul_rate(device, dtype, precision=precision, seconds=_SECONDS)
        data_sheet, best = cards.table_peak(kind, dtype, precision=precision), None
        if data_sheet is None:
            folder = cache.folder()
            best = peak.highest_ever(device, dtype, rate, precision=precision, folder=folder)
        found.append(Rate(f"matrix product, {words}", "FLOP/s", rate, data_sheet, best))
    copied, told = peak.copy_rate(device, seconds=_SECONDS), cards.table_bandwidth(kind)
    return [*found, Rate("memory, read and written", "B/s", copied, told)]


def has_tf32(device: jax.Device) -> bool:
    """Whether it multiplies float32 as TF32 unless told otherwise: NVIDIA's, from Ampere on."""
    return devices.compute_capability(device) >= devices.AMPERE


def dispatch_us(device: jax.Device) -> float:
    """Microseconds from the call of a compiled function that does next to nothing to its result."""
    x = jax.device_put(np.float32(1), device)
    add_one = jax.jit(lambda x: x + 1)
    add_one(x).block_until_ready()
    times = []
    for _ in range(200):
        start = time.perf_counter()
        add_one(x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def _scaled(value: float, unit: str) -> str:
    """As data sheets have it: 134 GFLOP/s, 3.35 TB/s."""
    prefix, scale = ("T", 1e12) if value >= 1e12 else ("G", 1e9)
    return f"{value / scale:.4g} {prefix}{unit}"
