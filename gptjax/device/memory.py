"""What fits a device: its memory, and how much of an update it computes at once."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import ml_collections

from gptjax.config.config import GPTConfig
from gptjax.model.followers import counted_bytes
from gptjax.model.gpt import expected_parameters
from gptjax.system.errors import UserError

# What a block makes of more tokens than that leaves the processor's cache before the next operation
# reads it: nanoGPT's 16,384 tokens of width 384 take 1.8 times as long at once.
_CPU_TOKENS_PER_MICRO_BATCH = 2048


def micro_batches(config: ml_collections.ConfigDict, platform: str, n_devices: int) -> int:
    """Micro-batches an update is computed in: train.grad_accum_steps, each cut to what is quick.

    The update is the same but for rounding, and for dropout, whose masks are drawn for each.
    """
    train = config.train
    n_sequences = train.batch_size // train.grad_accum_steps
    most_tokens = train.tokens_at_once
    if not most_tokens:
        most_tokens = _CPU_TOKENS_PER_MICRO_BATCH if platform == "cpu" else 2**31
    most = min(n_sequences, most_tokens * n_devices // config.model.block_size)
    fitting = (
        size
        for size in range(most, n_devices, -1)
        if n_sequences % size == 0 and size % n_devices == 0
    )
    return train.batch_size // next(fitting, n_devices)


def check_memory(
    model: GPTConfig,
    device: jax.Device,
    *,
    n_fsdp: int = 1,
    micro_batch: int = 0,
    n_windows: int = 0,
    n_corpus_bytes: int = 0,
) -> None:
    """Raises UserError when the model cannot fit the device, before anything is made.

    Weights and AdamW's two moments, split over `n_fsdp` devices, and tables are the least it takes,
    to train or to read a checkpoint; to train on `micro_batch` sequences at a time, each block's
    output as well, where the `n_windows` of a dispatch start, and the corpus. Gradients, float32
    masters and what is inside the blocks come on top.
    """
    state = 3 * jnp.dtype(model.param_dtype).itemsize * expected_parameters(model)
    state += counted_bytes(model)
    if device.platform != "cpu":  # The devices of a CPU share its memory.
        state = state // n_fsdp
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


def memory_bytes(device: jax.Device) -> int:
    """Memory of a device, or of this host for its CPU; 0 where neither tells."""
    if device.platform != "cpu":
        return int((device.memory_stats() or {}).get("bytes_limit", 0))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def peak_memory_bytes(device: jax.Device) -> int:
    """Most bytes that arrays and programs have held on a GPU so far; 0 where it does not tell."""
    return int((device.memory_stats() or {}).get("peak_bytes_in_use", 0))
