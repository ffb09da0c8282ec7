"""Families of configs: what a sweep file says is to be tried, and its members.

A sweep file is a config file that has a `get_sweep()` as well. What that returns lists values by
knob; or, under a name of its own, sets of knobs that change together:

    {"size": [{"model.n_layer": 2, "model.n_embd": 64}, …], "optim.learning_rate": [1e-3, 3e-3]}

Its members are all combinations.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.config.config import default_config, flat, from_flat
from gptjax.config.config_file import called, home_expanded, load_config
from gptjax.config.knobs import KNOBS
from gptjax.system.errors import UserError, did_you_mean

LENGTH = "train.max_iters"

# The knobs that are one learning rate with its floor.
RATES = ("optim.learning_rate", "optim.min_lr", "optim.muon_learning_rate")

_A_SWEEP = (
    "A sweep file is a config file with get_sweep() as well; see configs/sweeps/shakespeare.py."
)

# Losses on other texts or in other contexts are other quantities.
_ANOTHER_QUANTITY = ("data.", "model.block_size", "model.vocab_multiple")

# More than anybody waits for; a mistyped list is not to fill the memory.
_MOST_MEMBERS = 10_000


@dataclasses.dataclass(frozen=True)
class Axis:
    """What changes together: a name, and the knobs' values in turn."""

    name: str
    choices: tuple[dict[str, Any], ...]

    @property
    def telling(self) -> list[str]:
        """The knobs whose values tell the choices apart: the first, and others as needed."""
        knobs = list(self.choices[0])
        for n in range(1, len(knobs) + 1):
            seen = {tuple(choice[knob] for knob in knobs[:n]) for choice in self.choices}
            if len(seen) == len(self.choices):
                return knobs[:n]
        return knobs


@dataclasses.dataclass(frozen=True)
class Member:
    """One config of a family, and what it is called: a folder's name."""

    name: str
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """A config, and what is tried of it.

    Attributes:
      base: every knob of the config.
      axes: what changes. Without LENGTH among it, the time there is says how long members are.
    """

    base: dict[str, Any]
    axes: tuple[Axis, ...]

    @property
    def has_lengths(self) -> bool:
        """Whether it says itself how many updates its members make."""
        return any(LENGTH in axis.choices[0] for axis in self.axes)

    def members(self) -> Iterator[Member]:
        """All combinations; without lengths of its own each is as long as the base."""
        for choices in itertools.product(*(axis.choices for axis in self.axes)):
            values = dict(self.base)
            parts = []
            for axis, choice in zip(self.axes, choices, strict=True):
                values |= choice
                told = axis.telling if len(axis.choices) > 1 else []
                parts += [f"{knob.rpartition('.')[2]}{choice[knob]}" for knob in told]
            yield Member("-".join(parts) or "base", values)

    def setting(self, values: Mapping[str, Any]) -> str:
        """What a member has that others have not, but for length and seed: `n_embd 64`."""
        told = [
            knob
            for axis in self.axes
            if len(axis.choices) > 1
            for knob in axis.telling
            if knob not in (LENGTH, "seed")
        ]
        return ", ".join(f"{knob.rpartition('.')[2]} {values[knob]}" for knob in told)


def load_family(path: str, overrides: Mapping[str, str]) -> Family:
    """The family of a sweep file; the command line's overrides change its config.

    Raises:
      UserError: if the file is missing or broken, or a member breaks a rule, which it names.
    """
    listed = called(path, "get_sweep", _A_SWEEP, flag="sweep file")
    if not isinstance(listed, dict) or not listed:
        raise UserError("sweep file", path, "get_sweep() returned no dict of lists", _A_SWEEP)
    axes = tuple(_axis(path, name, values) for name, values in listed.items())
    seen: set[str] = set()
    for axis in axes:
        for knob in axis.choices[0]:
            if knob in seen:
                raise UserError("sweep file", path, f"lists {knob} twice")
            if knob in overrides:
                rule = f"is listed in {path}"
                raise UserError(f"--config.{knob}", overrides[knob], rule, "Change it there.")
            seen.add(knob)
    family = Family(flat(load_config(path, overrides)), axes)
    check(family, path)
    return family


def check(family: Family, origin: str) -> None:
    """Raises UserError for too many members, two alike, or one that breaks a rule."""
    n_members = 1
    for axis in family.axes:
        n_members *= len(axis.choices)
    if n_members > _MOST_MEMBERS:
        raise UserError("sweep file", origin, f"has {n_members:,} members; must be ≤ 10,000")
    for member in family.members():
        from_flat(member.values, origin=f"{origin}: {member.name}")


def _axis(path: str, name: str, values: Any) -> Axis:
    if not isinstance(values, list | tuple) or not values:
        raise UserError("sweep file", path, f"{name!r} is no list of values", _A_SWEEP)
    choices = tuple(v if isinstance(v, dict) else {name: v} for v in values)
    for choice in choices:
        if list(choice) != list(choices[0]):
            raise UserError("sweep file", path, f"{name!r} has other knobs in each place")
    for knob in choices[0]:
        if knob not in KNOBS:
            raise UserError("sweep file", path, f"unknown knob {knob}", did_you_mean(knob, KNOBS))
        if knob.startswith(_ANOTHER_QUANTITY):
            rule = f"lists {knob}; losses are then different quantities and make no law"
            raise UserError("sweep file", path, rule)
        if not KNOBS[knob].in_digest or knob.startswith("mesh."):
            raise UserError("sweep file", path, f"lists {knob}, which changes no loss")
    if any(choices.count(choice) > 1 for choice in choices):
        raise UserError("sweep file", path, f"{name!r} lists a value twice")
    return Axis(name, choices)


def laptop_family(source: str) -> Family:
    """What is tried where there is no sweep file: sizes and learning rates for a laptop.

    The recipe of configs/shakespeare_char_fast.py, with heads 32 wide, from a tenth of its
    parameters to twice as many, at half its learning rates, at these, and at twice these.
    """
    config = default_config()
    config.update(
        data=dict(source=home_expanded(source), fallback=""),
        model=dict(
            norm="rmsnorm",
            position="rotary",
            mlp="relu2",
            qk_norm=True,
            tie_embeddings=False,
            token_shift=True,
            zero_residual=True,
        ),
        optim=dict(
            name="muon",
            learning_rate=5e-3,
            min_lr=2.5e-4,
            schedule="linear",
            warmup_iters=0,
            beta1=0.8,
            beta2=0.95,
            weight_decay=0.0,
            grad_clip=0.0,
        ),
        train=dict(max_iters=1800),
        eval=dict(interval=100_000, max_tokens=100_000),
        checkpoint=dict(interval=100_000, keep=1),
    )
    base = flat(config)
    sizes = [
        {"model.n_embd": 32 * n_head, "model.n_head": n_head, "model.n_layer": n_layer}
        for n_layer, n_head in ((2, 2), (3, 3), (4, 4), (5, 5))
    ]
    rates = [{name: factor * base[name] for name in RATES} for factor in (0.5, 1.0, 2.0)]
    return Family(base, (Axis("size", tuple(sizes)), Axis("learning rate", tuple(rates))))
