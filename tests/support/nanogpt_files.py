"""A ckpt.pt as nanoGPT's train.py leaves it, of the oracles' weights; and nanoGPT itself.

GPTJAX_NANOGPT names a checkout whose data/shakespeare_char is prepared; it is run as it is.
"""

import os
import subprocess
import sys
from pathlib import Path

import fake_torch
import nanogpt
import numpy as np
import pytest

from gptjax.model import interop

CHECKOUT = Path(os.environ.get("GPTJAX_NANOGPT") or "nowhere")

# All flags of nanoGPT's train.py, as it stores them.
FLAGS = {
    "out_dir": "out",
    "eval_interval": 250,
    "log_interval": 10,
    "eval_iters": 20,
    "eval_only": False,
    "always_save_checkpoint": False,
    "init_from": "scratch",
    "wandb_log": False,
    "wandb_project": "owt",
    "wandb_run_name": "gpt2",
    "dataset": "letters",
    "gradient_accumulation_steps": 2,
    "batch_size": 3,
    "block_size": 1024,
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "dropout": 0.0,
    "bias": False,
    "learning_rate": 1e-3,
    "max_iters": 2000,
    "weight_decay": 0.2,
    "beta1": 0.8,
    "beta2": 0.9,
    "grad_clip": 1.0,
    "decay_lr": True,
    "warmup_iters": 100,
    "lr_decay_iters": 1500,
    "min_lr": 1e-4,
    "backend": "nccl",
    "device": "cuda",
    "dtype": "bfloat16",
    "compile": True,
}


def stored(*, step=7, **flags):
    """What is in a ckpt.pt of the small model without biases after `step` updates."""
    oracle = nanogpt.Oracle("nobias", "float32")
    sizes = ("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size")
    weights = {
        name.removeprefix("init/"): array.astype(np.float32)
        for name, array in oracle.arrays.items()
        if name.startswith("init/")
    }
    order = sorted(
        (name for name, _ in interop.shapes(oracle.model_config)),
        key=lambda name: weights[name].ndim < 2,
    )
    n_decaying = sum(array.ndim >= 2 for array in weights.values())
    state = {
        number: {
            "step": np.array(step, np.float32),
            "exp_avg": 0.01 * weights[name],
            "exp_avg_sq": (0.01 * weights[name]) ** 2,
        }
        for number, name in enumerate(order)
    }
    group = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8, "amsgrad": False, "maximize": False}
    groups = [
        {**group, "weight_decay": 0.1, "params": list(range(n_decaying))},
        {**group, "weight_decay": 0.0, "params": list(range(n_decaying, len(order)))},
    ]
    return {
        "model": {**weights, interop.HEAD: weights[interop.TOKENS]},
        "optimizer": {"state": state, "param_groups": groups},
        "model_args": {**{name: oracle.settings[name] for name in sizes}, "dropout": 0.0},
        "iter_num": step,
        "best_val_loss": np.array(2.5, np.float32),
        "config": {**FLAGS, **flags},
    }


def with_tensors(value):
    """Plain data with fake_torch's tensors for arrays."""
    if isinstance(value, np.ndarray):
        return fake_torch.Tensor(value)
    if isinstance(value, dict):
        return {key: with_tensors(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(with_tensors, value))
    return value


def write(path, content):
    """Writes a ckpt.pt that fake_torch reads; returns its path."""
    with open(path, "wb") as file:
        fake_torch.save(with_tensors(content), file)
    return path


def shakespeare():
    """nanoGPT's folder of Tiny Shakespeare; skips the test where there is none."""
    folder = CHECKOUT / "data" / "shakespeare_char"
    if not (folder / "meta.pkl").is_file():
        pytest.skip("wants GPTJAX_NANOGPT, a checkout whose data/shakespeare_char is prepared")
    return folder


def run(script, *arguments, **flags):
    """What one of nanoGPT's scripts has printed, on the CPU."""
    flags |= dict(device="cpu", compile=False)
    command = [sys.executable, script, *arguments, *(f"--{n}={v}" for n, v in flags.items())]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
