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
from gptjax.device import mesh
from gptjax.model import attention
from gptjax.system.errors import UserError

# cuDNN's fused attention, from Ampere on: the widest heads, before Hopper and since.
# Source: jax._src.cudnn.fused_attention_stablehlo, check_is_flash_attention.
_HOPPER = (9, 0)
_WIDEST_HEAD, _WIDEST_HEAD_ON_HOPPER = 128, 256

# Relative to the largest value: bfloat16 keeps 8 bits, and both kernels round on their way.
_BFLOAT16_TOLERANCE = 0.03


@dataclasses.dataclass(frozen=True)
class Attention:
    """The attention of updates and of evaluations, "cudnn" or "xla", and why that one.

    They differ for a model with dropout: updates drop weights out, which cuDNN's does not.
    """

    updates: str
    evaluations: str
    why: str


def choose_attention(model: GPTConfig, device: jax.Device) -> Attention:
    """What model.attention amounts to on a device.

    Raises:
      UserError: if cuDNN's is asked for and cannot be had.
    """
    if model.attention == "xla":
        return Attention("xla", "xla", "model.attention=xla")
    width = model.n_embd // model.n_head
    reason = _unsuited(model, width, device) or _trial(model.block_size, width, device)
    if not reason:
        why = "cuDNN's fused kernel was tried and agrees with XLA's"
        if model.dropout:
            return Attention("xla", "cudnn", f"{why}, but drops no attention weights out")
        return Attention("cudnn", "cudnn", why)
    if model.attention == "cudnn":
        raise UserError(
            "model.attention", "cudnn", reason, "Use --config.model.attention=auto, or xla."
        )
    return Attention("xla", "xla", reason)


def with_kernels(model: GPTConfig, device: jax.Device) -> GPTConfig:
    """A checkpoint's model with this device's kernels for evaluating, whatever trained it."""
    free = dataclasses.replace(model, attention="auto")
    return dataclasses.replace(model, attention=choose_attention(free, device).evaluations)


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
    found = mesh.compute_capability(device)
    if found < mesh.AMPERE:
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
        fused, plain = gradients(attention.fused), gradients(attention.plain)
    except Exception as error:  # Whatever it is, there is another kernel.
        return f"the fused kernel fails here ({' '.join(str(error).split())[:120]})"
    apart = np.abs(fused - plain).max() / np.abs(plain).max()
    if not apart < _BFLOAT16_TOLERANCE:  # NaN as well
        return f"the fused kernel's gradients are off by {apart:.2g} of the largest"
    return ""
