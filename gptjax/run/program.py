"""One experiment, compiled for its devices: the update, the evaluation and what an update costs."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import ml_collections
import numpy as np

from gptjax.config.config import GPTConfig, micro_batches
from gptjax.data import batches
from gptjax.data.corpus import Splits
from gptjax.device import flops, kernels, mesh
from gptjax.evaluate import Evaluator, Loss, mean_loss, tokens_at_once
from gptjax.model.gpt import n_parameters
from gptjax.system import cache
from gptjax.update import optim, step

# One dispatch makes at most so many updates.
_MOST_UPDATES = 1000

# Random evaluation batches are numbered from here on, beyond any training batch.
_FIRST_EVAL_BATCH = 2**62


def n_slots(config: ml_collections.ConfigDict) -> int:
    """Most updates in one dispatch."""
    return config.train.updates_per_dispatch or _MOST_UPDATES


class Program:
    """The compiled functions of a config and the data they run on.

    Attributes:
      state: the TrainState on the devices; `train` replaces it.
      n_slots: most updates in one call of `train`.
      n_params: weights without position embeddings.
      n_micro: micro-batches in an update.
      n_tokens: tokens in an update.
      attention: by which kernels, and why.
      flops, formula_flops: an update's, as XLA counts them and by the formula.
      peak: what MFU is measured against.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model_config: GPTConfig,
        splits: Splits,
        devices: list[jax.Device],
        state: step.TrainState | None,
    ):
        """Compiles the update, going on from `state` (on the host) or from initial weights."""
        self._config = config
        self._lengths = {"train": len(splits.train), "val": len(splits.val)}
        data_mesh = mesh.data_mesh(devices)
        everywhere = mesh.replicated(data_mesh)
        # One array for both splits, val behind train: one compiled evaluation serves both.
        self._tokens = jax.device_put(np.concatenate([splits.train, splits.val]), everywhere)
        self.attention = kernels.choose_attention(model_config, devices[0])
        # Where dropout is on, the model attends by XLA's whatever it is told.
        model_config = dataclasses.replace(model_config, attention=self.attention.evaluations)
        graph, tx = step.model_graph(model_config), optim.optimizer(config)
        if state is None:
            # On the CPU, whose last digits a GPU's differ from: a seed has one set of weights.
            make = functools.partial(step.initial_state, model_config, tx, config.seed)
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                state = jax.jit(make)()
        self.state = jax.device_put(state, everywhere)
        dropout_key = step.named_key(config.seed, "dropout") if config.model.dropout else None
        self.n_slots = n_slots(config)
        self.n_micro = micro_batches(config, devices[0].platform, len(devices))
        size = config.train.batch_size // self.n_micro
        self._offsets_shape = (self.n_slots, self.n_micro, size)
        self._offsets_sharding = mesh.split_last_axis(data_mesh, len(self._offsets_shape))
        offsets_KAB = jax.ShapeDtypeStruct(
            self._offsets_shape, np.int32, sharding=self._offsets_sharding
        )
        train_steps = jax.jit(
            functools.partial(step.train_steps, graph, tx, dropout_key, config.model.block_size),
            donate_argnums=1,
            out_shardings=everywhere,
        )
        self._evaluator = Evaluator(
            graph,
            config.model.block_size,
            tokens_at_once=tokens_at_once(model_config, devices[0].platform),
        )
        with kernels.matmul_precision(model_config):
            lowered = train_steps.lower(self._tokens, self.state, offsets_KAB, np.int32(0))
            self._train_steps = lowered.compile()
            mesh.check_program_memory(self.memory_bytes(), devices[0])
            n_windows = len(self._eval_offsets(step=0))
            self._evaluator.compile(self.state.params, self._tokens, n_windows)
        self.n_params = n_parameters(self.state.params)
        self.n_tokens = config.train.batch_size * config.model.block_size
        self.formula_flops = flops.formula_flops(model_config, self.n_params, self.n_tokens)
        self.flops = flops.update_flops(
            model_config,
            self.state.params,
            batch_size=config.train.batch_size,
            n_micro=config.train.grad_accum_steps,
            folder=cache.folder(),
        )
        self.peak = flops.peak(
            devices,
            config.model.dtype,
            precision=config.model.matmul_precision,
            folder=cache.folder(),
        )

    def offsets(self, first: int, n_updates: int) -> jax.Array:
        """The batches of `n_updates` updates from update `first` on, placed on the devices."""
        offsets_KAB = np.zeros(self._offsets_shape, np.int32)
        offsets_KB = self._random_offsets("train", first, n_updates)
        offsets_KAB[:n_updates] = offsets_KB.reshape(n_updates, self.n_micro, -1)
        return jax.device_put(offsets_KAB, self._offsets_sharding)

    def train(self, offsets_KAB: jax.Array, n_updates: int) -> dict[str, np.ndarray]:
        """Makes `n_updates` updates; returns "loss" and "grad_norm" of each."""
        self.state, metrics = self._train_steps(
            self._tokens, self.state, offsets_KAB, np.int32(n_updates)
        )
        return {name: np.asarray(values)[:n_updates] for name, values in metrics.items()}

    def losses(self, *, step: int) -> dict[str, Loss]:
        """The losses of the present weights on both splits, as config.eval asks for them."""
        offsets_W = self._eval_offsets(step=step)
        losses_W = self._evaluator.losses(self.state.params, self._tokens, offsets_W)
        is_val_W = offsets_W >= self._lengths["train"]
        return {"train": mean_loss(losses_W[~is_val_W]), "val": mean_loss(losses_W[is_val_W])}

    def hlo_text(self) -> str:
        """The compiled updates as XLA writes them down."""
        return str(self._train_steps.as_text())

    def memory_bytes(self) -> int:
        """What the compiled updates need: state, text and temporary arrays."""
        needed: Any = self._train_steps.memory_analysis()
        return needed.argument_size_in_bytes + needed.temp_size_in_bytes

    def _eval_offsets(self, *, step: int) -> np.ndarray:
        """Windows of train, then of val, which lies behind it."""
        train_W, val_W = self._windows("train", step), self._windows("val", step)
        return np.concatenate([train_W, val_W + np.int32(self._lengths["train"])])

    def _windows(self, split: str, step: int) -> np.ndarray:
        config = self._config
        if config.eval.mode == "random":
            first = _FIRST_EVAL_BATCH + step * config.eval.iters
            return self._random_offsets(split, first, config.eval.iters).reshape(-1)
        return batches.sweep_offsets(
            n_tokens=self._lengths[split],
            block_size=config.model.block_size,
            # Both splits get the same number of tokens.
            max_tokens=config.eval.max_tokens or self._lengths["val"] - 1,
        )

    def _random_offsets(self, split: str, first: int, n_batches: int) -> np.ndarray:
        config = self._config
        return batches.offsets(
            config.seed,
            split,
            first,
            n_batches,
            n_tokens=self._lengths[split],
            block_size=config.model.block_size,
            batch_size=config.train.batch_size,
        )

    def costs(self) -> dict[str, Any]:
        """What an update costs, as the run's record says it."""
        return {
            "n_params": self.n_params,
            "micro_batches": self.n_micro,
            "attention": dataclasses.asdict(self.attention),
            "flops_per_update": self.flops,
            "formula_flops_per_update": self.formula_flops,
            "compiled_flops_per_update": flops.compiled_flops(self._train_steps),
            "peak_flops_per_s": self.peak.flops_per_s,
            "peak_source": self.peak.source,
        }
