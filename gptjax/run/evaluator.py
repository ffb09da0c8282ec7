"""The loss over many windows: which they are, computed in one dispatch, mean and standard error."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.data import batches
from gptjax.device.mesh import Layout, whole
from gptjax.system.programs import Program, Source
from gptjax.update.step import model_graph, window_losses

# Random evaluation batches are numbered from here on, beyond any training batch.
_FIRST_EVAL_BATCH = 2**62

# So many tokens at most are evaluated at once: on a CPU what stays near its cache, on a GPU what
# fills it, as long as logits and attention's scores stay below two gigabytes.
_CPU_TOKENS_PER_BATCH = 2048
_GPU_TOKENS_PER_BATCH = 65_536
_GPU_BYTES_PER_BATCH = 2**31


@dataclasses.dataclass(frozen=True)
class Loss:
    """A mean loss with its standard error, nats per token; that of one window is infinite."""

    mean: float
    sem: float

    def __str__(self) -> str:
        if math.isinf(self.sem):
            return f"{self.mean:.4f} (one window: no error bar)"
        return f"{self.mean:.4f} ± {self.sem:.4f}"


def mean_loss(losses_W: np.ndarray) -> Loss:
    """Mean and standard error of equally long windows' losses."""
    n_windows = len(losses_W)
    sem = float(losses_W.std(ddof=1)) / math.sqrt(n_windows) if n_windows > 1 else math.inf
    return Loss(float(losses_W.mean()), sem)


def windows_by_split(
    config: ml_collections.ConfigDict, n_tokens: Mapping[str, int], *, step: int
) -> dict[str, np.ndarray]:
    """The windows that config.eval asks for at a step: first tokens of each split.

    `n_tokens` are the splits' lengths. A sweep looks at as many tokens of one split as of another.
    (evaluate.py and replay.py sweep val alone, whatever config.eval says: batches.sweep_offsets.)
    """
    block_size, evaluation = config.model.block_size, config.eval
    if evaluation.mode == "random":
        first = _FIRST_EVAL_BATCH + step * evaluation.iters
        return {
            split: random_windows(config, split, n, first, evaluation.iters).reshape(-1)
            for split, n in n_tokens.items()
        }
    most = evaluation.max_tokens or n_tokens["val"] - 1
    return {
        split: batches.sweep_offsets(n_tokens=n, block_size=block_size, max_tokens=most)
        for split, n in n_tokens.items()
    }


def random_windows(
    config: ml_collections.ConfigDict, split: str, n_tokens: int, first: int, n_batches: int
) -> np.ndarray:
    """The windows of batches `first`, `first` + 1, … of a split of `n_tokens`: a row a batch."""
    return batches.offsets(
        config.seed,
        split,
        first,
        n_batches,
        n_tokens=n_tokens,
        block_size=config.model.block_size,
        batch_size=config.train.batch_size,
        order=config.data.order if first < _FIRST_EVAL_BATCH else "random",
    )


def tokens_per_batch(model: GPTConfig, platform: str) -> int:
    """How many tokens a device evaluates at once."""
    if platform == "cpu":
        return _CPU_TOKENS_PER_BATCH
    scores = 0 if model.attention == "cudnn" else model.n_head * model.block_size
    bytes_per_token = 4 * max(model.vocab_size, scores)
    return min(_GPU_TOKENS_PER_BATCH, _GPU_BYTES_PER_BATCH // bytes_per_token)


class Evaluator:
    """Computes the losses of windows with one compiled call, a batch of windows after another.

    Attributes:
      own_seconds: what this process's part of all calls took, without waiting for others.
    """

    def __init__(self, model: GPTConfig, context: int, layout: Layout):
        """Windows have `context` tokens; several devices share them."""
        self._model, self._context, self._layout = model, context, layout
        most = tokens_per_batch(model, layout.devices[0].platform) // context
        self._batch_size = max(1, most) * len(layout.devices)
        self.own_seconds = 0.0
        self._compiled: dict[tuple[int, int], Program] = {}

    def source(
        self, params: nnx.State, tokens: jax.Array | jax.ShapeDtypeStruct, n_windows: int
    ) -> Source:
        """What a call for `n_windows` windows is compiled from; arguments may be shapes."""
        model, context, layout = self._model, self._context, self._layout

        def losses(
            params: nnx.State, tokens: jax.Array, offsets_CB: jax.Array, n_batches: jax.Array
        ) -> jax.Array:
            graph = model_graph(model)
            return window_losses(
                graph, context, params, tokens, offsets_CB, n_batches, over=layout.gathered
            )

        offsets_CB = jax.ShapeDtypeStruct(
            self._shape(n_windows),
            np.int32,
            sharding=None if layout.device else layout.split_last_axis(2),
        )
        return Source(
            losses,
            (params, tokens, offsets_CB, np.int32(0)),
            returns=0,
            made_of=["window losses", dataclasses.asdict(model), context],
            device=layout.device,
            out_shardings=layout.split_last_axis(2),
        )

    def compile(self, params: nnx.State, tokens: jax.Array, n_windows: int) -> None:
        """Compiles calls for `n_windows` windows, so that the first one costs no more."""
        self.keep(self.source(params, tokens, n_windows).compile(), n_windows)

    def keep(self, program: Program, n_windows: int) -> None:
        """Takes what has been compiled from `source`."""
        self._compiled[self._shape(n_windows)] = program

    def losses(self, params: nnx.State, tokens: jax.Array, offsets_W: np.ndarray) -> np.ndarray:
        """The mean loss of the window at each offset, nats per token, float64."""
        n_windows = len(offsets_W)
        shape_CB = self._shape(n_windows)
        if shape_CB not in self._compiled:
            self.compile(params, tokens, n_windows)
        padded_CB = np.zeros(shape_CB, np.int32)  # the padding's losses are dropped
        padded_CB.reshape(-1)[:n_windows] = offsets_W
        offsets_CB: Any = padded_CB
        if self._layout.device is None:
            offsets_CB = self._layout.split(padded_CB)
        start = time.perf_counter()
        losses_CB = self._compiled[shape_CB](params, tokens, offsets_CB, np.int32(shape_CB[0]))
        jax.block_until_ready(losses_CB)
        self.own_seconds += time.perf_counter() - start
        return whole(losses_CB).astype(np.float64).reshape(-1)[:n_windows]

    def _shape(self, n_windows: int) -> tuple[int, int]:
        """Batches, and windows in each."""
        return -(-n_windows // self._batch_size), self._batch_size
