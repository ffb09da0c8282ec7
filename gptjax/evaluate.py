"""The loss over a whole split: sweeps during training, and the evaluate command."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gptjax.config.config import GPTConfig
from gptjax.data import batches
from gptjax.device import kernels, mesh
from gptjax.run import checkpoint
from gptjax.run.metadata import model_config, stored_tokenizer
from gptjax.system import cache
from gptjax.system.command import printable
from gptjax.system.errors import UserError
from gptjax.update.step import model_graph, window_losses

# The validation split, kept in the run directory so that evaluating needs nothing else.
VAL_TOKENS = "val_tokens.npy"

# Windows of a sweep are batched to so many tokens at most: on a CPU what stays near its cache, on
# a GPU what fills it, as long as logits and attention's scores stay below two gigabytes.
_CPU_TOKENS_AT_ONCE = 2048
_GPU_TOKENS_AT_ONCE = 65_536
_GPU_BYTES_AT_ONCE = 2**31


@dataclasses.dataclass(frozen=True)
class Loss:
    """A mean loss with its standard error, nats per token."""

    mean: float
    sem: float


def mean_loss(losses_W: np.ndarray) -> Loss:
    """Mean and standard error of equally long windows' losses."""
    n_windows = len(losses_W)
    sem = float(losses_W.std(ddof=1)) / math.sqrt(n_windows) if n_windows > 1 else math.inf
    return Loss(float(losses_W.mean()), sem)


def tokens_at_once(model: GPTConfig, platform: str) -> int:
    """How many tokens of a sweep a device computes at once."""
    if platform == "cpu":
        return _CPU_TOKENS_AT_ONCE
    scores = 0 if model.attention == "cudnn" else model.n_head * model.block_size
    bytes_per_token = 4 * max(model.vocab_size, scores)
    return min(_GPU_TOKENS_AT_ONCE, _GPU_BYTES_AT_ONCE // bytes_per_token)


class Evaluator:
    """Computes the losses of windows with one compiled call per sweep, some windows at once."""

    def __init__(self, graph: nnx.GraphDef, block_size: int, *, tokens_at_once: int):
        self._losses = jax.jit(functools.partial(window_losses, graph, block_size))
        self._compiled: dict[tuple[int, int], jax.stages.Compiled] = {}
        self._batch_size = max(1, tokens_at_once // block_size)

    def compile(self, params: nnx.State, tokens: jax.Array, n_windows: int) -> None:
        """Compiles sweeps of `n_windows` windows, so that the first one costs no more."""
        shape_CB = self._shape(n_windows)
        offsets_CB = jax.ShapeDtypeStruct(shape_CB, np.int32)
        self._compiled[shape_CB] = self._losses.lower(params, tokens, offsets_CB).compile()

    def losses(self, params: nnx.State, tokens: jax.Array, offsets_W: np.ndarray) -> np.ndarray:
        """The mean loss of the window at each offset, nats per token, float64."""
        n_windows = len(offsets_W)
        shape_CB = self._shape(n_windows)
        if shape_CB not in self._compiled:
            self.compile(params, tokens, n_windows)
        padded_CB = np.zeros(shape_CB, np.int32)  # the padding's losses are dropped
        padded_CB.reshape(-1)[:n_windows] = offsets_W
        losses_CB = self._compiled[shape_CB](params, tokens, padded_CB)
        return np.asarray(losses_CB, np.float64).reshape(-1)[:n_windows]

    def _shape(self, n_windows: int) -> tuple[int, int]:
        """Batches, and windows in each, of a sweep."""
        return -(-n_windows // self._batch_size), self._batch_size


def evaluate(out_dir: str, *, step: str, context: int) -> None:
    """Prints the loss of a checkpoint over the whole validation split.

    The split is the one the run was validated on, kept in its directory. `context` cuts it into
    shorter windows than the model was trained with (0: the same), whose loss is another quantity:
    each token is predicted from fewer before it.

    Raises:
      UserError: if there is no such checkpoint, or the context is longer than the model's.
    """
    cache.keep_compiled_programs()
    mesh.available_devices()  # Asked for here, a backend that is missing is a clear error.
    with checkpoint.open_for_reading(out_dir) as checkpoints:
        found = checkpoints.restore(checkpoint.select_step(checkpoints, step))
    config = model_config(found.meta)
    if not 0 <= context <= config.block_size:
        raise UserError("--context", context, f"must be from 1 to block_size {config.block_size}")
    block_size = context or config.block_size
    ids = read_val_ids(Path(out_dir), found.meta["val_sha256"])
    offsets_W = batches.sweep_offsets(n_tokens=len(ids), block_size=block_size, max_tokens=0)
    if not len(offsets_W):
        raise UserError("--context", block_size, f"the validation split has {len(ids)} tokens")
    params = jax.device_put(found.state.params)
    config = kernels.with_kernels(config, jax.devices()[0])
    at_once = tokens_at_once(config, jax.devices()[0].platform)
    evaluator = Evaluator(model_graph(config), block_size, tokens_at_once=at_once)
    with kernels.matmul_precision(config):
        loss = mean_loss(evaluator.losses(params, jnp.asarray(ids), offsets_W))

    tokenizer = stored_tokenizer(found.meta)
    targets = (offsets_W[:, None] + 1 + np.arange(block_size)[None]).reshape(-1)
    corpus = found.meta["corpus"]
    name = printable(corpus["name"])
    print(f"{out_dir} step {found.step} on {name}, {len(targets)} tokens of val")
    print(f"val {loss.mean:.4f} ± {loss.sem:.4f} nats/{tokenizer.unit} at context {block_size}")
    if tokenizer.bytes_per_token is not None:
        bytes_per_token = float(tokenizer.bytes_per_token[ids[targets]].mean())
        print(f"    {loss.mean / math.log(2) / bytes_per_token:.4f} bits/byte")
    if corpus.get("floor_nats") is not None:
        floor = corpus["floor_nats"]
        print(f"    floor {floor:.4f}: val is {loss.mean - floor:.4f} above what can be reached")


def read_val_ids(run_dir: Path, sha256: str) -> np.ndarray:
    """The validation split that a run keeps beside its checkpoints.

    Raises:
      UserError: if it is missing or not the one the checkpoint was validated on.
    """
    path = run_dir / VAL_TOKENS
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError("val split", path, f"cannot be read: {error}") from error
    if batches.sha256(ids) != sha256:
        raise UserError("val split", path, "is not the one this checkpoint was validated on")
    return ids
