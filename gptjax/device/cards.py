"""NVIDIA's figures: what a card could do, by its name."""

from __future__ import annotations

import re

# What nanoGPT divides by whatever the device is: an A100's bfloat16 peak, FLOP/s.
A100_PEAK = 312e12

# (words of device_kind, bfloat16, TF32, float32, memory): dense tensor-core peaks in TFLOP/s, then
# GB/s. The first name that matches counts, so more specific names come first. A dash in NVIDIA's
# sheets is 0, and so is what the name does not tell.
# Sources: NVIDIA's data sheets and architecture white papers, figures with sparsity halved;
# llm.c's table for GeForce.
_CARDS: tuple[tuple[str, float, float, float, float], ...] = (
    ("V100-SXM2", 0, 0, 15.7, 900),
    ("V100-SXM3", 0, 0, 15.7, 900),
    ("V100-PCIE", 0, 0, 14.0, 900),
    ("T4", 0, 0, 8.1, 320),
    (r"A100\b.*\b40GB", 312, 156, 19.5, 1555),
    ("A100 80GB PCIe", 312, 156, 19.5, 1935),
    (r"A100\b.*\b80GB", 312, 156, 19.5, 2039),
    ("A100", 312, 156, 19.5, 0),
    ("A10", 125, 62.5, 31.2, 600),
    ("L40S", 362, 183, 91.6, 864),
    ("L4", 121, 60, 30.3, 300),
    ("RTX 3090", 71, 35.6, 35.6, 936),
    ("RTX 4070 Ti", 80.2, 40.1, 40.1, 504),
    ("RTX 4080", 97.5, 48.7, 48.7, 717),
    ("RTX 4090", 165.2, 82.6, 82.6, 1008),
    ("RTX 5090", 209.5, 104.8, 104.8, 1792),
    ("H100 PCIe", 756, 378, 51, 2000),
    ("H100 NVL", 835, 417, 60, 3900),
    ("H100", 989.4, 494.7, 66.9, 3350),
    ("H200 NVL", 836, 418, 60, 4800),
    ("GH200", 990, 495, 67, 4000),
    ("H200", 989.4, 494.7, 67, 4800),
    ("GB200", 2500, 1250, 80, 8000),
    ("B200", 2250, 1125, 80, 8000),
)

# Cards that share a name with a faster or slower one of the table.
_UNLIKE_ITS_NAMESAKE = re.compile(r"Laptop|SUPER|Max-Q|\bMIG\b")


def table_peak(device_kind: str, dtype: str, *, precision: str = "default") -> float | None:
    """Peak FLOP/s of a known device for matrix products of `dtype`, else None.

    float32 products run as TF32 on cards that have it, as JAX lets them by default, unless
    `precision` is "highest".
    """
    bfloat16, tf32, float32, _ = _card(device_kind)
    if dtype == "bfloat16":
        rate = bfloat16
    else:
        rate = float32 if precision == "highest" else tf32 or float32
    return rate * 1e12 if rate else None


def table_bandwidth(device_kind: str) -> float | None:
    """Bytes/s that a known device's memory can move, else None."""
    *_, memory = _card(device_kind)
    return memory * 1e9 if memory else None


def _card(device_kind: str) -> tuple[float, float, float, float]:
    """A row of the table without its name; zeros for a device that has none."""
    if not _UNLIKE_ITS_NAMESAKE.search(device_kind):
        for name, bfloat16, tf32, float32, memory in _CARDS:
            # Whole words only: an A10G is no A10, an L40 no L4.
            if re.search(rf"\b{name}(?![0-9A-Za-z])", device_kind):
                return bfloat16, tf32, float32, memory
    return 0, 0, 0, 0
