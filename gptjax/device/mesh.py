"""Which devices a run uses, and how its arrays are laid out over them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gptjax.config.config import GPTConfig
from gptjax.model.gpt import expected_parameters
from gptjax.system import versions
from gptjax.system.errors import UserError


def choose_devices(found: list[jax.Device], config: ml_collections.ConfigDict) -> list[jax.Device]:
    """Those of the devices found that the config's batches are split over.

    Raises:
      UserError: if there are too few of them, or the batch does not split evenly.
    """
    n_devices = config.mesh.data or len(found)
    if n_devices > len(found):
        raise UserError("mesh.data", n_devices, f"there are only {len(found)} devices")
    micro_batch = config.train.batch_size // config.train.grad_accum_steps
    if micro_batch % n_devices:
        below = micro_batch // n_devices * n_devices * config.train.grad_accum_steps
        above = below + n_devices * config.train.grad_accum_steps
        raise UserError(
            "train.batch_size",
            config.train.batch_size,
            f"a micro-batch of {micro_batch} does not split over {n_devices} devices",
            f"Use {below or above} or {above}, or --config.mesh.data=1.",
        )
    return found[:n_devices]


# NVIDIA's first architecture with bfloat16 and TF32 products, by its compute capability.
AMPERE = (8, 0)

# What JAX by itself takes of a GPU's memory when it starts.
GPU_MEMORY = 0.75


def available_devices(
    n_cpu_devices: int = 1, gpu_memory: float = GPU_MEMORY
) -> tuple[list[jax.Device], str]:
    """All devices of the backend that is to be used, and in words why that one.

    JAX_PLATFORMS picks the backend. The CPU stays reachable beside a GPU: FLOPs are counted there.
    `gpu_memory` is mesh.gpu_memory; XLA_PYTHON_CLIENT_… in the environment goes before it.

    Raises:
      UserError: if the backend asked for is not there.
    """
    if n_cpu_devices > 1:
        jax.config.update("jax_num_cpu_devices", n_cpu_devices)
    _share_memory(gpu_memory)
    asked = os.environ.get("JAX_PLATFORMS", "")
    platforms = asked.split(",") if asked else []
    if platforms and "cpu" not in platforms:
        jax.config.update("jax_platforms", ",".join([*platforms, "cpu"]))
    try:
        found = jax.devices()
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            "JAX_PLATFORMS", asked, f"no such device here ({reason})", _remedy(platforms)
        ) from error
    wanted = platforms[0] if platforms else found[0].platform
    # JAX calls CUDA and ROCm devices alike "gpu".
    if wanted != found[0].platform and not (wanted != "cpu" and found[0].platform == "gpu"):
        raise UserError(
            "JAX_PLATFORMS",
            asked,
            f"no {wanted} device here; have: {found[0].platform}",
            _remedy(platforms),
        )
    why = f"JAX_PLATFORMS={asked}" if asked else "JAX's own choice; JAX_PLATFORMS sets another"
    return found, why


def check_program_memory(needed: int, device: jax.Device) -> None:
    """Raises UserError when a compiled update of `needed` bytes cannot fit a device."""
    available = memory_bytes(device)
    if available and needed > available:
        raise UserError(
            "model",
            f"an update needs {needed / 2**30:.1f} GiB",
            f"this {device.platform} has {available / 2**30:.1f} GiB",
            "Lower --config.train.tokens_at_once or batch_size"
            + (", or raise --config.mesh.gpu_memory." if device.platform != "cpu" else "."),
        )


def _share_memory(gpu_memory: float) -> None:
    """Says to JAX, which has not started yet, how much of a GPU it may take at once."""
    names = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")
    if gpu_memory == GPU_MEMORY or any(name in os.environ for name in names):
        return
    if gpu_memory:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(gpu_memory)
    else:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"


def _remedy(platforms: list[str]) -> str:
    """What to do about a backend that is not there."""
    if "cuda" in platforms and not versions.cuda_plugins():
        return 'Use JAX_PLATFORMS=cpu, or install what CUDA needs: pip install -e ".[cuda]".'
    if "cuda" in platforms:
        return "Use JAX_PLATFORMS=cpu, or see what nvidia-smi and CUDA_VISIBLE_DEVICES show."
    return "Use JAX_PLATFORMS=cpu."


def data_mesh(devices: list[jax.Device]) -> Mesh:
    """A mesh with one axis, `data`, over which batches are split."""
    # Under jax.make_mesh's default, Explicit, Flax's Embed refuses a split batch.
    return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_last_axis(mesh: Mesh, n_axes: int) -> NamedSharding:
    """An array of `n_axes` axes whose last, the sequences of a batch, is split over devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * (n_axes - 1), "data"))


def check_memory(
    model: GPTConfig,
    device: jax.Device,
    *,
    micro_batch: int = 0,
    n_windows: int = 0,
    n_corpus_bytes: int = 0,
) -> None:
    """Raises UserError when the model cannot fit the device, before anything is made.

    Weights and AdamW's two moments are the least it takes, to train or to read a checkpoint; to
    train on `micro_batch` sequences at a time, each block's output as well, where the `n_windows`
    of a dispatch start, and the corpus. Gradients, float32 masters and what is inside the blocks
    come on top.
    """
    state = 3 * jnp.dtype(model.param_dtype).itemsize * expected_parameters(model)
    n_outputs = micro_batch * model.block_size * model.n_embd * model.n_layer
    outputs = jnp.dtype(model.dtype).itemsize * n_outputs
    available = memory_bytes(device)
    offsets = 4 * n_windows
    if not available or state + outputs + offsets + n_corpus_bytes <= available:
        return
    words = f"weights and optimizer need {state / 2**30:.1f} GiB"
    if micro_batch:
        words += f", blocks' outputs for {micro_batch} sequences {outputs / 2**30:.1f} GiB"
        words += f", a dispatch of {n_windows} windows {offsets / 2**30:.1f} GiB"
        words += f", the corpus {n_corpus_bytes / 2**30:.1f} GiB"
    raise UserError(
        "model",
        f"{expected_parameters(model):,} parameters",
        f"{words}; this {device.platform} has {available / 2**30:.1f} GiB",
        "Lower n_layer or n_embd" + (", or batch_size." if micro_batch else "."),
    )


def memory_bytes(device: jax.Device) -> int:
    """Memory of a device, or of this host for its CPU; 0 where neither tells."""
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 0))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def compute_capability(device: jax.Device) -> tuple[int, int]:
    """NVIDIA's number of a card's architecture, (9, 0) for Hopper; (0, 0) where there is none."""
    major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def peak_memory_bytes(device: jax.Device) -> int:
    """Most bytes that arrays and programs have held on a GPU so far; 0 where it does not tell."""
    return int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))


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


def n_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def lacks_bfloat16(device: jax.Device) -> bool:
    """Whether bfloat16 products are emulated on this device: Linux CPUs, NVIDIA before Ampere."""
    if device.platform != "cpu":
        return (0, 0) < compute_capability(device) < AMPERE
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "bf16" not in flags  # avx512_bf16 and amx_bf16 on x86, bf16 on Arm
