"""Every knob of a run: its default, what it means with its unit, and the rule it must keep.

Whatever way a value came in (config_file.py reads files and command lines, a checkpoint holds
JSON), `validate` checks all of them before JAX compiles anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from gptjax.errors import UserError


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

# An error suggests numbers of heads up to here: for a mistyped width of many digits, looking at
# all of them would take for ever.
_MOST_HEADS_TRIED = 1024

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
        "cudnn: its fused kernel, for bfloat16 without dropout on NVIDIA cards; auto: if it works",
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


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """What the model sees of a config; no defaults, so that nothing is left out by accident.

    `vocab_size` counts the symbols that pad the vocabulary as well.
    """

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    dropout: float
    dropout_generator: str
    bias: bool
    dtype: str
    param_dtype: str
    matmul_precision: str
    norm: str
    position: str
    mlp: str
    qk_norm: bool
    tie_embeddings: bool
    token_shift: bool
    attention: str
    attention_rows: int
    zero_residual: bool
    vocab_size: int


def is_small_vocabulary(n_symbols: int) -> bool:
    """Whether tokens are found by one-hot products and comparisons rather than by index.

    The gradient of an index is a scatter-add, slow on CPUs and GPUs alike; that of a one-hot
    product is another product, as long as those are small.
    """
    return n_symbols <= 1024


def default_config() -> ml_collections.ConfigDict:
    """Every knob at its default, locked: a misspelt name is an error."""
    nested: dict[str, Any] = {}
    for name, knob in KNOBS.items():
        *sections, leaf = name.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[leaf] = knob.default
    return ml_collections.ConfigDict(nested).lock()


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as {"model.n_layer": 4, ...}, in the order of KNOBS."""
    values: dict[str, Any] = {}
    for name in KNOBS:
        value: Any = config
        for part in name.split("."):
            value = value[part]
        values[name] = value
    return values


def set_knob(config: ml_collections.ConfigDict, name: str, value: Any) -> None:
    """Sets one knob by its dotted name."""
    *sections, leaf = name.split(".")
    for section in sections:
        config = config[section]
    config[leaf] = value


def from_flat(values: Mapping[str, Any], *, origin: str) -> ml_collections.ConfigDict:
    """A validated config from dotted names, as a checkpoint stores it; absent knobs get defaults.

    Raises:
      UserError: for an unknown name or a value that breaks its rule; `origin` says where it stood.
    """
    config = default_config()
    for name, value in values.items():
        if name not in KNOBS:
            raise UserError(f"{origin}: {name}", value, "unknown knob", "Use a newer gptjax.")
        default = KNOBS[name].default
        if type(value) is not type(default):
            raise UserError(f"{origin}: {name}", repr(value), f"must be {type_name(default)}")
        set_knob(config, name, value)
    validate(config)
    return config


def validate(config: ml_collections.ConfigDict) -> None:
    """Checks every knob against its rule, then the rules between knobs.

    Raises:
      UserError: naming the first knob that breaks a rule, its value and the rule.
    """
    validate_each(config)
    validate_together(config)


def validate_each(config: ml_collections.ConfigDict) -> None:
    """Raises UserError naming the first knob that breaks its own rule."""
    for name, value in flat(config).items():
        knob = KNOBS[name]
        if type(value) is not type(knob.default):
            raise UserError(name, repr(value), f"must be {type_name(knob.default)}")
        if not knob.holds(value):
            raise UserError(name, repr(value), knob.rule, f"Meaning: {knob.meaning}.")


def validate_together(config: ml_collections.ConfigDict) -> None:
    """Raises UserError naming the first knob that breaks a rule between knobs."""
    model, optim, train = config.model, config.optim, config.train
    if model.n_embd % model.n_head:
        most = min(model.n_embd, _MOST_HEADS_TRIED)
        fitting = [n for n in range(1, most + 1) if model.n_embd % n == 0]
        nearest = sorted(sorted(fitting, key=lambda n: abs(n - model.n_head))[:3])
        raise UserError(
            "model.n_embd",
            model.n_embd,
            f"is not divisible by model.n_head {model.n_head}",
            f"Try n_head {', '.join(map(str, nearest))}.",
        )
    if model.position == "rotary" and model.n_embd // model.n_head % 2:
        raise UserError(
            "model.n_embd",
            model.n_embd,
            f"gives {model.n_head} heads an odd width each; rotary positions turn pairs",
            f"Try n_embd {2 * model.n_embd}, or position=learned.",
        )
    if optim.min_lr > optim.learning_rate:
        raise UserError(
            "optim.min_lr", optim.min_lr, f"must be ≤ learning_rate {optim.learning_rate}"
        )
    horizon = decay_iters(config)
    if optim.schedule != "constant" and train.max_iters and optim.warmup_iters >= horizon:
        raise UserError(
            "optim.warmup_iters",
            optim.warmup_iters,
            f"must be < lr_decay_iters {horizon}",
            f"Set --config.optim.warmup_iters={horizon // 20}.",
        )
    if train.batch_size % train.grad_accum_steps:
        raise UserError(
            "train.batch_size",
            train.batch_size,
            f"is not divisible by train.grad_accum_steps {train.grad_accum_steps}",
        )


def model_config(config: ml_collections.ConfigDict, n_symbols: int) -> GPTConfig:
    """The model that a config asks for, of a tokenizer of `n_symbols`."""
    values = config.model.to_dict()
    vocab_size = padded_vocabulary(n_symbols, values.pop("vocab_multiple"))
    return GPTConfig(**values, vocab_size=vocab_size)


def padded_vocabulary(n_symbols: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that holds so many symbols.

    Matrix products of such sizes are quick on a GPU: nanoGPT pads 50,257 to 50,304.
    """
    return -(-n_symbols // multiple) * multiple


def type_name(default: Any) -> str:
    """What a knob with this default takes, in words."""
    return {bool: "true or false", int: "an integer", float: "a number", str: "text"}[type(default)]


def decay_iters(config: ml_collections.ConfigDict) -> int:
    """The update at which the learning rate reaches `min_lr`."""
    return config.optim.lr_decay_iters or config.train.max_iters


def micro_batches(config: ml_collections.ConfigDict, platform: str, n_devices: int) -> int:
    """Micro-batches an update is computed in: train.grad_accum_steps, each cut to what is quick.

    The update is the same but for rounding, and for dropout, whose masks are drawn for each.
    """
    train = config.train
    n_sequences = train.batch_size // train.grad_accum_steps
    n_tokens = train.tokens_at_once or (_CPU_TOKENS_AT_ONCE if platform == "cpu" else 2**31)
    most = min(n_sequences, n_tokens * n_devices // config.model.block_size)
    fitting = (
        size
        for size in range(most, n_devices, -1)
        if n_sequences % size == 0 and size % n_devices == 0
    )
    return train.batch_size // next(fitting, n_devices)


# What a block makes of more tokens than that leaves the processor's cache before the next operation
# reads it: nanoGPT's 16,384 tokens of width 384 take 1.8 times as long at once.
_CPU_TOKENS_AT_ONCE = 2048


def digest(config: ml_collections.ConfigDict) -> str:
    """A short sha256 of all knobs that can change the numbers (not of where they are written)."""
    values = {name: value for name, value in flat(config).items() if not name.startswith(_WATCHING)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


# Watching a run, or cutting it into dispatches, changes nothing in it.
_WATCHING = ("out_dir", "init_from", "log.", "eval.", "checkpoint.", "train.updates_per_dispatch")
