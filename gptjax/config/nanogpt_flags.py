"""nanoGPT's flags and our knobs: hints for who types the former, and each as the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_collections

from gptjax.config.config import decay_iters, flat
from gptjax.config.knob import type_name
from gptjax.config.knobs import KNOBS

# Of those whose value does not carry over as it is, by nanoGPT's name.
_OTHERS = {
    "batch_size": "--config.train.batch_size, which counts all sequences of an update",
    "lr_decay_iters": "--config.optim.lr_decay_iters",
    "decay_lr": "--config.optim.schedule=cosine or constant",
    "eval_iters": "--config.eval.iters with --config.eval.mode=random",
    "eval_only": "scripts/evaluate.py",
    "log_interval": "--config.log.interval",
    "always_save_checkpoint": "not needed: the best and the newest checkpoint are kept",
    "out_dir": "--config.out_dir",
    "init_from": "not needed to resume: run the same command again; see --config.init_from",
    "dataset": "--config.data.source=tiny_shakespeare, text:PATH or tokens:DIR",
    "device": "JAX_PLATFORMS=cpu or cuda, before the command",
    "compile": "not needed: gptjax always compiles",
    "backend": "--config.mesh.data, for several devices of one host",
    "wandb_log": "--config.log.wandb=true",
    "wandb_project": "--config.log.wandb_project",
    "wandb_run_name": "--config.log.wandb_run_name",
    "start": "--prompt, or --prompt_file for FILE:…",
}

COUNTERPARTS = _OTHERS | {
    knob.nanogpt: f"--config.{name}" for name, knob in KNOBS.items() if knob.nanogpt
}


def hint(argument: str) -> str:
    """What an argument that nanoGPT would take is called here; "" for any other."""
    flag, equals, _ = argument.partition("=")
    if not flag.startswith("-"):
        return f"Give it as --config {argument}." if argument.endswith(".py") else ""
    counterpart = COUNTERPARTS.get(flag.lstrip("-"))
    return f"nanoGPT's {flag} is here: {counterpart}." if counterpart else ""


# Flags that have no knob of the same value, and are read here all the same.
_READ = {"batch_size", "dataset", "decay_lr", "device", "dtype", "eval_iters", "log_interval"}
_READ |= {"lr_decay_iters", "vocab_size"}


def knobs_of(flags: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The knobs by which a run goes on as with nanoGPT's flags, and the flags that have none.

    Raises:
      ValueError: if a flag is missing or of the wrong type.
    """
    values: dict[str, Any] = {}
    for name, knob in KNOBS.items():
        if knob.nanogpt:
            values[name] = _value(flags, knob.nanogpt, knob.default)
    n_micro = values["train.grad_accum_steps"]
    values |= {
        "train.batch_size": _value(flags, "batch_size", 1) * n_micro,
        "eval.mode": "random",
        "eval.iters": _value(flags, "eval_iters", 1),
        "checkpoint.interval": values["eval.interval"],
        "log.interval": _value(flags, "log_interval", 1),
    }
    # Elsewhere nanoGPT computes in float32, whatever its dtype says.
    if "cuda" not in _value(flags, "device", ""):
        values["model.dtype"] = "float32"
    known = {*_READ, *(knob.nanogpt for knob in KNOBS.values())}
    left = [str(flag) for flag in flags if flag not in known]
    if values["model.dtype"] == "float16":
        values["model.dtype"] = "float32"
        left.append("dtype=float16")
    if _value(flags, "decay_lr", True):
        values["optim.lr_decay_iters"] = _value(flags, "lr_decay_iters", 1)
        if not values["optim.lr_decay_iters"]:  # Here that is another word for max_iters.
            raise ValueError("its lr_decay_iters is 0")
    else:
        rate = values["optim.learning_rate"]
        values |= {"optim.schedule": "constant", "optim.warmup_iters": 0}
        values["optim.min_lr"] = min(values["optim.min_lr"], rate)
    return values, left


def _value(flags: Mapping[str, Any], flag: str, example: Any) -> Any:
    """A flag's value, if it is of the type of `example`."""
    if flag not in flags:
        raise ValueError(f"its config has no {flag}")
    value = flags[flag]
    if type(example) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(example):
        raise ValueError(f"its {flag} is {value!r:.20}, which is not {type_name(example)}")
    return value


def flags_of(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """nanoGPT's flags for an experiment that nanoGPT can do, but for where it is done on what."""
    values = flat(config)
    flags = {knob.nanogpt: values[name] for name, knob in KNOBS.items() if knob.nanogpt}
    return flags | {
        # nanoGPT's is the micro-batch.
        "batch_size": config.train.batch_size // config.train.grad_accum_steps,
        "decay_lr": config.optim.schedule == "cosine",
        # nanoGPT divides by what is left after the warmup; here the least is a fall of one update.
        "lr_decay_iters": max(decay_iters(config), config.optim.warmup_iters + 1),
        "eval_iters": config.eval.iters if config.eval.mode == "random" else 20,
    }
