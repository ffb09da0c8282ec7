"""What differs between two experiments, in steps that can be switched one at a time: pure."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gptjax.config.config import from_flat, validate_together
from gptjax.config.knobs import KNOBS
from gptjax.explain.differences import GROUPS
from gptjax.system.errors import UserError

Values = Mapping[str, Any]

# Besides those of `differences.GROUPS`: what gives a group its facts, and what moves last digits.
_ALSO = {
    "corpus": ("data.source",),
    "dropout": ("model.dropout_generator",),
    "kernels": (
        *("model.attention", "model.attention_rows", "train.tokens_at_once"),
        *("model.remat", "model.scan_layers"),
    ),
}

# Knobs that are switched together, in the stated order. Those of a rule between knobs stand in one
# step (but for heads and rotary positions, see `_runnable`).
_GROUPS = {
    name: tuple(knob for knob in (*GROUPS.get(name, ()), *_ALSO.get(name, ())) if knob in KNOBS)
    for name in (*GROUPS, "kernels")
}

# Changes of a step that a sentence tells.
_MOST_TOLD = 3

# Of the length, those that are counted in updates.
_LENGTHS = ("train.max_iters", "optim.lr_decay_iters", "optim.warmup_iters")

# Knobs that do nothing in some configs: by name, when.
_IDLE = {
    "model.dropout_generator": lambda values: values["model.dropout"] == 0,
    "optim.master_weights": lambda values: values["model.param_dtype"] == "float32",
    "optim.muon_learning_rate": lambda values: values["optim.name"] != "muon",
    "optim.muon_momentum": lambda values: values["optim.name"] != "muon",
    "model.follower_rows": lambda values: values["model.followers"] == 0,
    "optim.decay_share": lambda values: values["optim.schedule"] != "linear",
    "optim.lr_decay_iters": lambda values: values["optim.schedule"] == "constant",
    "data.val_fraction": lambda values: values["data.source"].startswith("tokens:"),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """Settings that are switched together.

    Attributes:
      name: what it is called.
      changes: (knob, value of the first end, value of the second), those that differ.
    """

    name: str
    changes: tuple[tuple[str, Any, Any], ...]

    @property
    def words(self) -> str:
        """`n_layer 4 → 6, n_embd 128 → 384`."""
        return ", ".join(self._each)

    @property
    def brief(self) -> str:
        """The same, of many only the first."""
        left = len(self.changes) - _MOST_TOLD
        return self.words if left < 2 else f"{', '.join(self._each[:_MOST_TOLD])} and {left} more"

    @property
    def _each(self) -> list[str]:
        return [f"{knob.split('.')[-1]} {a} → {b}" for knob, a, b in self.changes]


def comparable(values: Values) -> dict[str, Any]:
    """A config's knobs for a ladder: its own where they can change a number, else the default.

    Short runs are made on one device of this machine, and on the text that is asked for or none.
    """
    kept = {name: knob.default for name, knob in KNOBS.items()}
    for name, value in values.items():
        if KNOBS[name].in_digest and KNOBS[name].on_resume != "machine":
            kept[name] = value
    # A number of updates of its own is the same schedule as 0, which means: as many as all.
    if kept["optim.lr_decay_iters"] == kept["train.max_iters"]:
        kept["optim.lr_decay_iters"] = 0
    return {**kept, "mesh.data": 1, "mesh.fsdp": 1, "data.fallback": ""}


def steps_between(a: Values, b: Values) -> tuple[Step, ...]:
    """The steps from one `comparable` config to another, in the stated order; () for none.

    Whichever of them are switched, the config keeps the rules.
    """
    groups = dict(_GROUPS)
    if a["optim.name"] != b["optim.name"]:
        # Another optimizer has rates of its own: with the other's it is nobody's recipe.
        groups["optimizer"] += groups.pop("learning rate")
    grouped = {knob for knobs in groups.values() for knob in knobs}
    groups |= {knob: (knob,) for knob in KNOBS if knob not in grouped}
    steps = []
    for name, knobs in groups.items():
        changes = tuple((knob, a[knob], b[knob]) for knob in knobs if _differs(knob, a, b))
        if changes:
            steps.append(Step(name, changes))
    return _runnable(a, tuple(steps))


def _differs(knob: str, a: Values, b: Values) -> bool:
    idle = _IDLE.get(knob)
    return a[knob] != b[knob] and not (idle is not None and idle(a) and idle(b))


def _runnable(a: Values, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps, with those made one that cannot be switched one at a time.

    (Rotary positions want an even width of heads, and a model that has one may have got it with
    another number of heads.)
    """
    if _all_run(a, steps):
        return steps
    for one, other in itertools.combinations(steps, 2):
        both = Step(f"{one.name} and {other.name}", one.changes + other.changes)
        merged = tuple(both if step is one else step for step in steps if step is not other)
        if _all_run(a, merged):
            return merged
    everything = tuple(change for step in steps for change in step.changes)
    return (Step("all settings", everything),)


def _all_run(a: Values, steps: Sequence[Step]) -> bool:
    config = from_flat(a, origin="--from")
    for n in range(len(steps) + 1):
        for switched in itertools.combinations(steps, n):
            changes = {
                knob: second if step in switched else first
                for step in steps
                for knob, first, second in step.changes
            }
            config.update_from_flattened_dict(changes)
            try:
                validate_together(config)
            except UserError:
                return False
    return True


def orders(n_steps: int, n_random: int, *, seed: int) -> list[tuple[int, ...]]:
    """The stated order of steps, its reverse, and `n_random` others drawn at random.

    No order comes twice: there are fewer where there are no more.
    """
    stated = tuple(range(n_steps))
    found = list(dict.fromkeys([stated, stated[::-1]]))
    rng = np.random.default_rng(seed)
    wanted = min(2 + n_random, math.factorial(n_steps))
    while len(found) < wanted:
        order = tuple(map(int, rng.permutation(n_steps)))
        found += [order] if order not in found else []
    return found


def rungs(order: Sequence[int]) -> Iterator[frozenset[int]]:
    """What is switched on the way from one end to the other: nothing first, all at last."""
    for n in range(len(order) + 1):
        yield frozenset(order[:n])


def rung_values(a: Values, steps: Sequence[Step], switched: Collection[int]) -> dict[str, Any]:
    """The first end's knobs, with those of the steps that are switched."""
    changes = {knob: b for i in switched for knob, _, b in steps[i].changes}
    return {**a, **changes}


def shortened(values: Values, share: float) -> dict[str, Any]:
    """The recipe made shorter: its updates, its warmup and its decay, all by the same share.

    The learning rate comes down in a short run as in the whole one. A share of 1 is the run itself.
    """
    if share == 1:
        return dict(values)
    changes = {name: round(share * values[name]) for name in _LENGTHS}
    changes["train.max_iters"] = max(1, changes["train.max_iters"])
    if values["optim.lr_decay_iters"]:
        # The rule between the two: a decay ends after the warmup.
        least = changes["optim.warmup_iters"] + 1
        changes["optim.lr_decay_iters"] = max(least, changes["optim.lr_decay_iters"])
    return {**values, **changes}


def seeds(a: Values, b: Values, rung: Values, n: int) -> list[int]:
    """The seeds of a rung's n runs: the config's own and those after it, the same for every rung.

    Where the two ends have seeds of their own, the runs of one never have a seed of the other's.
    """
    apart = 2 * abs(a["seed"] - b["seed"]) or 1
    return [(rung["seed"] + i * apart) % 2**32 for i in range(n)]
