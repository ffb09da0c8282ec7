"""A config trained without a run directory: compiled once, for all its seeds and lengths."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx

from gptjax.config.config import GPTConfig, model_config
from gptjax.device import kernels, memory
from gptjax.device.mesh import Layout
from gptjax.model.followers import with_counts
from gptjax.run.evaluator import Evaluator, Loss, mean_loss, random_windows
from gptjax.run.feed import resident_ids
from gptjax.run.inputs import Inputs
from gptjax.run.program import max_updates_per_call
from gptjax.system.errors import RunError
from gptjax.update import optim, step
from gptjax.update.step import TrainState

# What a program is given with each run; all other knobs are compiled into it.
OF_EACH_RUN = (
    *("seed", "train.max_iters", "optim.warmup_iters", "optim.lr_decay_iters"),
    *("optim.schedule", "optim.decay_share"),
)

# Updates of about this long make a call, so that progress is never late.
_CALL_SECONDS = 1.0

# To know an update's time: one update, and a second's worth.
_TIMED_CALLS = 2


class Text(NamedTuple):
    """What is trained on and read, on a device."""

    train: jax.Array
    val: jax.Array
    n_symbols: int


def placed(inputs: Inputs, device: jax.Device) -> Text:
    """The tokens of a text, put on a device; raises UserError for more than are put there."""
    train, val = jax.device_put(resident_ids(inputs), device)
    return Text(train, val, inputs.tokenizer.vocab_size)


class ShortRun:
    """The program of a config for one device: the updates that train.py makes.

    Seed and learning rates are arguments of what is compiled. In train.py's program they are
    constants, and each seed with dropout and each length is compiled anew.

    Attributes:
      compile_seconds: what compiling took.
      update_seconds: an update's time in the last call; 0 before the first.
      evaluation_seconds: the last evaluation's.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        text: Text,
        device: jax.Device,
        *,
        val_W: np.ndarray,
        context: int,
    ):
        """Val is read in windows of `context` tokens that begin at `val_W`.

        Raises:
          UserError: if the model does not fit the device.
        """
        start = time.perf_counter()
        self._config, self._text, self._device, self._val_W = config, text, device, val_W
        self._n_slots = max_updates_per_call(config)
        self._n_micro = memory.micro_batches(config, device.platform, 1)
        self._compile(model_config(config, text.n_symbols), context)
        self.compile_seconds = time.perf_counter() - start
        self.update_seconds = self.evaluation_seconds = 0.0

    def run(self, config: ml_collections.ConfigDict, *, told: Callable[[int], None]) -> Loss:
        """Val after all updates of a config that differs only in OF_EACH_RUN, nats per token.

        `told` is called with the number of updates made, after each second or so.

        Raises:
          RunError: if a number is not finite.
        """
        n_updates = config.train.max_iters
        rates_N = learning_rates(config, n_updates)
        state, dropout_key = self._first(config.seed)
        n_done = 0
        while n_done < n_updates:
            n = self._updates_this_call(n_updates - n_done)
            rates_K = rates_N[n_done : n_done + n]
            state = self._make_updates(config, state, dropout_key, n_done, rates_K)
            n_done += n
            told(n_done)
        losses_W = self._val_losses(state)
        if not np.isfinite(losses_W).all():
            raise RunError(f"val is not finite after update {n_updates}")
        return mean_loss(losses_W)

    def measure(self) -> None:
        """Makes a few updates and an evaluation for their time's sake: sets both `_seconds`."""
        state, dropout_key = self._first(0)
        rates_N, n_done = learning_rates(self._config, self._n_slots), 0
        for _ in range(_TIMED_CALLS):  # The first touches its memory for the first time.
            n = self._updates_this_call(self._n_slots)
            state = self._make_updates(self._config, state, dropout_key, n_done, rates_N[:n])
            n_done += n
        self._val_losses(state)

    def _first(self, seed: int) -> tuple[TrainState, Any]:
        """The state before the first update, and the key of dropout where there is any."""
        # Made on the CPU, as train.py does: a seed has one set of weights.
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            state, dropout_key = self._start(np.uint32(seed))
        text = np.asarray(self._text.train) if self._model.followers else np.empty(0)
        params = with_counts(state.params, self._model, text)
        state = state.replace(params=params)
        key = dropout_key if self._config.model.dropout else None
        return jax.device_put((state, key), self._device)

    def _val_losses(self, state: TrainState) -> np.ndarray:
        """The losses of val's windows."""
        start = time.perf_counter()
        losses_W = self._evaluator.losses(state.params, self._text.val, self._val_W)
        self.evaluation_seconds = time.perf_counter() - start
        return losses_W

    def _compile(self, model: GPTConfig, context: int) -> None:
        """Compiles the start, the updates and the evaluation."""
        config, device, self._model = self._config, self._device, model
        sequences = config.train.batch_size // self._n_micro
        memory.check_memory(model, device, micro_batch=sequences)
        attention = kernels.choose_attention(model, device).evaluations
        self._start = jax.jit(functools.partial(first_state, model, config))
        self._offsets_shape = (self._n_slots, self._n_micro, sequences)
        with jax.default_device(device), kernels.matmul_precision(model):
            graph = step.model_graph(kernels.with_attention(model, attention, device))
            state, dropout_key = self._first(0)
            self._train_steps = (
                jax.jit(functools.partial(train_steps_at, graph, config), donate_argnums=1)
                .lower(
                    dropout_key,
                    state,
                    self._text.train,
                    jax.ShapeDtypeStruct(self._offsets_shape, np.int32),
                    jax.ShapeDtypeStruct((self._n_slots,), np.float32),
                    np.int32(0),
                )
                .compile()
            )
            reader = kernels.with_attention(model, attention, device, n_tokens=context)
            self._evaluator = Evaluator(reader, context, Layout([device]))
            self._evaluator.compile(state.params, self._text.val, len(self._val_W))

    def _updates_this_call(self, left: int) -> int:
        """Updates of about a second; a single one while nothing is known of their time."""
        most = int(_CALL_SECONDS / self.update_seconds) if self.update_seconds else 1
        return max(1, min(most, left, self._n_slots))

    def _make_updates(
        self,
        config: ml_collections.ConfigDict,
        state: TrainState,
        dropout_key: Any,
        first: int,
        rates_K: np.ndarray,
    ) -> TrainState:
        """Makes the updates of these rates in one call and checks that they are finite."""
        start, n = time.perf_counter(), len(rates_K)
        offsets_KB = random_windows(config, "train", len(self._text.train), first, n)
        offsets_KAB = np.zeros(self._offsets_shape, np.int32)
        offsets_KAB[:n] = offsets_KB.reshape(n, *self._offsets_shape[1:])
        padded_K = np.pad(rates_K, (0, self._n_slots - n))
        state, metrics_K = self._train_steps(
            dropout_key, state, self._text.train, offsets_KAB, padded_K, np.int32(n)
        )
        numbers = np.stack([np.asarray(values_K)[:n] for values_K in metrics_K.values()])
        self.update_seconds = (time.perf_counter() - start) / n
        finite_K = np.isfinite(numbers).all(axis=0)
        if not finite_K.all():
            raise RunError(f"update {first + int(np.argmin(finite_K)) + 1} is not finite")
        return state


def learning_rates(config: ml_collections.ConfigDict, n_updates: int) -> np.ndarray:
    """The learning rates of a config's updates, all at once.

    Those of a part alone may differ in the last digit, and a run by how it is cut into calls.
    """
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return np.asarray(optim.learning_rate(config)(np.arange(n_updates)), np.float32)


def first_state(
    model: GPTConfig, config: ml_collections.ConfigDict, seed: jax.Array
) -> tuple[TrainState, jax.Array]:
    """The state before the first update, and the key of dropout."""
    return step.initial_state(model, optim.optimizer(config), seed), step.named_key(seed, "dropout")


def train_steps_at(
    graph: nnx.GraphDef,
    config: ml_collections.ConfigDict,
    dropout_key: jax.Array | None,
    state: TrainState,
    tokens: jax.Array,
    offsets_KAB: jax.Array,
    rates_K: jax.Array,
    n_updates: jax.Array,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """`step.train_steps`, whose update i of this call has rate i."""
    first = state.step

    def rate(count: jax.Array) -> jax.Array:
        return jnp.take(rates_K, count - first)

    tx, block_size = optim.optimizer(config, rate), config.model.block_size
    return step.train_steps(
        graph, tx, dropout_key, block_size, tokens, state, offsets_KAB, n_updates
    )
