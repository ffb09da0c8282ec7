"""One knob: its default, its meaning, the rule its value keeps, and what a change of it means."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

# What becomes of another value when a run goes on:
#   refused   it would be another experiment
#   content   it is taken if what it leads to is the same by its sha256, and told; else refused
#   shown     it is taken, and told as `was → is`
#   machine   it is as asked for now, whatever it was, and told
#   place     it is as asked for now
OnResume = Literal["refused", "content", "shown", "machine", "place"]


# Ids of a BPE that is trained: 256 bytes and what ends a text, at least; at most what a
# checkpoint's JSON has room for (five times GPT-2's).
FEWEST_IDS, MOST_IDS = 257, 2**18


@dataclasses.dataclass(frozen=True)
class Knob:
    """One setting.

    Attributes:
      default: its value when nobody sets it, which fixes its type.
      meaning: in words, with unit.
      rule, holds: what its value must keep to, in words and as a test.
      on_resume: what becomes of another value when a run goes on.
      fixed_in_fork: whether a fork must keep it: arrays' shapes and dtypes follow from it.
      in_digest: whether it can change a run's numbers; watching a run cannot.
      is_path: whether it is, or ends in, a path, whose ~ is expanded.
      nanogpt: nanoGPT's flag of the same meaning; "" for none; None if nanoGPT has no such thing:
        a run beside it must keep the default.
    """

    default: bool | int | float | str
    meaning: str
    rule: str = ""
    holds: Callable[[Any], bool] = lambda value: True
    _: dataclasses.KW_ONLY
    on_resume: OnResume = "shown"
    fixed_in_fork: bool = False
    in_digest: bool = True
    nanogpt: str | None = ""
    is_path: bool = False


def at_least(default: int, low: int, meaning: str, **more: Any) -> Knob:
    """An integer from `low` on; `more` are fields of Knob."""
    rule = f"must be ≥ {low} and < 2**31"  # JAX counts in int32
    return Knob(default, meaning, rule, lambda value: low <= value < 2**31, **more)


def between(default: int, low: int, high: int, meaning: str, **more: Any) -> Knob:
    """An integer from `low` to `high`."""
    rule = f"must be from {low} to {high}"
    return Knob(default, meaning, rule, lambda value: low <= value <= high, **more)


def one_of(default: str, choices: tuple[str, ...], meaning: str, **more: Any) -> Knob:
    """A word out of a few."""
    rule = "must be one of " + ", ".join(choice or '""' for choice in choices)
    return Knob(default, meaning, rule, choices.__contains__, **more)


def rate(default: float, meaning: str, **more: Any) -> Knob:
    """A finite number that is not negative."""
    rule = "must be finite and ≥ 0"
    return Knob(default, meaning, rule, lambda value: math.isfinite(value) and value >= 0, **more)


def fraction(default: float, meaning: str, **more: Any) -> Knob:
    """A number from 0 to below 1."""
    return Knob(default, meaning, "must be in [0, 1)", lambda value: 0 <= value < 1, **more)


def path(default: str, meaning: str, **more: Any) -> Knob:
    """A path, or words that may end in one."""
    return Knob(default, meaning, "must not be empty", bool, is_path=True, **more)


def tokenizer(default: str, meaning: str, **more: Any) -> Knob:
    """What makes tokens of a text: a word, a path, or bpe:N with an N that there can be."""

    def holds(value: str) -> bool:
        kind, _, number = value.partition(":")
        if kind.lower() != "bpe":
            return bool(value)
        # No such number has so many digits; int() would refuse thousands of them.
        is_number = number.isascii() and number.isdecimal() and len(number) < 10
        return kind == "bpe" and is_number and FEWEST_IDS <= int(number) <= MOST_IDS

    rule = f"must be char, gpt2, a path or bpe:N, N from {FEWEST_IDS} to {MOST_IDS}"
    return Knob(default, meaning, rule, holds, is_path=True, **more)


def share(default: float, meaning: str, **more: Any) -> Knob:
    """A share of something, neither none of it nor all."""
    return Knob(default, meaning, "must be in (0, 1)", lambda value: 0 < value < 1, **more)


def type_name(default: Any) -> str:
    """What a knob with this default takes, in words."""
    return {bool: "true or false", int: "an integer", float: "a number", str: "text"}[type(default)]
