"""How much arithmetic an update is: XLA's count, with the usual formula beside it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.system import cache
from gptjax.update.step import first_state, model_graph, train_step


def update_flops(
    model: GPTConfig, params: nnx.State, *, batch_size: int, n_micro: int, folder: Path | None
) -> float:
    """`xla_flops` of a model's update, which takes a second to count: remembered in `folder`.

    Attention is counted whole, as by the formula, whichever kernel computes it: products with what
    is masked, which some leave out, are work made useless by the mask, not work that the model has
    less of.
    """
    model = dataclasses.replace(model, attention="xla", attention_rows=model.block_size)
    # What is computed twice is work that memory asks for; the body of a loop counts once.
    model = dataclasses.replace(model, remat=False, scan_layers=False)
    source = cache.source_digest()
    counted = [
        dataclasses.asdict(model),
        batch_size,
        n_micro,
        jax.__version__,
        source,
    ]
    key = hashlib.sha256(json.dumps(counted).encode()).hexdigest()
    path = folder / "flops.json" if folder and source else None
    if path and (known := cache.floats(path).get(key)):
        return known
    flops = xla_flops(
        model_graph(model),
        params,
        block_size=model.block_size,
        batch_size=batch_size,
        n_micro=n_micro,
    )
    if path:
        cache.keep_float(path, key, flops)
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
            lambda params: first_state(params, tx),
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


def compiled_flops(compiled: jax.stages.Compiled) -> float | None:
    """What XLA says of a program compiled for its device, or one of several; None if nothing.

    On record only. On a GPU products that cuBLAS and cuDNN make are left out or counted as −1, on
    every device the body of a loop counts once: `xla_flops` is what MFU is computed from.
    """
    try:
        analysis = compiled.cost_analysis()
    except jax.errors.JaxRuntimeError:
        return None
    flops = (analysis or {}).get("flops")
    return None if flops is None else float(flops)
