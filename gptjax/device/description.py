"""What the devices tell of themselves and of their host."""

from __future__ import annotations

from typing import Any

import jax

from gptjax.device import devices as devices_module
from gptjax.device import memory
from gptjax.system import cache


def description(devices: list[jax.Device], why: str) -> dict[str, Any]:
    """What the devices tell of themselves; None or 0 where they do not."""
    device = devices[0]
    is_cpu = device.platform == "cpu"
    return {
        **devices_module.machine(devices),
        "why": why,
        "processor": cache.processor(),
        "compute_capability": getattr(device, "compute_capability", None),
        "memory_bytes": memory.memory_bytes(device),
        # Of a GPU, the runtime's: "PJRT C API cuda 13000".
        "runtime": None if is_cpu else " ".join(device.client.platform_version.split()),
        "cpu_is_reachable": is_cpu or _is_cpu_reachable(),
    }


def _is_cpu_reachable() -> bool:
    try:
        return bool(jax.devices("cpu"))
    except RuntimeError:
        return False


def in_words(devices: dict[str, Any]) -> str:
    """Two lines of text on devices, from their `description`."""
    parts = [f"host {devices['processor']} with {devices['host_cores']} cores"]
    if devices["memory_bytes"]:
        parts.insert(0, f"{devices['memory_bytes'] / 2**30:.1f} GiB of memory")
    if devices["compute_capability"]:
        parts.insert(0, f"compute capability {devices['compute_capability']}")
    if devices["runtime"]:
        parts.append(devices["runtime"])
    if not devices["cpu_is_reachable"]:
        parts.append("no CPU backend beside it, where FLOPs are counted")
    elif devices["platform"] != "cpu":
        parts.append("the CPU backend beside it is there")
    names = f"{devices['n_devices']} x {devices['platform']} ({devices['device']})"
    return f"{names}: {devices['why']}\n{', '.join(parts)}"
