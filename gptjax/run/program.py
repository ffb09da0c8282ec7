"""One experiment, compiled for its devices: the update, the evaluation and what an update costs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from gptjax.config.config import GPTConfig, model_config
from gptjax.device import flops, kernels, memory, mesh, peak
from gptjax.device.mesh import Layout
from gptjax.model.followers import with_counts
from gptjax.model.gpt import n_parameters
from gptjax.run import feed
from gptjax.run.costs import count_costs
from gptjax.run.evaluator import (
    Evaluator,
    Loss,
    mean_loss,
    windows_by_split,
)
from gptjax.run.functions import start_source, update_source
from gptjax.run.inputs import Inputs
from gptjax.run.progress import Notice
from gptjax.system import cache
from gptjax.system.programs import compile_all
from gptjax.update import optim
from gptjax.update.step import TrainState

Tell = Callable[[Notice], None]

# One call makes at most so many updates.
_MOST_UPDATES = 1000

# Weights x tokens of an update that takes a tenth of a second on two cores.
_QUICK = 3e9


def compile_trainer(
    config: ml_collections.ConfigDict,
    inputs: Inputs,
    devices: list[jax.Device],
    state: TrainState | None = None,
    *,
    tell: Tell = lambda notice: None,
    meanwhile: Callable[[], object] = lambda: None,
) -> CompiledTrainer:
    """The compiled functions of a config, going on from `state` (on the host) or from the start.

    `tell` gets a notice if this will take its time; `meanwhile` is called while XLA is busy.

    Raises:
      UserError: if the model or its update cannot fit the devices.
    """
    check_fits(config, inputs, devices)
    model = model_config(config, inputs.tokenizer.vocab_size)
    return CompiledTrainer(config, model, inputs, devices, state, tell, meanwhile)


def check_fits(
    config: ml_collections.ConfigDict, inputs: Inputs, devices: list[jax.Device]
) -> None:
    """Raises UserError if a config's model, its update or its text cannot fit the devices."""
    if config.model.followers:
        feed.resident_ids(inputs)  # The whole text is counted at once.
    n_micro = memory.micro_batches(config, devices[0].platform, len(devices))
    n_updates = feed.most_updates(config, inputs, max_updates_per_call(config))
    memory.check_memory(
        model_config(config, inputs.tokenizer.vocab_size),
        mesh.here(devices),
        n_fsdp=config.mesh.fsdp,
        micro_batch=config.train.batch_size // n_micro // len(devices),
        n_windows=config.train.batch_size * n_updates,
        n_corpus_bytes=feed.device_bytes(config, inputs, n_updates),
    )


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
      attention: by which kernels, and why.
      costs: an update's.
      own_eval_seconds: what this process's part of the last evaluation took.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: GPTConfig,
        inputs: Inputs,
        devices: list[jax.Device],
        state: TrainState | None,
        tell: Tell,
        meanwhile: Callable[[], object],
    ):
        self._config, self._inputs = config, inputs
        self.n_tokens = config.train.batch_size * config.model.block_size
        self.max_updates_per_call = feed.most_updates(config, inputs, max_updates_per_call(config))
        self.n_micro = memory.micro_batches(config, devices[0].platform, len(devices))
        device = mesh.here(devices)
        self.attention = kernels.choose_attention(model, device)
        # Where dropout is on, the model uses XLA's attention all the same.
        model = kernels.with_attention(model, self.attention.evaluations, device)
        self._place(inputs, devices)
        # One program, not one an operation; called on the CPU, where numbers are had at once.
        self._learning_rate = jax.jit(optim.learning_rate(config))
        self._compile(model, devices, state, tell, meanwhile)
        self._peak_probe = peak.PeakProbe(
            devices,
            config.model.dtype,
            precision=config.model.matmul_precision,
            shapes=peak.model_shapes(self.n_tokens // self.n_micro // len(devices), model.n_embd),
            folder=cache.folder(),
        )

    def _place(self, inputs: Inputs, devices: list[jax.Device]) -> None:
        """Says how state and batches will lie on the devices; puts the text there if it fits."""
        self._layout = Layout(devices, self._config.mesh.fsdp)
        size = self._config.train.batch_size // self.n_micro
        self._offsets_shape = (self.max_updates_per_call, self.n_micro, size)
        calls = feed.CallLayout(self._layout, self._offsets_shape)
        self._feed = feed.feed(self._config, inputs, calls)

    def _compile(
        self,
        model: GPTConfig,
        devices: list[jax.Device],
        state: TrainState | None,
        tell: Tell,
        meanwhile: Callable[[], object],
    ) -> None:
        """Compiles the start, updates and evaluations side by side, and starts.

        Raises:
          UserError: if an update needs more memory than there is.
        """
        config, device = self._config, self._layout.device
        self._evaluator = Evaluator(model, config.model.block_size, self._layout)
        with kernels.matmul_precision(model):
            start = start_source(config, model)
            shapes = self._layout.placed(start.returns)
            inputs = (self._feed.tokens, shapes, self._offsets_shape)
            update = update_source(config, model, self._layout, inputs)
            n_windows = sum(map(len, self._eval_windows(step=0).values()))
            eval_tokens, n_windows = self._feed.evaluated(n_windows)
            evaluation = self._evaluator.source(shapes.params, eval_tokens, n_windows)
            sources = [update, evaluation, *([] if state else [start])]
            if not all(source.is_kept for source in sources):
                once = ", which later starts with these settings skip" * update.can_be_kept
                tell(Notice(f"compiling{once}"))

            def also() -> None:
                self.costs = count_costs(config, model, shapes.params)
                self.learning_rates([0])  # Traced now, not after the first update.
                meanwhile()

            n_products = self.n_tokens * n_parameters(shapes.params)
            is_quick = n_products < _QUICK and device is not None and device.platform == "cpu"
            programs = compile_all(sources, [update, evaluation] * is_quick, meanwhile=also)
        self._update = programs[0]
        memory.check_program_memory(self.memory_bytes(), mesh.here(devices))
        self._evaluator.keep(programs[1], n_windows)
        state = state or programs[2](np.uint32(config.seed))
        if model.followers:
            ids, _ = feed.resident_ids(self._inputs)
            state = dataclasses.replace(state, params=with_counts(state.params, model, ids))
        self.state = self._layout.put(state)

    def batches(self, first: int, n_updates: int) -> feed.Call:
        """The batches of `n_updates` updates from update `first` on, placed on the devices."""
        return self._feed.call(first, n_updates)

    def train(self, call: feed.Call, n_updates: int) -> dict[str, np.ndarray]:
        """Makes `n_updates` updates; returns "loss" and "grad_norm" of each."""
        self.state, metrics = self._update(
            call.tokens, self.state, call.offsets_KAB, np.int32(n_updates)
        )
        return {name: np.asarray(values)[:n_updates] for name, values in metrics.items()}

    def losses(self, *, step: int) -> dict[str, Loss]:
        """The losses of the present weights on both splits, as config.eval asks for them."""
        windows = self._eval_windows(step=step)
        before = self._evaluator.own_seconds
        found = self._feed.losses(self._evaluator, self.state.params, windows)
        self.own_eval_seconds = self._evaluator.own_seconds - before
        return {split: mean_loss(losses_W) for split, losses_W in found.items()}

    def learning_rates(self, updates: Sequence[int]) -> list[float]:
        """The learning rates of updates, as many as fit a call."""
        padded_K = np.zeros(self.max_updates_per_call, np.int32)
        padded_K[: len(updates)] = updates
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return np.asarray(self._learning_rate(padded_K))[: len(updates)].tolist()

    @property
    def flops(self) -> float:
        """An update's, as XLA counts them."""
        return self.costs.flops

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
        return str(self._update.executable.as_text())

    def memory_bytes(self) -> int:
        """What the compiled updates need: state, text and temporary arrays."""
        needed: Any = self._update.executable.memory_analysis()
        return needed.argument_size_in_bytes + needed.temp_size_in_bytes

    def costs_to_json(self) -> dict[str, Any]:
        """What an update costs and is measured against, as the run's record says it."""
        return {
            "micro_batches": self.n_micro,
            "attention": dataclasses.asdict(self.attention),
            "n_params": self.costs.n_params,
            "flops_per_update": self.costs.flops,
            "formula_flops_per_update": self.costs.formula_flops,
            "compiled_flops_per_update": flops.compiled_flops(self._update.executable),
            "peak_flops_per_s": self.peak.flops_per_s,
            "peak_source": self.peak.source,
        }

    def _eval_windows(self, *, step: int) -> dict[str, np.ndarray]:
        return windows_by_split(self._config, self._inputs.n_tokens, step=step)
