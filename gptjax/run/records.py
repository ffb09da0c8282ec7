"""The records of metrics.jsonl: what a run says of itself in numbers. SI units or nats."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

import gptjax
from gptjax.config.config import digest
from gptjax.device import devices as devices_module
from gptjax.device.cards import A100_PEAK
from gptjax.device.cores import allowed_cpus, usable_cores
from gptjax.device.data_peak import data_peak
from gptjax.run.evaluator import Loss
from gptjax.run.group_program import GroupProgram
from gptjax.run.inputs import Inputs
from gptjax.run.program import CompiledTrainer
from gptjax.run.resume import ResumePlan


def run_record(
    plan: ResumePlan, inputs: Inputs, costs: Mapping[str, Any], devices: list[jax.Device]
) -> dict[str, Any]:
    """What a process of a run computes, at what `costs`, on what, with which versions."""
    config = plan.config
    corpus = inputs.to_json(config.data.source)
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "command": shlex.join(sys.argv),
        "versions": versions(),
        **devices_module.machine(devices),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "config_digest": digest(config),
        "start_step": plan.step,
        "precision": precision(config),
        **costs,
        "data_peak": _data_peak(devices[0]),
        **{f"corpus_{name}": value for name, value in corpus.items()},
        "vocab_size": inputs.tokenizer.vocab_size,
        "val_bytes_per_token": inputs.val_bytes_per_token,
        **{f"{split}_tokens": n_tokens for split, n_tokens in inputs.n_tokens.items()},
        "parent": plan.parent,
    }


def _data_peak(device: jax.Device) -> str | None:
    """The peak that a CPU's data give, in words; None where they do not, and for other devices."""
    root = Path("/")
    cores = usable_cores(root, allowed_cpus())
    found = data_peak(root, cores) if device.platform == "cpu" else None
    return found.in_words() if found else None


def peak_record(step: int, program: CompiledTrainer) -> dict[str, Any]:
    """The peak that has taken the place of the `run` record's or of an earlier such record's."""
    peak = program.peak
    return {"step": step, "peak_flops_per_s": peak.flops_per_s, "peak_source": peak.source}


def update_record(
    step: int,
    *,
    metrics: Mapping[str, float],
    learning_rate: float,
    seconds_each: float,
    seconds: float,
    program: CompiledTrainer | GroupProgram,
) -> dict[str, Any]:
    """The last update's loss and, over the time since the record before, an update's time.

    `seconds` are those of the run so far. A peak that is passed is raised: no MFU is above 1.
    MFU is over the peak as it is known now; over the one known at the end divide "flops_per_s".
    """
    program.raise_peak(program.flops / seconds_each)
    return {
        "step": step,
        "loss": metrics["loss"],
        "lr": learning_rate,
        "grad_norm": metrics["grad_norm"],
        "step_ms": 1e3 * seconds_each,
        "tokens_per_s": program.n_tokens / seconds_each,
        "flops_per_s": program.flops / seconds_each,
        "mfu": program.flops / seconds_each / program.peak.flops_per_s,
        # nanoGPT's way, whatever the device: its formula over an A100's peak.
        "mfu_a100": program.costs.formula_flops / seconds_each / A100_PEAK,
        "tokens_seen": step * program.n_tokens,
        "flops_total": step * program.flops,
        "seconds": seconds,
    }


def eval_record(
    step: int,
    losses: Mapping[str, Loss],
    *,
    best_val: float | None,
    floor_nats: float | None,
    seconds: float,
) -> dict[str, Any]:
    """Both splits' losses, and how far val is above the floor that no model can beat, if known."""
    record: dict[str, Any] = {"step": step}
    for split, loss in losses.items():
        record |= {f"{split}_loss": loss.mean, f"{split}_sem": loss.sem}
    record |= {"best_val": best_val, "seconds": seconds}
    if floor_nats is not None:
        record["val_above_floor"] = losses["val"].mean - floor_nats
    return record


def versions() -> dict[str, str]:
    """Of Python, of gptjax and of the libraries whose versions can change a number."""
    libraries = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in libraries}
    return {"python": platform.python_version(), "gptjax": gptjax.__version__, **found}


def precision(config: ml_collections.ConfigDict) -> str:
    """What is held and computed in what, and what is lost by it."""
    model = config.model
    words = f"{model.param_dtype} parameters, {model.dtype} compute"
    if model.matmul_precision != "default":
        words += f" at the {model.matmul_precision} precision"
    if model.param_dtype == "float32":
        return words
    if config.optim.master_weights:
        return words + ", float32 masters"
    return words + ", no masters: updates below 1/256 of a weight are lost"
