"""The config that a nanoGPT log shows being read, as facts under gptjax's names."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from gptjax.device.formula import nanogpt_params
from gptjax.explain.nanogpt_lines import NAMES, Header, Setting
from gptjax.explain.series import Fact

LOG = "log"
DEFAULT = "nanoGPT's default, its config was read"

# Those of nanoGPT's train.py, commit 3adf61e. Without one: the device and, which follows from it,
# dtype; what is pretrained has its own shape.
_DEFAULTS: dict[str, bool | int | float | str] = {
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "block_size": 1024,
    "dropout": 0.0,
    "bias": False,
    "batch_size": 12,
    "gradient_accumulation_steps": 40,
    "learning_rate": 6e-4,
    "max_iters": 600_000,
    "weight_decay": 0.1,
    "beta1": 0.9,
    "beta2": 0.95,
    "grad_clip": 1.0,
    "decay_lr": True,
    "warmup_iters": 2000,
    "lr_decay_iters": 600_000,
    "min_lr": 6e-5,
    "compile": True,
    "eval_interval": 2000,
    "log_interval": 1,
    "eval_iters": 200,
    "init_from": "scratch",
    "dataset": "openwebtext",
}
SHAPE = ("n_layer", "n_head", "n_embd", "bias")
BATCH = ("batch_size", "gradient_accumulation_steps", "block_size")

# By name, something of the type that the setting has.
_KINDS = {**_DEFAULTS, "device": "", "dtype": ""}

# What torch knows; another word was run into the next.
_WORDS = {"device": r"(?:cpu|cuda|mps|xpu)(?::[0-9]{1,3})?", "dtype": "(?:b?float16|float32)"}

# Beyond it no setting makes sense and float64 is not exact.
_LARGEST = 1 << 53

# Headers of which a run has one.
_STARTS = ("scratch", "resumed", "pretrained")

# What a chat or an editor puts before a line: quotes, bullets, numbers.
_PREFIX = re.compile(r"[\s>|*`•·–—-]{0,80}(?:[0-9]{1,5}[.):]?\s{1,20})?")
_COMMENTED = re.compile(_PREFIX.pattern + r"#[#\s]{0,20}")
_ANOTHER = re.compile(rf"(?:{'|'.join(NAMES)})\s{{0,9}}=(?!=)", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the rest of the log shows, which a config must agree with.

    `steps` and `iterations` are the greatest common divisors of their numbers, 0 where there are
    none; `last` is the highest number.
    """

    steps: int
    iterations: int
    last: int
    has_mfu: bool


class Config:
    """What is printed before a run's first line, as it comes.

    `told` has nanoGPT's names; None is a setting that was made but cannot be read.
    """

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.told: dict[str, Any] = {}
        self.has_file = self.has_override = False

    def add(self, line: Header | Setting) -> None:
        """Takes one line in."""
        if isinstance(line, Header):
            if line.kind in _STARTS:
                self.headers = {k: v for k, v in self.headers.items() if k not in _STARTS}
            self.headers[line.kind] = line.value
            return
        name, before, text = line.name, line.before, line.value
        if _COMMENTED.fullmatch(before) or before.endswith("--"):  # A flag in a command line.
            return
        if before.rstrip().endswith("Overriding:"):
            self.has_override = True
            self.told[name] = _overridden(name, text)
            return
        self.has_file = True
        # Two settings on a line, or one within other words: what is said cannot be told apart.
        is_line = _PREFIX.fullmatch(before) and not _ANOTHER.search(text)
        self.told[name] = _assigned(name, text) if is_line else None

    @property
    def start(self) -> str:
        """How its run begins, one of _STARTS; "" if that is not told."""
        return next((kind for kind in _STARTS if kind in self.headers), "")

    @property
    def is_start(self) -> bool:
        """Whether a process begins here, and not merely somebody speaks of settings."""
        return self.has_override or bool({*_STARTS, "config", "tokens"} & set(self.headers))

    @property
    def is_read(self) -> bool:
        """Whether it is seen being read from its beginning: what is not told has its default."""
        return "config" in self.headers or (self.has_override and not self.has_file)

    def values(self, seen: Seen) -> tuple[dict[str, Fact], str]:
        """What is known of nanoGPT's settings, and why its defaults are not known; "" if they are.

        Defaults are taken only where the config is seen being read and nothing speaks against them.
        """
        told = {name: Fact(value, LOG) for name, value in self.told.items() if value is not None}
        assumed = {
            name: Fact(value, DEFAULT) for name, value in _DEFAULTS.items() if name not in self.told
        }
        if "tokens" not in self.headers:  # Before that line came, its default was another.
            assumed.pop("gradient_accumulation_steps", None)
        if "pretrained" in self.headers:  # It has its own.
            for name in SHAPE:
                told.pop(name, None)
                assumed.pop(name, None)
        if not self.is_read:
            return told, ""
        problem = self._problem(assumed | told, seen)
        return (told if problem else assumed | told), problem

    def _problem(self, values: Mapping[str, Fact], seen: Seen) -> str:
        """Where defaults contradict what the log shows; "" if nowhere."""

        def is_assumed(*names: str) -> bool:
            return any(values[name].how == DEFAULT for name in names if name in values)

        tokens = self.tokens_per_update
        if tokens is None and not seen.has_mfu:
            return "it is of an older nanoGPT, whose defaults were others"
        if tokens is not None and is_assumed(*BATCH) and all(name in values for name in BATCH):
            product = math.prod(values[name].value for name in BATCH)
            if product != tokens:
                return f"with them an update has {product:,} tokens, the log says {tokens:,}"
        n_params = self.formula_params(values)
        if is_assumed(*SHAPE) and n_params is not None and not self.agrees(n_params, values):
            return f"with them it has {n_params:,} parameters, the log says otherwise"
        for name, divisor in (("eval_interval", seen.steps), ("log_interval", seen.iterations)):
            if is_assumed(name) and divisor % values[name].value:
                return f"{name} would be {values[name].value}, the log's lines are of other updates"
        if is_assumed("max_iters") and seen.last > values["max_iters"].value:
            return f"it would end at {values['max_iters'].value:,}, the log goes on"
        return ""

    @property
    def tokens_per_update(self) -> int | None:
        """As printed."""
        return self._count("tokens")

    @property
    def vocab_size(self) -> int | None:
        """That of the text, or GPT-2's."""
        found = self._count("vocabulary")
        return self._count("default_vocabulary") if found is None else found

    @property
    def printed_params(self) -> float | None:
        """Parameters without position embeddings, rounded to 10,000; None if not told."""
        value = 1e6 * float(self.headers.get("parameters", "nan").replace(",", ""))
        return value if 0 < value < _LARGEST else None

    def counted_params(self, values: Mapping[str, Fact]) -> int | None:
        """Parameters without position embeddings, from those that are decayed and those not."""
        decayed, others = self._count("decayed"), self._count("not_decayed")
        width, context = values.get("n_embd"), values.get("block_size")
        if decayed is None or others is None or width is None or context is None:
            return None
        return decayed + others - width.value * context.value

    def formula_params(self, values: Mapping[str, Fact]) -> int | None:
        """Parameters by formula; None where shape or vocabulary are not known."""
        shape = {name: values[name].value for name in SHAPE if name in values}
        if self.vocab_size is None or len(shape) < len(SHAPE):
            return None
        shape.pop("n_head")
        return nanogpt_params(**shape, vocab_size=self.vocab_size)

    def agrees(self, n_params: int, values: Mapping[str, Fact]) -> bool:
        """Whether the figures that are printed, if any are, are of so many parameters."""
        printed, counted = self.printed_params, self.counted_params(values)
        is_rounded = printed is None or abs(printed - n_params) < 5_001
        return is_rounded and counted in (None, n_params)

    def _count(self, kind: str) -> int | None:
        count = int(self.headers.get(kind, "0").replace(",", ""))
        return count if 0 < count < _LARGEST else None


def _overridden(name: str, text: str) -> Any:
    """The value of an `Overriding:` line: text is printed without quotes, nothing has a space."""
    word = (text.split() or [""])[0]
    is_text = isinstance(_KINDS[name], str)
    return _checked(name, (word or None) if is_text else _literal(word))


def _assigned(name: str, text: str) -> Any:
    """The value of a line in a config file: one literal, or numbers that are multiplied."""
    value = _literal(text)
    if value is None:
        factors = [_literal(factor) for factor in text.partition("#")[0].split("*")]
        if all(type(factor) in (int, float) for factor in factors):
            value = math.prod(factors)
    return _checked(name, value)


def _literal(text: str) -> Any:
    """What a Python literal says; None if it is none. Nothing is executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of `1if`, for example.
            return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _checked(name: str, value: Any) -> Any:
    """The value as the setting's own type; None if it is of another or beyond all sense."""
    kind: Any = type(_KINDS[name])
    if kind is float and type(value) is int and abs(value) < _LARGEST:
        value = float(value)
    if type(value) is not kind or (kind in (int, float) and not 0 <= value < _LARGEST):
        return None
    return value if name not in _WORDS or re.fullmatch(_WORDS[name], value) else None
