"""Logs as nanoGPT's train.py prints them: written here, and two real ones where they are."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SETTINGS = dict(
    eval_interval=10,
    eval_iters=7,
    log_interval=1,
    dataset="shakespeare_char",
    gradient_accumulation_steps=1,
    batch_size=3,
    block_size=5,
    n_layer=2,
    n_head=1,
    n_embd=4,
    dropout=0.2,
    max_iters=20,
    lr_decay_iters=20,
)


def real_log(name):
    """The path of a real log; skips the test where there is none."""
    data = os.environ.get("GPTJAX_DATA_DIR")
    for shared in (Path(data).parent if data else ROOT, ROOT.parent / "shared"):
        if (shared / "logs" / name).is_file():
            return shared / "logs" / name
    pytest.skip(f"wants {name} in ../shared/logs")


def header(settings=SETTINGS, overrides=(), *, tokens=None, config="config/small.py"):
    """What is printed before the first evaluation; settings become the lines of a config file."""
    known = {"gradient_accumulation_steps": 40, "batch_size": 12, "block_size": 1024}
    known |= {"n_layer": 12, "n_embd": 768} | dict(settings) | dict(overrides)
    if tokens is None:
        tokens = known["gradient_accumulation_steps"] * known["batch_size"] * known["block_size"]
    width = known["n_embd"]
    # 65 symbols; blocks of 12·D² weights and two norms, one norm at the end.
    weights = 65 * width + known["n_layer"] * 12 * width**2
    norms = known["n_layer"] * 2 * width + width
    lines = []
    if config:
        lines += [f"Overriding config with {config}:", "# as small as can be"]
        lines += [f"{name} = {value!r} # why not" for name, value in settings.items()] + [""]
    lines += [f"Overriding: {name} = {value}" for name, value in dict(overrides).items()]
    return [
        *lines,
        f"tokens per iteration will be: {tokens:,}",
        "found vocab_size = 65 (inside data/shakespeare_char/meta.pkl)",
        "Initializing a new model from scratch",
        f"number of parameters: {(weights + norms) / 1e6:.2f}M",
        f"num decayed parameter tensors: 10, with {weights + known['block_size'] * width:,} "
        "parameters",
        f"num non-decayed parameter tensors: 5, with {norms:,} parameters",
        "using fused AdamW: False",
    ]


def body(first=0, last=20, *, every=1, evaluate_every=10, ms=30.0, evaluation_ms=500.0, mfu=True):
    """Evaluations and iterations; losses fall as 4 - number / 100, val lies 0.1 above train."""
    lines = []
    for number in range(first, last + 1):
        is_evaluated = number % evaluate_every == 0
        loss, took = 4 - number / 100, ms + number % 3
        if is_evaluated:
            lines.append(f"step {number}: train loss {loss:.4f}, val loss {loss + 0.1:.4f}")
            lines.append("saving checkpoint to out")
            took += evaluation_ms
        if number % every == 0:
            shown = f", mfu {-100 if number < 5 else 0.43 + is_evaluated:.2f}%" if mfu else ""
            lines.append(f"iter {number}: loss {loss + 0.01:.4f}, time {took:.2f}ms{shown}")
    return lines
