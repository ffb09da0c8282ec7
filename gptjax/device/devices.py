"""Which devices a run uses and why, and what kind of device they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections

from gptjax.system import versions
from gptjax.system.cache import n_cores
from gptjax.system.errors import UserError

# NVIDIA's first architecture with bfloat16 and TF32 products, by its compute capability.
AMPERE = (8, 0)

# What JAX by itself takes of a GPU's memory when it starts.
GPU_MEMORY = 0.75
_MEMORY_VARIABLES = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_SET_BY_USERS = (*_MEMORY_VARIABLES, "XLA_CLIENT_MEM_FRACTION")


# JAX's settings that must be as they are by default, and why.
_SETTINGS: dict[str, tuple[object, str]] = {
    "jax_disable_jit": (False, "gptjax compiles what it computes"),
    "jax_threefry_partitionable": (True, "a seed would draw other numbers"),
    "jax_numpy_dtype_promotion": ("standard", "gptjax leaves types to JAX's promotion"),
    "jax_transfer_guard": ("allow", "gptjax leaves transfers to JAX"),
}


def available_devices(
    n_cpu_devices: int = 1, gpu_memory: float = GPU_MEMORY
) -> tuple[list[jax.Device], str]:
    """All devices of the backend that is to be used, and in words why that one.

    JAX_PLATFORMS picks the backend. The CPU stays reachable beside a GPU: FLOPs are counted there.
    `gpu_memory` is mesh.gpu_memory; XLA_PYTHON_CLIENT_… in the environment goes before it.

    Raises:
      UserError: if the backend asked for is not there.
    """
    _check_settings()
    if n_cpu_devices > 1:
        jax.config.update("jax_num_cpu_devices", n_cpu_devices)
    asked = os.environ.get("JAX_PLATFORMS", "")
    platforms = asked.split(",") if asked else []
    # JAX looks at the variable's older name where the newer is not set.
    older = "" if asked else os.environ.get("JAX_PLATFORM_NAME", "")
    variable = "JAX_PLATFORM_NAME" if older else "JAX_PLATFORMS"
    if platforms and "cpu" not in platforms:
        jax.config.update("jax_platforms", ",".join([*platforms, "cpu"]))
    try:
        with _memory_shared(gpu_memory):
            found = jax.devices()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            variable, asked or older, f"no such device here ({reason})", _remedy(platforms)
        ) from error
    wanted = platforms[0] if platforms else found[0].platform
    # JAX calls CUDA and ROCm devices alike "gpu".
    if wanted != found[0].platform and not (wanted != "cpu" and found[0].platform == "gpu"):
        raise UserError(
            variable,
            asked,
            f"no {wanted} device here; have: {found[0].platform}",
            _remedy(platforms),
        )
    why = "JAX's own choice; JAX_PLATFORMS sets another"
    return found, f"{variable}={asked or older}" if asked or older else why


def _check_settings() -> None:
    """Raises UserError for one of JAX's own settings that gptjax does not work, or computes, with.

    They are set in the environment, to look for bugs in other programs.
    """
    for name, (fitting, why) in _SETTINGS.items():
        value = jax.config.values.get(name, fitting)
        if value not in (fitting, None):
            raise UserError(name.upper(), os.environ.get(name.upper(), value), why, "Unset it.")


def choose_devices(found: list[jax.Device], config: ml_collections.ConfigDict) -> list[jax.Device]:
    """Those of the devices found that the config's batches are split over: data x fsdp of them.

    Raises:
      UserError: if there are too few of them, or the batch does not split evenly.
    """
    n_found, n_fsdp = len(found), config.mesh.fsdp
    if n_fsdp > n_found:
        raise UserError("mesh.fsdp", n_fsdp, f"there are only {n_found} devices")
    if not config.mesh.data and n_found % n_fsdp:
        raise UserError(
            "mesh.fsdp",
            n_fsdp,
            f"does not divide the {n_found} devices",
            f"Set --config.mesh.data={n_found // n_fsdp} to use {n_found // n_fsdp * n_fsdp}.",
        )
    n_devices = (config.mesh.data or n_found // n_fsdp) * n_fsdp
    if n_devices > n_found:
        times = f"times mesh.fsdp {n_fsdp} is {n_devices}, and " if n_fsdp > 1 else ""
        raise UserError("mesh.data", config.mesh.data, f"{times}there are only {n_found} devices")
    if n_devices < n_found and jax.process_count() > 1:
        words = f"{n_devices} of {n_found} devices; a run of several processes takes all of theirs"
        raise UserError("mesh.data", config.mesh.data, words, "Leave mesh.data at 0.")
    micro_batch = config.train.batch_size // config.train.grad_accum_steps
    if micro_batch % n_devices:
        below = micro_batch // n_devices * n_devices * config.train.grad_accum_steps
        above = below + n_devices * config.train.grad_accum_steps
        raise UserError(
            "train.batch_size",
            config.train.batch_size,
            f"a micro-batch of {micro_batch} does not split over {n_devices} devices",
            "Use "
            + (f"{below} or " if below else "")
            + f"{above}, or --config.mesh.data=1"
            + (" --config.mesh.fsdp=1." if n_fsdp > 1 else "."),
        )
    return found[:n_devices]


@contextlib.contextmanager
def _memory_shared(gpu_memory: float) -> Iterator[None]:
    """While inside, JAX, if it starts, takes so much of a GPU's memory at once.

    It reads that from the environment, which processes started later are to find as it was.
    """
    variables = {}
    if gpu_memory != GPU_MEMORY and not any(name in os.environ for name in _SET_BY_USERS):
        preallocate, fraction = _MEMORY_VARIABLES
        variables = {fraction: str(gpu_memory)} if gpu_memory else {preallocate: "false"}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def _remedy(platforms: list[str]) -> str:
    """What to do about a backend that is not there."""
    asks_for_cuda = "cuda" in platforms or "gpu" in platforms
    if asks_for_cuda and not versions.cuda_plugins():
        return 'Use JAX_PLATFORMS=cpu, or install what CUDA needs: pip install -e ".[cuda]".'
    if asks_for_cuda:
        return "Use JAX_PLATFORMS=cpu, or see what nvidia-smi and CUDA_VISIBLE_DEVICES show."
    return "Use JAX_PLATFORMS=cpu."


def machine(devices: list[jax.Device]) -> dict[str, Any]:
    """What the last digits of a result can depend on, beside the software.

    XLA splits sums on the CPU over as many threads as there are cores.
    """
    return {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "n_devices": len(devices),
        "host_cores": n_cores(),
    }


def compute_capability(device: jax.Device) -> tuple[int, int]:
    """NVIDIA's number of a card's architecture, (9, 0) for Hopper; (0, 0) where there is none."""
    major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def lacks_bfloat16(device: jax.Device) -> bool:
    """Whether bfloat16 products are emulated on this device: Linux CPUs, NVIDIA before Ampere."""
    if device.platform != "cpu":
        return (0, 0) < compute_capability(device) < AMPERE
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "bf16" not in flags  # avx512_bf16 and amx_bf16 on x86, bf16 on Arm
