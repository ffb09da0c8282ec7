"""What a ladder between two experiments runs, and what its runs come to: pure."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptjax.explain.ladder_ends import End
from gptjax.explain.ladder_plan import Plan
from gptjax.explain.ladder_steps import (
    Step,
    orders,
    rung_values,
    rungs,
    seeds,
    shortened,
    steps_between,
)
from gptjax.explain.ladder_words import Horizon, Reading
from gptjax.explain.shares import shares
from gptjax.system.errors import UserError

# Of the random orders: the same command has the same ones.
_SEED = 0

Rung = frozenset[int]


@dataclasses.dataclass(frozen=True)
class Job:
    """One short run: of which rung, which of its seeds, what part of the whole run."""

    share: float
    rung: Rung
    place: int
    values: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Design:
    """Two ends, the steps between them, and the orders in which these are switched."""

    ends: tuple[End, End]
    steps: tuple[Step, ...]
    orders: tuple[tuple[int, ...], ...]

    @functools.cached_property
    def rungs(self) -> tuple[Rung, ...]:
        """All that is run: the way there, the way back, and what is new on the other ways."""
        return tuple(dict.fromkeys(rung for order in self.orders for rung in rungs(order)))

    @property
    def corners(self) -> tuple[Rung, Rung]:
        """The rungs that are the ends themselves."""
        return frozenset(), frozenset(range(len(self.steps)))

    @property
    def context(self) -> int:
        """Tokens of the windows that all rungs are evaluated in: the shorter end's."""
        return min(end.values["model.block_size"] for end in self.ends)

    @property
    def max_tokens(self) -> int:
        """Tokens of val that all are evaluated on: those of the end that had more; 0 for all."""
        asked = [end.max_tokens for end in self.ends]
        return max(asked) if all(asked) else 0

    @property
    def labels(self) -> tuple[str, str]:
        """What the ends are called."""
        return self.ends[0].label, self.ends[1].label

    def values(self, rung: Rung) -> dict[str, Any]:
        """The knobs of a rung's whole run."""
        return rung_values(self.ends[0].values, self.steps, rung)

    def words(self, rung: Rung) -> str:
        """What a rung is."""
        a, b = self.labels
        if rung in self.corners:
            return b if rung else a
        return f"{a} with {', '.join(self.steps[i].name for i in sorted(rung))} of {b}"

    def horizon(self, share: float) -> Horizon:
        """How long the ends' short runs are."""
        whole = [end.values["train.max_iters"] for end in self.ends]
        short = [shortened(end.values, share)["train.max_iters"] for end in self.ends]
        return Horizon(updates=(short[0], short[1]), whole=(whole[0], whole[1]))

    def jobs(self, plan: Plan) -> list[Job]:
        """All runs: the half horizon first, and of each horizon one seed of all rungs first."""
        a, b = (end.values for end in self.ends)
        found = []
        for share in plan.shares:
            for place in range(plan.n_seeds):
                for rung in self.rungs:
                    values = shortened(self.values(rung), share)
                    values["seed"] = seeds(a, b, values, plan.n_seeds)[place]
                    found.append(Job(share, rung, place, values))
        return found

    def readings(self, plan: Plan, vals: Mapping[tuple[float, Rung, int], float]) -> list[Reading]:
        """The shares at each horizon, from the seeds of which every rung has been run.

        `vals` are by share, rung and seed; a horizon of which no seed is whole has no reading.
        """
        found = []
        for share in plan.shares:
            whole = [
                place
                for place in range(plan.n_seeds)
                if all((share, rung, place) in vals for rung in self.rungs)
            ]
            if whole:
                losses = {
                    rung: np.array([vals[share, rung, place] for place in whole])
                    for rung in self.rungs
                }
                found.append(Reading(self.horizon(share), shares(losses, self.orders)))
        return found

    def identity(self) -> dict[str, Any]:
        """What makes it this one."""
        ends = [{"values": end.values, "max_tokens": end.max_tokens} for end in self.ends]
        return {"ends": ends, "orders": [list(order) for order in self.orders]}

    def to_json(self) -> dict[str, Any]:
        """What is run."""
        names = [step.name for step in self.steps]
        return {
            "from": self.labels[0],
            "to": self.labels[1],
            "steps": [
                {"name": s.name, "changes": [list(c) for c in s.changes]} for s in self.steps
            ],
            "orders": [[names[i] for i in order] for order in self.orders],
            "context": self.context,
            "max_tokens": self.max_tokens,
        }


def design(ends: Sequence[End], *, n_random: int) -> Design:
    """The ladder between two ends, `n_random` orders besides the stated one and its reverse.

    Raises:
      UserError: if nothing differs that can change a number, or if tokens differ.
    """
    a, b = ends
    tokenizers = [end.values["data.tokenizer"] for end in ends]
    if tokenizers[0] != tokenizers[1]:
        rule = f"has data.tokenizer={tokenizers[1]}, --from {tokenizers[0]}: losses per token of "
        fix = "scripts/compare.py compares two runs in bits per byte."
        raise UserError("--to", b.label, f"{rule}one and the other are of different things", fix)
    if a.label == b.label:  # Two folders of one name.
        a, b = dataclasses.replace(a, label="--from"), dataclasses.replace(b, label="--to")
    steps = steps_between(a.values, b.values)
    if not steps:
        rule = "has the same settings as --from, as far as they can change a number"
        raise UserError("--to", ends[1].label, rule)
    return Design((a, b), steps, tuple(orders(len(steps), n_random, seed=_SEED)))
