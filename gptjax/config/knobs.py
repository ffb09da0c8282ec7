"""Every knob of a run: its default, what it means with its unit, and the rule it must keep."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Knob:
    """One setting: its default (which fixes its type), its meaning with unit, and its rule."""

    default: bool | int | float | str
    meaning: str
    rule: str = ""
    holds: Callable[[Any], bool] = lambda value: True


def _at_least(default: int, low: int, meaning: str) -> Knob:
    rule = f"must be ≥ {low} and < 2**31"  # JAX counts in int32
    return Knob(default, meaning, rule, lambda value: low <= value < 2**31)


def _between(default: int, low: int, high: int, meaning: str) -> Knob:
    return Knob(
        default, meaning, f"must be from {low} to {high}", lambda value: low <= value <= high
    )


def _one_of(default: str, choices: tuple[str, ...], meaning: str) -> Knob:
    return Knob(default, meaning, f"must be one of {', '.join(choices)}", choices.__contains__)


def _rate(default: float, meaning: str) -> Knob:
    rule = "must be finite and ≥ 0"
    return Knob(default, meaning, rule, lambda value: math.isfinite(value) and value >= 0)


def _fraction(default: float, meaning: str) -> Knob:
    return Knob(default, meaning, "must be in [0, 1)", lambda value: 0 <= value < 1)


_DTYPES = ("float32", "bfloat16")

KNOBS: dict[str, Knob] = {
    "seed": Knob(
        1337,
        "the one seed: weights, batches and dropout are drawn from it",
        "must be an integer in [0, 2**32)",
        lambda value: 0 <= value < 2**32,
    ),
    "out_dir": Knob("out/run", "the run directory", "must not be empty", bool),
    "init_from": Knob(
        "auto",
        "auto: continue the run in out_dir, else start; scratch: start, refuse a used directory; "
        "a path: fork the run or checkpoint there into a new out_dir",
        "must not be empty",
        bool,
    ),
    "data.source": Knob(
        "tiny_shakespeare",
        "tiny_shakespeare, text:PATH (a UTF-8 file), tfds:NAME, "
        "tokens:DIR (train.bin and val.bin, ids as uint16) or synthetic",
        "must not be empty",
        bool,
    ),
    "data.fallback": _one_of(
        "synthetic", ("synthetic", ""), 'used when the source cannot be had; "" makes that an error'
    ),
    "data.val_fraction": Knob(
        0.1,
        "share of the characters, at the end of the text, kept for validation; tokens:DIR has "
        "its val.bin, and this is not used",
        "must be in (0, 1)",
        lambda value: 0 < value < 1,
    ),
    "model.n_layer": _at_least(4, 1, "transformer blocks"),
    "model.n_head": _at_least(4, 1, "attention heads; divides n_embd"),
    "model.n_embd": _at_least(128, 1, "width of the residual stream"),
    "model.block_size": _at_least(64, 1, "context length in tokens"),
    "model.dropout": _fraction(0.0, "probability of dropping a value while training"),
    "model.dropout_generator": _one_of(
        "threefry",
        ("threefry", "philox"),
        "what draws dropout's masks; threefry is faster on a CPU",
    ),
    "model.bias": Knob(False, "biases in Linear and LayerNorm"),
    "model.dtype": _one_of("float32", _DTYPES, "what matrix products are computed in"),
    "model.param_dtype": _one_of("float32", _DTYPES, "what parameters are held in"),
    "model.matmul_precision": _one_of(
        "default",
        ("default", "highest"),
        "of float32 products; default: as the device has it, TF32 on NVIDIA cards; highest: full",
    ),
    "model.norm": _one_of(
        "layernorm", ("layernorm", "rmsnorm"), "rmsnorm: no mean, no weights; embeddings as well"
    ),
    "model.position": _one_of(
        "learned", ("learned", "rotary"), "learned: added to embeddings; rotary: turns q and k"
    ),
    "model.mlp": _one_of("gelu", ("gelu", "relu2"), "gelu: the exact one; relu2: ReLU squared"),
    "model.qk_norm": Knob(False, "RMS-normalise each head's queries and keys"),
    "model.tie_embeddings": Knob(True, "the head is the token embedding, transposed"),
    "model.token_shift": Knob(
        False, "half of what a block reads of each token is the token before's"
    ),
    "model.attention": _one_of(
        "auto",
        ("auto", "xla", "cudnn"),
        "cudnn: its fused kernel, for bfloat16 on NVIDIA cards where nothing is dropped out; auto: "
        "if it works",
    ),
    "model.attention_rows": _at_least(
        0, 0, "queries that attend at once; 0: all on a GPU, up to 64 on a CPU; same results"
    ),
    "model.zero_residual": Knob(False, "start with blocks that add nothing to the stream"),
    "model.vocab_multiple": _between(
        1,
        1,
        1024,
        "the vocabulary is padded up to a multiple of this many symbols; what is beyond is never "
        "drawn",
    ),
    "optim.name": _one_of(
        "adamw", ("adamw", "muon"), "muon: for the blocks' matrices, AdamW for the rest"
    ),
    "optim.muon_learning_rate": _rate(0.02, "Muon's peak rate; it follows learning_rate's shape"),
    "optim.muon_momentum": _fraction(0.95, "Muon's decay of the mean gradient"),
    "optim.learning_rate": _rate(1e-3, "peak learning rate, per update"),
    "optim.min_lr": _rate(1e-4, "learning rate at lr_decay_iters and after, per update"),
    "optim.schedule": _one_of(
        "cosine",
        ("cosine", "constant", "linear"),
        "after the warmup; linear: constant, then a straight line over decay_share of all updates",
    ),
    "optim.decay_share": Knob(
        0.6,
        "share of the updates over which the linear schedule falls",
        "must be in (0, 1]",
        lambda value: 0 < value <= 1,
    ),
    "optim.warmup_iters": _at_least(100, 0, "updates of linear warmup"),
    "optim.lr_decay_iters": _at_least(0, 0, "updates until min_lr; 0: train.max_iters"),
    "optim.beta1": _fraction(0.9, "AdamW's decay of the mean gradient"),
    "optim.beta2": _fraction(0.99, "AdamW's decay of the mean squared gradient"),
    "optim.weight_decay": _rate(0.1, "decoupled decay, on tensors of ≥ 2 axes"),
    "optim.grad_clip": _rate(1.0, "largest global gradient norm; 0: off"),
    "optim.master_weights": Knob(
        True, "with bfloat16 parameters, keep float32 copies that the optimizer updates"
    ),
    "train.max_iters": _at_least(2000, 0, "updates in all; 0: evaluate and end"),
    "train.batch_size": _at_least(12, 1, "sequences per update, over all micro-batches"),
    "train.grad_accum_steps": _at_least(1, 1, "micro-batches an update is made of"),
    "train.tokens_at_once": _at_least(
        0,
        0,
        "most tokens of a micro-batch on each device, which is cut further if it has more; "
        "0: 2,048 on a CPU, no limit on a GPU",
    ),
    "train.updates_per_dispatch": _between(
        0, 0, 10_000, "most updates per call of the compiled step; 0: about a second's worth"
    ),
    "eval.interval": _at_least(250, 1, "updates between evaluations"),
    "eval.mode": _one_of(
        "sweep", ("sweep", "random"), "sweep: fixed windows; random: nanoGPT's random batches"
    ),
    "eval.iters": _between(200, 1, 1_000_000, "batches per estimate when eval.mode is random"),
    "eval.max_tokens": _at_least(0, 0, "tokens per split in a sweep; 0: all of val's"),
    "checkpoint.interval": _at_least(250, 1, "updates between checkpoints"),
    "checkpoint.keep": _at_least(2, 1, "newest checkpoints kept, besides the best"),
    "log.interval": _at_least(10, 1, "updates between lines of metrics.jsonl"),
    "log.tensorboard": Knob(False, "write TensorBoard event files as well (extra: tensorboard)"),
    "mesh.data": _at_least(0, 0, "devices a batch is split over; 0: all there are"),
    "mesh.gpu_memory": _fraction(
        0.75, "share of a GPU's memory that is taken at the start; 0: taken as needed, slower"
    ),
    "mesh.cpu_devices": _between(1, 1, 256, "devices XLA makes of this host's CPU"),
}


def type_name(default: Any) -> str:
    """What a knob with this default takes, in words."""
    return {bool: "true or false", int: "an integer", float: "a number", str: "text"}[type(default)]
