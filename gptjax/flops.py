"""How much arithmetic an update is, how fast the device could do it, and so how busy it was.

FLOPs of an update come from XLA's cost analysis of the reference step, with the usual formula
beside it. The peak is looked up by device kind and dtype; where no table can know it (CPUs, new
cards) it is measured as the rate of a large matrix product.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from gptjax import cache
from gptjax.config import GPTConfig
from gptjax.mesh import n_cores
from gptjax.step import TrainState, model_graph, train_step

# What nanoGPT divides by whatever the device is: an A100's bfloat16 peak, FLOP/s.
A100_PEAK = 312e12

# (a word of device_kind, bfloat16, TF32, float32): dense tensor-core peaks in TFLOP/s. The first
# name that matches counts, so more specific names come first. A dash in NVIDIA's sheets is 0.
# Sources: NVIDIA's data sheets and architecture white papers, figures with sparsity halved;
# llm.c's table for GeForce.
_PEAK_TFLOPS = (
    ("V100-SXM2", 0, 0, 15.7),
    ("V100-SXM3", 0, 0, 15.7),
    ("V100-PCIE", 0, 0, 14.0),
    ("T4", 0, 0, 8.1),
    ("A100", 312, 156, 19.5),
    ("A10", 125, 62.5, 31.2),
    ("L40S", 362, 183, 91.6),
    ("L4", 121, 60, 30.3),
    ("RTX 3090", 71, 35.6, 35.6),
    ("RTX 4070 Ti", 80.2, 40.1, 40.1),
    ("RTX 4080", 97.5, 48.7, 48.7),
    ("RTX 4090", 165.2, 82.6, 82.6),
    ("RTX 5090", 209.5, 104.8, 104.8),
    ("H100 PCIe", 756, 378, 51),
    ("H100 NVL", 835, 417, 60),
    ("H100", 989.4, 494.7, 66.9),
    ("H200 NVL", 836, 418, 60),
    ("GH200", 990, 495, 67),
    ("H200", 989.4, 494.7, 67),
    ("GB200", 2500, 1250, 80),
    ("B200", 2250, 1125, 80),
)

# Cards that share a name with a faster or slower one of the table.
_UNLIKE_ITS_NAMESAKE = re.compile(r"Laptop|SUPER|Max-Q|\bMIG\b")


@dataclasses.dataclass(frozen=True)
class Peak:
    """The rate that MFU is measured against, FLOP/s over all devices, and where it is from."""

    flops_per_s: float
    source: str


def formula_flops(config: GPTConfig, n_params: int, n_tokens: int) -> float:
    """FLOPs of one update on `n_tokens` tokens: (6N + 12·L·H·Q·T) each, forward and backward.

    Source: Chowdhery et al. 2022, PaLM, appendix B; N excludes position embeddings as in nanoGPT.
    """
    attention = 12 * config.n_layer * config.n_embd * config.block_size
    return float((6 * n_params + attention) * n_tokens)


def update_flops(
    model: GPTConfig, params: nnx.State, *, batch_size: int, n_micro: int, folder: Path | None
) -> float:
    """`xla_flops` of a model's update, which takes a second to count: remembered in `folder`.

    Attention is counted whole, as by the formula: products with what is masked, which its rows
    leave out, are work made useless by the mask, not work that the model has less of.
    """
    model = dataclasses.replace(model, attention_rows=model.block_size)
    counted = [dataclasses.asdict(model), batch_size, n_micro, jax.__version__, cache.program()]
    key = hashlib.sha256(json.dumps(counted).encode()).hexdigest()
    path = folder / "flops.json" if folder else None
    if path and (known := cache.numbers(path).get(key)):
        return known
    flops = xla_flops(
        model_graph(model),
        params,
        block_size=model.block_size,
        batch_size=batch_size,
        n_micro=n_micro,
    )
    if path:
        cache.keep_number(path, key, flops)
    return flops


def xla_flops(
    graph: nnx.GraphDef, params: nnx.State, *, block_size: int, batch_size: int, n_micro: int
) -> float:
    """FLOPs of one update as XLA counts them in the reference step; nothing is compiled or run.

    The reference is the step unrolled, with AdamW, on the CPU backend: there XLA sees every
    operation, where on a GPU library calls are not counted. An optimizer that multiplies matrices
    of its own, as Muon does, gets no credit for them. One micro-batch is counted and multiplied,
    since XLA counts the body of a loop once.
    """
    tx = optax.adamw(1e-3)
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        state = jax.eval_shape(
            lambda params: TrainState(jnp.zeros((), jnp.int32), params, tx.init(params)),
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params),
        )
        x_ABT = jax.ShapeDtypeStruct((1, batch_size // n_micro, block_size), jnp.int32)
        lowered = jax.jit(lambda *inputs: train_step(graph, tx, None, *inputs)).lower(
            state, x_ABT, x_ABT
        )
    analysis = lowered.cost_analysis()
    if not analysis or analysis.get("flops", 0.0) <= 0:
        raise RuntimeError("XLA's cost analysis gives no FLOPs for the reference step")
    return float(analysis["flops"]) * n_micro


def table_peak(device_kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of a known device for matrix products of `dtype`, else None.

    float32 products run as TF32 on cards that have it, as JAX lets them by default.
    """
    if _UNLIKE_ITS_NAMESAKE.search(device_kind):
        return None
    for name, bfloat16, tf32, float32 in _PEAK_TFLOPS:
        # Whole words only: an A10G is no A10, an L40 no L4.
        if re.search(rf"\b{name}(?![0-9A-Za-z])", device_kind):
            rate = bfloat16 if dtype == "bfloat16" else tf32 or float32
            return rate * 1e12 if rate else None
    return None


def peak(devices: list[jax.Device], dtype: str, *, folder: Path | None) -> Peak:
    """What the devices together could do: the table's figure, else a measured one.

    The highest rate ever measured on this machine is kept in `folder` (None: nowhere), since
    a measurement can be too low, when the machine is busy, but not too high.
    """
    kind = devices[0].device_kind
    known = table_peak(kind, dtype)
    if known is not None:
        return Peak(known * len(devices), f"{len(devices)} x {kind}'s peak for {dtype}")
    measured = _measured_peak(devices[0], dtype)
    # XLA's CPU devices share the same cores: more of them are not more arithmetic.
    count = 1 if devices[0].platform == "cpu" else len(devices)
    if folder is not None:
        key = f"{kind} {cache.processor()} {n_cores()} cores {dtype} jax {jax.__version__}"
        measured = _highest_ever(folder / "peaks.json", key, measured)
    return Peak(measured * count, f"measured {dtype} matmul rate of this {devices[0].platform}")


def _measured_peak(device: jax.Device, dtype: str) -> float:
    """FLOP/s of the fastest of a few square matrix products, about a tenth of a second in all.

    Short, since every start measures again and the highest rate is what counts.
    """
    n = 1024 if device.platform == "cpu" else 8192
    rows = np.random.default_rng(0).normal(size=(n, n)).astype(np.float32)
    a = jax.device_put(jnp.asarray(rows, dtype), device)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    fastest, until = float("inf"), time.perf_counter() + 0.1
    while time.perf_counter() < until:
        start = time.perf_counter()
        product(a).block_until_ready()
        fastest = min(fastest, time.perf_counter() - start)
    return 2.0 * n**3 / fastest


def _highest_ever(path: Path, key: str, measured: float) -> float:
    """The largest rate recorded under `key`, recording this one if it is larger."""
    recorded = cache.numbers(path).get(key, 0.0)
    if measured > recorded:
        cache.keep_number(path, key, measured)
    return max(measured, recorded)
