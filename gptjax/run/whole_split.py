"""The loss of a checkpoint over the whole validation split of its run."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax.data import batches
from gptjax.device import kernels
from gptjax.device.devices import available_devices
from gptjax.device.mesh import Layout
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.evaluator import Evaluator, Loss, mean_loss
from gptjax.run.inputs import read_val_ids
from gptjax.run.metadata import model_config, stored_tokenizer
from gptjax.run.reader import read_checkpoint
from gptjax.system import cache
from gptjax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A checkpoint's loss on val.

    Attributes:
      loss: nats per token of `unit`, "char" or "token".
      context: tokens that the last of a window is predicted from.
      n_tokens: tokens that were predicted.
      bits_per_byte, nats_per_char: the same loss in other units; None where tokens are no text.
      corpus: what the checkpoint says of it.
    """

    step: int
    loss: Loss
    unit: str
    context: int
    n_tokens: int
    bits_per_byte: float | None
    nats_per_char: float | None
    corpus: dict[str, Any]


def loss_of(out_dir: str, *, step: str, context: int) -> Evaluation:
    """That of a run's checkpoint; `step` is best, latest or a number.

    `context` is measure_loss's.

    Raises:
      UserError: if there is no such checkpoint, or the context is longer than the model's.
    """
    cache.keep_compiled_programs()
    available_devices()  # Asked for here, a backend that is missing is a clear error.
    found = read_checkpoint(out_dir, step)
    ids = read_val_ids(Path(out_dir), found.meta["val_sha256"])
    return measure_loss(found, ids, context=context)


def measure_loss(found: Checkpoint, ids: np.ndarray, *, context: int) -> Evaluation:
    """The loss of a checkpoint on a whole split, in windows of `context` tokens (0: block_size).

    All cards of this host share the windows; simulated devices are no faster than one.
    """
    model, device = model_config(found.meta), jax.devices()[0]
    layout = Layout([device] if device.platform == "cpu" else jax.local_devices())
    if not 0 <= context <= model.block_size:
        raise UserError("--context", context, f"must be from 1 to block_size {model.block_size}")
    context = context or model.block_size
    offsets_W = batches.sweep_offsets(n_tokens=len(ids), block_size=context, max_tokens=0)
    if not len(offsets_W):
        raise UserError("--context", context, f"the validation split has {len(ids)} tokens")
    model = kernels.for_evaluation(model, device, n_tokens=context)
    evaluator = Evaluator(model, context, layout)
    with kernels.matmul_precision(model):
        params, tokens = layout.put(found.state.params), layout.put(ids)
        loss = mean_loss(evaluator.losses(params, tokens, offsets_W))
    tokenizer = stored_tokenizer(found.meta)
    targets = ids[(offsets_W[:, None] + 1 + np.arange(context)[None]).reshape(-1)]
    bits_per_byte = nats_per_char = None
    if tokenizer.bytes_per_token is not None and tokenizer.characters_per_token is not None:
        bytes_per_token = float(tokenizer.bytes_per_token[targets].mean())
        bits_per_byte = loss.mean / math.log(2) / bytes_per_token
        nats_per_char = loss.mean / float(tokenizer.characters_per_token[targets].mean())
    return Evaluation(
        step=found.step,
        loss=loss,
        unit=tokenizer.unit,
        context=context,
        n_tokens=len(targets),
        bits_per_byte=bits_per_byte,
        nats_per_char=nats_per_char,
        corpus=found.meta["corpus"],
    )
