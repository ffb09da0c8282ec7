"""The functions of a run that are compiled: its start and its updates; evaluator.py has another."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import ml_collections
import numpy as np

from gptjax.config.config import GPTConfig
from gptjax.device.mesh import Layout
from gptjax.system.programs import Source
from gptjax.update import optim, step
from gptjax.update.step import TrainState


def start_source(config: ml_collections.ConfigDict, model: GPTConfig) -> Source:
    """The state before the first update, from a seed (uint32); its shapes are what it returns.

    Made on the CPU, whose last digits a GPU's differ from: a seed has one set of weights.
    """
    tx = optim.optimizer(config)

    def start(seed: jax.Array) -> TrainState:
        return step.initial_state(model, tx, seed)

    return Source(
        start,
        (jax.ShapeDtypeStruct((), np.uint32),),
        returns=jax.eval_shape(start, np.uint32(0)),
        made_of=["start", *_made_of(config, model)],
        device=jax.local_devices(backend="cpu")[0],
    )


def update_source(
    config: ml_collections.ConfigDict,
    model: GPTConfig,
    layout: Layout,
    inputs: tuple[Any, TrainState, tuple[int, int, int]],
) -> Source:
    """Up to K updates in one call: (tokens, state, offsets_KAB, n_updates) → (state, metrics_K).

    `inputs` are the first three of them, shapes or arrays, and of the offsets the axes' sizes. What
    comes back lies as what went in.
    """
    tx, block_size = optim.optimizer(config), config.model.block_size
    tokens, state, sizes_KAB = inputs[0], layout.placed(inputs[1]), inputs[2]
    offsets_KAB = jax.ShapeDtypeStruct(sizes_KAB, np.int32, sharding=layout.split_last_axis(3))
    metrics = [state.step, state.step]  # On every device, as the number of updates is.
    dropout_seed = config.seed if config.model.dropout else None

    def updates(
        tokens: jax.Array, state: TrainState, offsets_KAB: jax.Array, n_updates: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = None if dropout_seed is None else step.named_key(dropout_seed, "dropout")
        graph = step.model_graph(model)
        return step.train_steps(
            *(graph, tx, key, block_size, tokens, state, offsets_KAB, n_updates),
            over=layout.gathered,
            averaged=layout.averaged,
        )

    return Source(
        updates,
        (tokens, state, offsets_KAB, np.int32(0)),
        returns=(state, {"loss": 0, "grad_norm": 0}),
        made_of=["updates", dropout_seed, *_made_of(config, model)],
        donated=(1,),
        device=layout.device,
        out_shardings=[leaf.sharding for leaf in (*jax.tree.leaves(state), *metrics)],
    )


def _made_of(config: ml_collections.ConfigDict, model: GPTConfig) -> list[Any]:
    """All of a config that its model and its optimizer are made from, and more."""
    parts = [config[name].to_dict() for name in ("model", "optim", "train")]
    return [dataclasses.asdict(model), *parts]
