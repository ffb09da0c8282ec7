"""Which kernels of a device a run computes with: looked at, tried once, and said.

A fused kernel is fast where it works; where it does not, JAX stops with an error of its own in the
middle of a compilation, or, with some versions of CUDA and cuDNN, computes something else.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gptjax.config.config import GPTConfig
from gptjax.device import devices
from gptjax.model import attention
from gptjax.system.errors import UserError

# cuDNN's fused attention, from Ampere on: the widest heads, before Hopper and since.
# Source: jax._src.cudnn.fused_attention_stablehlo, check_is_flash_attention.
_HOPPER = (9, 0)
_WIDEST_HEAD, _WIDEST_HEAD_ON_HOPPER = 128, 256

# Measured on a CPU at contexts 64 to 256: fewer rows are more, smaller operations, more rows are
# more products of what is masked, and scores that leave the processor's cache.
_CPU_ROWS = 64

# Relative to the largest value: bfloat16 keeps 8 bits, and both kernels round on their way.
_BFLOAT16_TOLERANCE = 0.03


@dataclasses.dataclass(frozen=True)
class AttentionChoice:
    """The attention of updates and of evaluations, "cudnn" or "xla", and why that one.

    They differ for a model with dropout: updates drop weights out, which cuDNN's does not.
    """

    updates: str
    evaluations: str
    why: str


def choose_attention(model: GPTConfig, device: jax.Device) -> AttentionChoice:
    """What model.attention amounts to on a device.

    Raises:
      UserError: if cuDNN's is asked for and cannot be had.
    """
    if model.attention == "xla":
        return AttentionChoice("xla", "xla", "model.attention=xla")
    width = model.n_embd // model.n_head
    reason = _unsuited(model, width, device) or _trial(model.block_size, width, device)
    if not reason:
        why = "cuDNN's fused kernel was tried and agrees with XLA's"
        if model.dropout:
            return AttentionChoice("xla", "cudnn", f"{why}, but drops no attention weights out")
        return AttentionChoice("cudnn", "cudnn", why)
    if model.attention == "cudnn":
        raise UserError(
            "model.attention", "cudnn", reason, "Use --config.model.attention=auto, or xla."
        )
    return AttentionChoice("xla", "xla", reason)


def with_attention(
    model: GPTConfig, kernel: str, device: jax.Device, *, n_tokens: int = 0
) -> GPTConfig:
    """The model as it is built for a device: by which kernel it attends, how many queries at once.

    On a GPU one kernel for all is faster than several. `n_tokens` are those of a sequence, 0:
    block_size.
    """
    n_rows = model.attention_rows
    if not n_rows:
        n_tokens = n_tokens or model.block_size
        n_rows = n_tokens if device.platform != "cpu" else min(_CPU_ROWS, -(-n_tokens // 2))
    return dataclasses.replace(model, attention=kernel, attention_rows=n_rows)


def for_evaluation(model: GPTConfig, device: jax.Device, *, n_tokens: int = 0) -> GPTConfig:
    """A checkpoint's model as this device evaluates it best, whatever trained it."""
    free = dataclasses.replace(model, attention="auto")
    kernel = choose_attention(free, device).evaluations
    return with_attention(model, kernel, device, n_tokens=n_tokens)


def matmul_precision(model: GPTConfig) -> contextlib.AbstractContextManager[None]:
    """A context in which float32 products are traced as model.matmul_precision says."""
    if model.matmul_precision == "default":
        return contextlib.nullcontext()
    return jax.default_matmul_precision(model.matmul_precision)


def _unsuited(model: GPTConfig, width: int, device: jax.Device) -> str:
    """Why the fused kernel does not come into question; "" where it does."""
    if device.platform == "cpu":
        return "a CPU has no fused kernel"
    if model.dtype != "bfloat16":
        return f"the fused kernel takes bfloat16, not {model.dtype}"
    found = devices.compute_capability(device)
    if found < devices.AMPERE:
        return f"the fused kernel needs compute capability 8.0, this card has {found[0]}.{found[1]}"
    widest = _WIDEST_HEAD_ON_HOPPER if found >= _HOPPER else _WIDEST_HEAD
    if width % 8 or width > widest:
        return f"the fused kernel takes heads of 8, 16, … {widest}, not {width}, channels"
    return ""


@functools.cache
def _trial(n_tokens: int, width: int, device: jax.Device) -> str:
    """What goes wrong in a trial of the fused kernel and its gradient; "" if nothing does."""
    rng = np.random.default_rng(0)
    shape = (4, 1, 2, n_tokens, width)  # queries, keys, values and what follows; BHTK
    parts = jax.device_put(jnp.asarray(rng.normal(size=shape), jnp.bfloat16), device)
    temperature = width**0.5

    def gradients(attend):
        def total(parts):
            gathered = attend(*parts[:3], temperature=temperature)
            return (gathered * parts[3]).astype(jnp.float32).sum()

        return np.asarray(jax.jit(jax.value_and_grad(total))(parts)[1][:3], np.float32)

    try:
        cudnn, xla = gradients(attention.cudnn_attention), gradients(attention.xla_attention)
    except Exception as error:  # Whatever it is, there is another kernel.
        return f"the fused kernel fails here ({' '.join(str(error).split())[:120]})"
    apart = np.abs(cudnn - xla).max() / np.abs(xla).max()
    if not apart < _BFLOAT16_TOLERANCE:  # NaN as well
        return f"the fused kernel's gradients are off by {apart:.2g} of the largest"
    return ""
