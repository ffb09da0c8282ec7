"""What nanoGPT's ckpt.pt holds, as a config and a TrainState; and a checkpoint of ours as one."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np

from gptjax.config.config import GPTConfig, flat, from_flat
from gptjax.config.knobs import KNOBS
from gptjax.config.nanogpt_flags import flags_of, knobs_of
from gptjax.model import interop
from gptjax.run import torch_file
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.metadata import model_config
from gptjax.system.errors import UserError
from gptjax.update import torch_adamw
from gptjax.update.step import TrainState

# What nanoGPT's train.py puts into a checkpoint, and the arguments of its model.
_PARTS = ("model", "optimizer", "model_args", "config", "iter_num", "best_val_loss")
_MODEL_ARGS = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout")

# Of a dataset, which is a folder: Linux has no longer paths.
_LONGEST_NAME = 4096

# nanoGPT's best_val_loss before any evaluation.
_NO_LOSS = 1e9

# What nanoGPT has of knobs that are not its flags.
_ITS_OWN = {"model.param_dtype": ("float32",), "optim.schedule": ("cosine", "constant")}

# Flags of nanoGPT that say nothing of the experiment, by its defaults.
_REST = {
    "eval_only": False,
    "always_save_checkpoint": True,
    "init_from": "resume",
    "wandb_log": False,
    "wandb_project": "owt",
    "wandb_run_name": "gpt2",
    "backend": "nccl",
    "compile": True,
}


@dataclasses.dataclass(frozen=True)
class NanoGPTCheckpoint:
    """A ckpt.pt that `read` has looked at.

    Attributes:
      path: the file.
      stored: what is in it, with arrays for tensors.
      values: the knobs by which a run goes on as nanoGPT would.
      left_out: flags of its config that are no knobs.
      vocab_size: symbols, with those that only pad.
      dataset: what nanoGPT calls the text.
    """

    path: Path
    stored: dict[str, Any]
    values: dict[str, Any]
    left_out: list[str]
    vocab_size: int
    dataset: str

    @property
    def step(self) -> int:
        """Updates made."""
        return self.stored["iter_num"]

    @property
    def val_nats(self) -> float | None:
        """What nanoGPT measured on val at this step; None without a number.

        It saves when val is its best, or always, and then best_val_loss is that of this step.
        """
        nats = float(self.stored["best_val_loss"])
        return nats if math.isfinite(nats) and nats < _NO_LOSS else None

    def config(self, out_dir: str) -> ml_collections.ConfigDict:
        """The config to go on with, once its data.source is set; nothing stands in for that text.

        Raises:
          UserError: for a value that breaks the rule of its knob.
        """
        values = {**self.values, "out_dir": out_dir, "data.fallback": ""}
        return from_flat(values, origin=str(self.path))

    def state(self, config: ml_collections.ConfigDict, model: GPTConfig) -> TrainState:
        """The state from which the next update is nanoGPT's own.

        Raises:
          UserError: if an array is missing, foreign or of another shape.
        """
        try:
            weights = interop.own_weights(self.stored["model"], model)
            params = interop.to_params(weights, model)
            adamw = torch_adamw.from_torch(self.stored["optimizer"], weights)
            opt_state = torch_adamw.to_optax(adamw, config, model, step=self.step)
        except ValueError as error:
            raise _foreign(self.path, str(error)) from error
        return TrainState(jnp.array(self.step, jnp.int32), params, opt_state)


def read(path: Path) -> NanoGPTCheckpoint:
    """nanoGPT's checkpoint in a file, every part of the right kind.

    Raises:
      UserError: if it is not nanoGPT's, or without torch.
    """
    stored = torch_file.read(path, flag="--from")
    try:
        _check_parts(stored)
        flags = {**stored["config"], **stored["model_args"]}
        values, left_out = knobs_of(flags)
        # nanoGPT, too, goes on with AdamW's settings as they are in its state.
        beta1, beta2, decay = torch_adamw.settings(stored["optimizer"])
    except ValueError as error:
        raise _foreign(path, str(error)) from error
    values |= {"optim.beta1": beta1, "optim.beta2": beta2, "optim.weight_decay": decay}
    return NanoGPTCheckpoint(path, stored, values, left_out, flags["vocab_size"], flags["dataset"])


def _check_parts(stored: Any) -> None:
    """Raises ValueError unless all of nanoGPT's parts are there, each of its kind."""
    missing = [name for name in _PARTS if not isinstance(stored, dict) or name not in stored]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    for name in _PARTS[:4]:
        if not isinstance(stored[name], dict):
            raise ValueError(f"its {name} is no dictionary")
    step, loss = stored["iter_num"], stored["best_val_loss"]
    if type(step) is not int or not 0 <= step < 2**31:
        raise ValueError(f"its iter_num is {step!r:.20}")
    is_number = isinstance(loss, int | float | np.ndarray) and np.asarray(loss).dtype.kind in "if"
    if not is_number or np.ndim(loss):
        raise ValueError(f"its best_val_loss is {loss!r:.20}")
    name, size = stored["config"].get("dataset"), stored["model_args"].get("vocab_size")
    is_name = isinstance(name, str) and len(name) <= _LONGEST_NAME
    if not is_name or type(size) is not int or not 0 < size < 2**31:
        raise ValueError(f"its dataset is {name!r:.20}, its vocab_size {size!r:.20}")


def _foreign(path: Path, why: str) -> UserError:
    return UserError("--from", path, f"is no checkpoint of nanoGPT's train.py: {why}")


def check_has_counterpart(config: ml_collections.ConfigDict) -> None:
    """Raises UserError, naming the knob, for a model or an optimizer that nanoGPT has not."""
    for name, value in flat(config).items():
        default, nanogpt = KNOBS[name].default, KNOBS[name].nanogpt
        allowed = (default,) if nanogpt is None else _ITS_OWN.get(name, (value,))
        # How the weights began is no matter by now.
        if value not in allowed and name != "model.zero_residual":
            words = " or ".join(str(each) for each in allowed)
            raise UserError(name, value, f"a ckpt.pt of nanoGPT cannot hold it, only {words}")


def content(found: Checkpoint, *, dataset: str, out_dir: str) -> dict[str, Any]:
    """What nanoGPT's train.py would have saved in place of a checkpoint of ours.

    Raises:
      UserError: naming a knob for which nanoGPT has no counterpart.
    """
    config = from_flat(found.meta["config"], origin="checkpoint")
    check_has_counterpart(config)
    flags = flags_of(config) | {
        "dataset": dataset,
        "out_dir": out_dir,
        "log_interval": config.log.interval,
        # nanoGPT computes in bfloat16 on a GPU alone.
        "device": "cpu" if config.model.dtype == "float32" else "cuda",
        **_REST,
    }
    model = model_config(found.meta)
    weights = interop.from_params(found.state.params, model)
    adamw = torch_adamw.from_optax(found.state.opt_state, config, model)
    best = found.meta["best"]["val_nats"]
    sizes = {**flags, "vocab_size": model.vocab_size}
    return {
        "model": {**weights, interop.HEAD: weights[interop.TOKENS]},
        "optimizer": torch_adamw.to_torch(
            adamw, weights, rate=torch_adamw.next_rate(config, found.step)
        ),
        "model_args": {name: sizes[name] for name in _MODEL_ARGS},
        "iter_num": found.step,
        "best_val_loss": _NO_LOSS if best is None else best,
        "config": flags,
    }
