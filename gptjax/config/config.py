"""A run's config: every knob set and checked, and what follows from several of them.

Whatever way a value came in (config_file.py reads files and command lines, a checkpoint holds
JSON), `validate` checks all of them before JAX compiles anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from gptjax.config.knob import type_name
from gptjax.config.knobs import KNOBS
from gptjax.system.errors import UserError

# An error suggests numbers of heads up to here: for a mistyped width of many digits, looking at
# all of them would take for ever.
_MOST_HEADS_TRIED = 1024


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
    followers: int
    follower_rows: int
    attention: str
    attention_rows: int
    remat: bool
    scan_layers: bool
    zero_residual: bool
    vocab_size: int


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
    config.update_from_flattened_dict({name: value})


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
    if config.data.source.startswith("tokens:") and config.data.tokenizer != "char":
        raise UserError(
            "data.tokenizer",
            config.data.tokenizer,
            f"cannot be given with data.source={config.data.source}: its ids are tokens already",
            "Leave it out.",
        )
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
    # Of a run that ends while it warms up, train.py warns.
    horizon = optim.lr_decay_iters
    if optim.schedule != "constant" and horizon and optim.warmup_iters >= horizon:
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


def decay_iters(config: ml_collections.ConfigDict) -> int:
    """The update at which the learning rate reaches `min_lr`."""
    return config.optim.lr_decay_iters or config.train.max_iters


def digest(config: ml_collections.ConfigDict) -> str:
    """A short sha256 of all knobs that can change the numbers (not of where they are written)."""
    values = {name: value for name, value in flat(config).items() if KNOBS[name].in_digest}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
