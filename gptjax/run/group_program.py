"""Runs that differ in seeds, learning rates and lengths alone, compiled as one program."""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from gptjax.config.config import flat, model_config
from gptjax.device import flops, kernels, memory, peak
from gptjax.device.mesh import Layout
from gptjax.run.costs import count_costs
from gptjax.run.evaluator import Evaluator, Loss, mean_loss, random_windows, windows_by_split
from gptjax.run.inputs import Inputs
from gptjax.run.program import max_updates_per_call
from gptjax.run.short_run import OF_EACH_RUN, first_state, learning_rates, train_steps_at
from gptjax.system import cache
from gptjax.update import step
from gptjax.update.step import TrainState

# Updates of about this long make a call, so that progress and signals are never late.
_CALL_SECONDS = 1.0

# To know an update's time: one, which touches its memory for the first time, and three times a
# second's worth, since a busy moment makes one of them many times too long.
_TIMED_CALLS = 4

# Also arguments of what is compiled: each run is given its learning rates one by one.
_RATES = ("optim.learning_rate", "optim.min_lr", "optim.muon_learning_rate")


def program_key(config: ml_collections.ConfigDict) -> str:
    """The same for configs that one program trains."""
    values = flat(config)
    key = {name: v for name, v in values.items() if name not in (*OF_EACH_RUN, *_RATES)}
    for name in ("out_dir", "init_from"):
        key.pop(name)
    if config.optim.name == "muon":
        # Muon's rate is compiled in as a multiple of the other; products of the same two factors
        # may differ in their last digit.
        ratio = config.optim.muon_learning_rate / max(config.optim.learning_rate, 1e-300)
        key["muon"] = f"{ratio:.12g}"
    return json.dumps(key)


def placed_tokens(inputs: Inputs, device: jax.Device) -> jax.Array:
    """The tokens of both splits, val behind train, on a device."""
    return jax.device_put(np.concatenate([inputs.splits.train, inputs.splits.val]), device)


class GroupProgram:
    """The compiled updates of M runs that make theirs in the same dispatch, and its evaluation.

    One run makes train.py's own numbers, but for the order of sums; several are `jax.vmap` of it.

    Attributes:
      n_runs: M.
      n_tokens: tokens in an update of one.
      costs, flops: an update's, of one.
      compile_seconds: what compiling took.
      update_seconds: an update's time of all M in the last call; 0 before the first.
      evaluation_seconds: an evaluation's, of one.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        inputs: Inputs,
        tokens: jax.Array,
        device: jax.Device,
        *,
        n_runs: int,
    ):
        """`config` is any of the runs'; `tokens` those of both splits on the device.

        Raises:
          UserError: if they do not fit the device.
        """
        start = time.perf_counter()
        self._config, self._device, self.n_runs = config, device, n_runs
        self.n_tokens = config.train.batch_size * config.model.block_size
        self._n_tokens_of_split = inputs.n_tokens
        self._n_slots = max_updates_per_call(config)
        self._n_micro = memory.micro_batches(config, device.platform, 1)
        self._tokens = tokens
        self._compile(inputs.tokenizer.vocab_size)
        self._peak_probe = peak.PeakProbe(
            [device],
            config.model.dtype,
            precision=config.model.matmul_precision,
            folder=cache.folder(),
        )
        self.compile_seconds = time.perf_counter() - start
        self.update_seconds = self.evaluation_seconds = 0.0

    def _compile(self, n_symbols: int) -> None:
        config, device = self._config, self._device
        model = model_config(config, n_symbols)
        sequences = config.train.batch_size // self._n_micro
        memory.check_memory(model, device, micro_batch=self.n_runs * sequences)
        self.attention = kernels.choose_attention(model, device)
        model = kernels.with_attention(model, self.attention.evaluations, device)
        self._start = jax.jit(functools.partial(first_state, model, config))
        self._offsets_shape = (self._n_slots, self._n_micro, sequences)
        with jax.default_device(device), kernels.matmul_precision(model):
            updates = functools.partial(train_steps_at, step.model_graph(model), config)
            states, keys = self.first([0] * self.n_runs)
            self.costs = count_costs(config, model, self.one(states, 0).params)
            shapes = [(self._offsets_shape, np.int32), ((self._n_slots,), np.float32)]
            if self.n_runs > 1:
                has_key = 0 if config.model.dropout else None
                updates = jax.vmap(updates, in_axes=(has_key, 0, None, 0, 0, None))
                shapes = [((self.n_runs, *shape), dtype) for shape, dtype in shapes]
            given = [jax.ShapeDtypeStruct(*each) for each in shapes]
            self._updates = (
                jax.jit(updates, donate_argnums=1)
                .lower(keys, states, self._tokens, *given, np.int32(0))
                .compile()
            )
            memory.check_program_memory(self.memory_bytes(), device)
            self._evaluator = Evaluator(model, config.model.block_size, Layout([device]))
            n_windows = sum(map(len, self._windows(config, 0).values()))
            self._evaluator.compile(self.one(states, 0).params, self._tokens, n_windows)

    @property
    def flops(self) -> float:
        """An update's of one run, as XLA counts them."""
        return self.costs.flops

    @property
    def peak(self) -> peak.Peak:
        """What MFU is measured against."""
        return self._peak_probe.best

    def raise_peak(self, flops_per_s: float) -> None:
        """Corrects a peak that has been reached and passed: then it was none."""
        self._peak_probe.reached(flops_per_s)

    def memory_bytes(self) -> int:
        """What the compiled updates need: states, text and temporary arrays."""
        needed: Any = self._updates.memory_analysis()
        return needed.argument_size_in_bytes + needed.temp_size_in_bytes

    def costs_to_json(self) -> dict[str, Any]:
        """What an update of one run costs and is measured against, as a run's record says it."""
        return {
            "micro_batches": self._n_micro,
            "attention": dataclasses.asdict(self.attention),
            "n_params": self.costs.n_params,
            "flops_per_update": self.costs.flops,
            "formula_flops_per_update": self.costs.formula_flops,
            "compiled_flops_per_update": flops.compiled_flops(self._updates),
            "peak_flops_per_s": self.peak.flops_per_s,
            "peak_source": self.peak.source,
        }

    def first(self, seeds: Sequence[int]) -> tuple[TrainState, Any]:
        """The states before the first update, and the keys of dropout where there is any."""
        # Made on the CPU, as train.py does: a seed has one set of weights.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            made = [self._start(np.uint32(seed)) for seed in seeds]
        states = self.together([state for state, _ in made])
        keys = self.together([key for _, key in made]) if self._config.model.dropout else None
        return states, keys

    def together(self, trees: Sequence[Any]) -> Any:
        """Pytrees of M runs as the one that `train` takes, on the device."""
        if self.n_runs == 1:
            return jax.device_put(trees[0], self._device)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
        return jax.device_put(stacked, self._device)

    def one(self, states: TrainState, index: int) -> TrainState:
        """One run's state."""
        if self.n_runs == 1:
            return states
        return jax.tree.map(lambda leaf: leaf[index], states)

    def updates_per_call(self) -> int:
        """Updates of about a second; a single one while nothing is known of their time."""
        most = int(_CALL_SECONDS / self.update_seconds) if self.update_seconds else 1
        return max(1, min(most, self._n_slots))

    def train(
        self,
        states: TrainState,
        keys: Any,
        configs: Sequence[ml_collections.ConfigDict],
        rates_MK: np.ndarray,
        first: int,
    ) -> tuple[TrainState, dict[str, np.ndarray]]:
        """Makes updates `first`, … at these rates; returns "loss" and "grad_norm" with axes MK."""
        start, n = time.perf_counter(), rates_MK.shape[1]
        offsets_MKAB = np.zeros((self.n_runs, *self._offsets_shape), np.int32)
        for index, config in enumerate(configs):
            n_tokens = self._n_tokens_of_split["train"]
            offsets_KB = random_windows(config, "train", n_tokens, first, n)
            offsets_MKAB[index, :n] = offsets_KB.reshape(n, *self._offsets_shape[1:])
        padded_MK = np.pad(rates_MK, ((0, 0), (0, self._n_slots - n)))
        if self.n_runs == 1:
            offsets_MKAB, padded_MK = offsets_MKAB[0], padded_MK[0]
        states, metrics = self._updates(
            keys, states, self._tokens, offsets_MKAB, padded_MK, np.int32(n)
        )
        shape = (self.n_runs, self._n_slots)
        found = {k: np.asarray(v).reshape(shape)[:, :n] for k, v in metrics.items()}
        self.update_seconds = (time.perf_counter() - start) / n
        return states, found

    def losses(
        self, state: TrainState, config: ml_collections.ConfigDict, *, step: int
    ) -> dict[str, Loss]:
        """The losses of one run's weights on both splits, as config.eval asks for them."""
        start, windows = time.perf_counter(), self._windows(config, step)
        behind_train = np.int32(self._n_tokens_of_split["train"])
        offsets_W = np.concatenate([windows["train"], windows["val"] + behind_train])
        losses_W = self._evaluator.losses(state.params, self._tokens, offsets_W)
        self.evaluation_seconds = time.perf_counter() - start
        n_train = len(windows["train"])
        return {"train": mean_loss(losses_W[:n_train]), "val": mean_loss(losses_W[n_train:])}

    def measure(self) -> None:
        """Makes a few updates and an evaluation for their time's sake: sets both `_seconds`."""
        (states, keys), done = self.first([0] * self.n_runs), 0
        rates_K = learning_rates(self._config, self._n_slots)
        configs = [self._config] * self.n_runs
        seconds = []
        for _ in range(_TIMED_CALLS):
            n = min(self.updates_per_call(), self._n_slots)
            rates_MK = np.tile(rates_K[:n], (self.n_runs, 1))
            states, _ = self.train(states, keys, configs, rates_MK, done)
            done += n
            seconds.append(self.update_seconds)
        self.update_seconds = statistics.median(seconds[1:])
        self.losses(self.one(states, 0), self._config, step=0)

    def _windows(self, config: ml_collections.ConfigDict, step: int) -> dict[str, np.ndarray]:
        return windows_by_split(config, self._n_tokens_of_split, step=step)
