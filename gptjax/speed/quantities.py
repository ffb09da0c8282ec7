"""Large and small quantities, in words."""

from __future__ import annotations

from gptjax.run.progress import duration


def size(n_bytes: float) -> str:
    """Bytes as a person says them: "9.6 MiB", "21.3 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:,.3g} TiB" if n_bytes < 1000 else f"{n_bytes:,.0f} TiB"


def long_duration(seconds: float) -> str:
    """As `duration`, with days where there are some."""
    if seconds < 2 * 86_400:
        return duration(seconds)
    return f"{seconds / 86_400:,.1f} days"


def short_duration(seconds: float) -> str:
    """As `long_duration`, with fractions of less than 100 s."""
    if seconds >= 100:
        return long_duration(seconds)
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def flops_words(value: float) -> str:
    """So many floating-point operations: "4.046 GFLOP"."""
    for limit, unit in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if value >= limit:
            return f"{value / limit:,.4g} {unit}"
    return f"{value / 1e6:.4g} MFLOP"


def ratio(value: float) -> str:
    """A number of times: "1.53", "2,371"."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"
