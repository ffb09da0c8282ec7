"""NVIDIA's figures: what a card could do, by its name."""

from __future__ import annotations

import re

# What nanoGPT divides by whatever the device is: an A100's bfloat16 peak, FLOP/s.
A100_PEAK = 312e12

# (words of device_kind, bfloat16, TF32, float32, bandwidth, memory): dense tensor-core peaks in
# TFLOP/s, then GB/s and GB. The first name that matches counts, so more specific names come first.
# A dash in NVIDIA's sheets is 0, and so is what the name does not tell.
# Sources: NVIDIA's data sheets and architecture white papers, figures with sparsity halved;
# llm.c's table for GeForce.
_CARDS: tuple[tuple[str, float, float, float, float, int], ...] = (
    ("V100-SXM2", 0, 0, 15.7, 900, 0),
    ("V100-SXM3", 0, 0, 15.7, 900, 32),
    ("V100-PCIE", 0, 0, 14.0, 900, 0),
    ("T4", 0, 0, 8.1, 320, 16),
    (r"A100\b.*\b40GB", 312, 156, 19.5, 1555, 40),
    ("A100 80GB PCIe", 312, 156, 19.5, 1935, 80),
    (r"A100\b.*\b80GB", 312, 156, 19.5, 2039, 80),
    ("A100", 312, 156, 19.5, 0, 0),
    ("A10", 125, 62.5, 31.2, 600, 24),
    ("L40S", 362, 183, 91.6, 864, 48),
    ("L4", 121, 60, 30.3, 300, 24),
    ("RTX 3090", 71, 35.6, 35.6, 936, 24),
    ("RTX 4070 Ti", 80.2, 40.1, 40.1, 504, 12),
    ("RTX 4080", 97.5, 48.7, 48.7, 717, 16),
    ("RTX 4090", 165.2, 82.6, 82.6, 1008, 24),
    ("RTX 5090", 209.5, 104.8, 104.8, 1792, 32),
    ("H100 PCIe", 756, 378, 51, 2000, 80),
    ("H100 NVL", 835, 417, 60, 3900, 94),
    ("H100", 989.4, 494.7, 66.9, 3350, 80),
    ("H200 NVL", 836, 418, 60, 4800, 141),
    ("GH200", 990, 495, 67, 4000, 0),
    ("H200", 989.4, 494.7, 67, 4800, 141),
    ("GB200", 2500, 1250, 80, 8000, 186),
    ("B200", 2250, 1125, 80, 8000, 180),
)

# Cards that share a name with a faster or slower one of the table.
_UNLIKE_ITS_NAMESAKE = re.compile(r"Laptop|SUPER|Max-Q|\bMIG\b")


def table_peak(device_kind: str, dtype: str, *, precision: str = "default") -> float | None:
    """Peak FLOP/s of a known device for matrix products of `dtype`, else None.

    float32 products run as TF32 on cards that have it, as JAX lets them by default, unless
    `precision` is "highest".
    """
    bfloat16, tf32, float32, *_ = _card(device_kind)
    if dtype == "bfloat16":
        rate = bfloat16
    else:
        rate = float32 if precision == "highest" else tf32 or float32
    return rate * 1e12 if rate else None


def table_bandwidth(device_kind: str) -> float | None:
    """Bytes/s that a known device's memory can move, else None."""
    *_, bandwidth, _ = _card(device_kind)
    return bandwidth * 1e9 if bandwidth else None


def table_memory(device_kind: str) -> int | None:
    """Bytes of a known device's memory, else None. The sheets' GB are powers of two, roughly."""
    *_, memory = _card(device_kind)
    return int(memory) * 2**30 or None


def known_cards() -> list[str]:
    """The names of the table, as they can be asked for."""
    return [name.replace(r"\b.*\b", " ") for name, *_ in _CARDS]


def _card(device_kind: str) -> tuple[float, float, float, float, float]:
    """A row of the table without its name; zeros for a device that has none."""
    if not _UNLIKE_ITS_NAMESAKE.search(device_kind):
        for name, *figures in _CARDS:
            # Whole words only: an A10G is no A10, an L40 no L4.
            if re.search(rf"\b{name}(?![0-9A-Za-z])", device_kind):
                bfloat16, tf32, float32, bandwidth, memory = figures
                return bfloat16, tf32, float32, bandwidth, memory
    return 0, 0, 0, 0, 0
