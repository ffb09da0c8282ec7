"""One experiment, compiled for its devices: the update, the evaluation and what an update costs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import nnx

from gptjax.config.config import GPTConfig, model_config
from gptjax.device import flops, kernels, memory, mesh, peak
from gptjax.device.formula import formula_flops
from gptjax.model.gpt import n_parameters
from gptjax.run.evaluator import (
    Evaluator,
    Loss,
    mean_loss,
    random_windows,
    tokens_per_batch,
    windows_by_split,
)
from gptjax.run.inputs import Inputs
from gptjax.system import cache
from gptjax.update import optim, step
from gptjax.update.step import TrainState

# One call makes at most so many updates.
_MOST_UPDATES = 1000


def compile_trainer(
    config: ml_collections.ConfigDict,
    inputs: Inputs,
    devices: list[jax.Device],
    state: TrainState | None = None,
) -> CompiledTrainer:
    """The compiled functions of a config, going on from `state` (on the host) or from the start.

    Raises:
      UserError: if the model or its update cannot fit the devices.
    """
    model = model_config(config, inputs.tokenizer.vocab_size)
    n_micro = memory.micro_batches(config, devices[0].platform, len(devices))
    memory.check_memory(
        model,
        devices[0],
        micro_batch=config.train.batch_size // n_micro // len(devices),
        n_windows=config.train.batch_size * max_updates_per_call(config),
        n_corpus_bytes=inputs.n_bytes,
    )
    return CompiledTrainer(config, model, inputs, devices, state, n_micro=n_micro)


def max_updates_per_call(config: ml_collections.ConfigDict) -> int:
    """Most updates in one call of the compiled update."""
    return config.train.updates_per_dispatch or _MOST_UPDATES


class CompiledTrainer:
    """The compiled functions of a config and the data they run on; built by `compile_trainer`.

    Attributes:
      state: the TrainState on the devices; `train` replaces it.
      max_updates_per_call: most updates in one call of `train`.
      n_micro: micro-batches in an update.
      n_tokens: tokens in an update.
      n_params: weights without position embeddings.
      attention: by which kernels, and why.
      flops, formula_flops: an update's, as XLA counts them and by the formula.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: GPTConfig,
        inputs: Inputs,
        devices: list[jax.Device],
        state: TrainState | None,
        *,
        n_micro: int,
    ):
        self._config, self._n_tokens_of_split = config, inputs.n_tokens
        self.n_tokens = config.train.batch_size * config.model.block_size
        self.max_updates_per_call, self.n_micro = max_updates_per_call(config), n_micro
        self.attention = kernels.choose_attention(model, devices[0])
        # Where dropout is on, the model uses XLA's attention all the same.
        model = kernels.with_attention(model, self.attention.evaluations, devices[0])
        graph, tx = step.model_graph(model), optim.optimizer(config)
        self._place(inputs, devices, state or _initial_state(model, tx, config.seed))
        self._compile(graph, tx, model, devices[0])
        self._count_costs(model, devices)

    def _place(self, inputs: Inputs, devices: list[jax.Device], state: TrainState) -> None:
        """Puts text and state on the devices, and says how batches lie there."""
        data_mesh = mesh.data_mesh(devices)
        self._everywhere = mesh.replicated(data_mesh)
        # One array for both splits, val behind train: one compiled evaluation serves both.
        tokens = np.concatenate([inputs.splits.train, inputs.splits.val])
        self._tokens = jax.device_put(tokens, self._everywhere)
        self.state = jax.device_put(state, self._everywhere)
        size = self._config.train.batch_size // self.n_micro
        self._offsets_shape = (self.max_updates_per_call, self.n_micro, size)
        self._offsets_sharding = mesh.split_last_axis(data_mesh, len(self._offsets_shape))

    def _compile(self, graph: nnx.GraphDef, tx: Any, model: GPTConfig, device: jax.Device) -> None:
        """Compiles updates and evaluations, so that the first of each costs no more.

        Raises:
          UserError: if an update needs more memory than there is.
        """
        config = self._config
        dropout_key = step.named_key(config.seed, "dropout") if config.model.dropout else None
        train_steps = jax.jit(
            functools.partial(step.train_steps, graph, tx, dropout_key, config.model.block_size),
            donate_argnums=1,
            out_shardings=self._everywhere,
        )
        offsets_KAB = jax.ShapeDtypeStruct(
            self._offsets_shape, np.int32, sharding=self._offsets_sharding
        )
        n_tokens = tokens_per_batch(model, device.platform)
        self._evaluator = Evaluator(graph, config.model.block_size, tokens_per_batch=n_tokens)
        with kernels.matmul_precision(model):
            lowered = train_steps.lower(self._tokens, self.state, offsets_KAB, np.int32(0))
            self._train_steps = lowered.compile()
            memory.check_program_memory(self.memory_bytes(), device)
            n_windows = sum(map(len, self._eval_windows(step=0).values()))
            self._evaluator.compile(self.state.params, self._tokens, n_windows)
        # One program, not one an operation; called on the CPU, where numbers are had at once.
        self._learning_rate = jax.jit(optim.learning_rate(config))

    def _count_costs(self, model: GPTConfig, devices: list[jax.Device]) -> None:
        """Counts an update's FLOPs, and finds out what the devices could do."""
        config = self._config
        self.n_params = n_parameters(self.state.params)
        self.formula_flops = formula_flops(
            n_layer=model.n_layer,
            n_embd=model.n_embd,
            block_size=model.block_size,
            n_params=self.n_params,
            n_tokens=self.n_tokens,
        )
        self.flops = flops.update_flops(
            model,
            self.state.params,
            batch_size=config.train.batch_size,
            n_micro=config.train.grad_accum_steps,
            folder=cache.folder(),
        )
        n_rows = self.n_tokens // self.n_micro // len(devices)
        self._peak_probe = peak.PeakProbe(
            devices,
            config.model.dtype,
            precision=config.model.matmul_precision,
            shapes=peak.model_shapes(n_rows, model.n_embd),
            folder=cache.folder(),
        )

    def offsets(self, first: int, n_updates: int) -> jax.Array:
        """The batches of `n_updates` updates from update `first` on, placed on the devices."""
        offsets_KAB = np.zeros(self._offsets_shape, np.int32)
        n_tokens = self._n_tokens_of_split["train"]
        offsets_KB = random_windows(self._config, "train", n_tokens, first, n_updates)
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
        windows = self._eval_windows(step=step)
        train_W, val_W = windows["train"], windows["val"]
        behind_train = np.int32(self._n_tokens_of_split["train"])
        offsets_W = np.concatenate([train_W, val_W + behind_train])
        losses_W = self._evaluator.losses(self.state.params, self._tokens, offsets_W)
        n_train = len(train_W)
        return {"train": mean_loss(losses_W[:n_train]), "val": mean_loss(losses_W[n_train:])}

    def learning_rates(self, updates: Sequence[int]) -> list[float]:
        """The learning rates of updates, as many as fit a call."""
        padded_K = np.zeros(self.max_updates_per_call, np.int32)
        padded_K[: len(updates)] = updates
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return np.asarray(self._learning_rate(padded_K))[: len(updates)].tolist()

    @property
    def peak(self) -> peak.Peak:
        """What MFU is measured against, as far as it is known by now."""
        return self._peak_probe.best

    def measure_peak(self, run_seconds: float) -> None:
        """Measures the peak again, for a small part of the seconds that a run has lasted."""
        self._peak_probe.again(run_seconds)

    def raise_peak(self, flops_per_s: float) -> None:
        """Corrects a peak that has been reached and passed: then it was none."""
        self._peak_probe.reached(flops_per_s)

    def hlo_text(self) -> str:
        """The compiled updates as XLA writes them down."""
        return str(self._train_steps.as_text())

    def memory_bytes(self) -> int:
        """What the compiled updates need: state, text and temporary arrays."""
        needed: Any = self._train_steps.memory_analysis()
        return needed.argument_size_in_bytes + needed.temp_size_in_bytes

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

    def _eval_windows(self, *, step: int) -> dict[str, np.ndarray]:
        return windows_by_split(self._config, self._n_tokens_of_split, step=step)


def _initial_state(model: GPTConfig, tx: Any, seed: int) -> TrainState:
    """The state before the first update, the same on every device.

    Made on the CPU, whose last digits a GPU's differ from: a seed has one set of weights.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return jax.jit(functools.partial(step.initial_state, model, tx, seed))()
