"""Which device is used, why, and how fast it is: what to look at before a slow or a failed run."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import gptjax
from gptjax.device import cards, memory, peak
from gptjax.device import devices as devices_module
from gptjax.system import cache, files, versions
from gptjax.system.command import run_script
from gptjax.system.errors import RunError
from gptjax.system.output import printable

# What JAX, XLA, CUDA and gptjax itself heed.
_HEEDED = ("CUDA_VISIBLE_DEVICES", "GPTJAX_", "JAX_", "XLA_")


def doctor(*, json: str | None) -> None:
    """Prints what is installed, which devices there are, how fast the first one is and what is set.

    Raises:
      UserError: if the backend asked for is not there, or the folder of the file `json` is not.
      RunError: if the device cannot do what is measured.
    """
    files.check_folder_of("--json", json)
    cache.keep_compiled_programs()
    devices, why = devices_module.available_devices()
    found: dict[str, Any] = {
        "versions": installed(),
        "devices": description(devices, why),
        "settings": settings(os.environ),
    }
    print(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    print(in_words(found["devices"]))
    try:
        measured, microseconds = rates(devices[0]), dispatch_us(devices[0])
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{devices[0]} could not be measured: {reason}") from error
    print_table(str(devices[0]), measured, microseconds)
    for name, value in found["settings"].items():
        print(printable(f"{name}: {'none' if value is None else value or '(empty)'}"))
    if json:
        found["rates"] = [rate.to_json() for rate in measured]
        found["dispatch_us"] = microseconds
        files.write_atomically(Path(json), files.pretty_json(found))


def installed() -> dict[str, str]:
    """Versions of the program, of Python and of the libraries that must fit together."""
    return {
        "gptjax": gptjax.__version__,
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in versions.SUPPORTED},
        **versions.cuda_plugins(),
    }


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


@dataclasses.dataclass(frozen=True)
class Rate:
    """Something measured, beside NVIDIA's figure for the card, if it is in the table."""

    what: str
    unit: str
    measured: float
    data_sheet: float | None

    @property
    def share(self) -> float | None:
        """The part of the data sheet's figure that was reached."""
        return self.measured / self.data_sheet if self.data_sheet else None

    def to_json(self) -> dict[str, Any]:
        """All of it with the share, as JSON has it."""
        return {**dataclasses.asdict(self), "share": self.share}

    def in_words(self) -> tuple[str, str, str, str]:
        """A row of a table."""
        return (
            self.what,
            _scaled(self.measured, self.unit),
            _scaled(self.data_sheet, self.unit) if self.data_sheet else "",
            f"{100 * self.share:.0f} %" if self.share else "",
        )


def rates(device: jax.Device) -> list[Rate]:
    """How fast a device multiplies matrices, in each precision, and moves memory."""
    kind = device.device_kind
    products = [("float32", "highest", "float32"), ("bfloat16", "default", "bfloat16")]
    if has_tf32(device):
        products.insert(1, ("float32", "default", "TF32"))
    seconds = 0.3
    return [
        Rate(
            f"matrix product, {words}",
            "FLOP/s",
            peak.matmul_rate(device, dtype, precision=precision, seconds=seconds),
            cards.table_peak(kind, dtype, precision=precision),
        )
        for dtype, precision, words in products
    ] + [
        Rate(
            "memory, read and written",
            "B/s",
            peak.copy_rate(device, seconds=seconds),
            cards.table_bandwidth(kind),
        )
    ]


def has_tf32(device: jax.Device) -> bool:
    """Whether it multiplies float32 as TF32 unless told otherwise: NVIDIA's, from Ampere on."""
    return devices_module.compute_capability(device) >= devices_module.AMPERE


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


def print_table(device: str, measured: list[Rate], dispatch_us: float) -> None:
    """Prints what was measured."""
    table = Table(device, "measured", "data sheet", "share")
    for rate in measured:
        table.add_row(*rate.in_words())
    table.add_row("a call that does nothing", f"{dispatch_us:.1f} µs")
    Console(highlight=False).print(table)


def _scaled(value: float, unit: str) -> str:
    """As data sheets have it: 134 GFLOP/s, 3.35 TB/s."""
    prefix, scale = ("T", 1e12) if value >= 1e12 else ("G", 1e9)
    return f"{value / scale:.4g} {prefix}{unit}"


def settings(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Where things are kept between runs, None for nowhere, and the variables that change a run."""
    kept = cache.folder()
    return {
        "cache": str(kept) if kept else None,
        # As `keep_compiled_programs` has set it, or who runs the command.
        "compiled programs": jax.config.values["jax_compilation_cache_dir"],
        "data": environment.get("GPTJAX_DATA_DIR"),
        **{name: environment[name] for name in sorted(environment) if name.startswith(_HEEDED)},
    }


if __name__ == "__main__":
    run_script(__file__)
