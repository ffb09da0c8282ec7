"""What a sweep trains, in which order, within its budget: pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.config.config import from_flat
from gptjax.config.family import RATES, Family
from gptjax.explain.sweep_plan import MemberCost, fitting, lengths, longest_seconds, resized
from gptjax.run.group_program import program_key
from gptjax.run.progress import duration
from gptjax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Job:
    """A member that may be trained.

    Attributes:
      name: its folder's.
      setting: what it has that others have not, but for length and seed.
      turn: which of the seeds it has, from 0.
      size: what it has in common with those that one program trains.
      values: every knob.
    """

    name: str
    setting: str
    turn: int
    size: str
    values: dict[str, Any]

    @property
    def alike(self) -> tuple[int, str, int]:
        """The same for jobs that may be trained in one dispatch."""
        return self.turn, self.size, self.values["train.max_iters"]


def jobs(
    family: Family, folder: Path, costs: Mapping[str, MemberCost], longest: float
) -> list[Job]:
    """All members, each in a folder of its own.

    `costs` are by size. A family without lengths gets three for each, the longest takes `longest`
    seconds; costs are then those of all sizes.
    """
    members = list(family.members())
    seeds = sorted({member.values["seed"] for member in members})
    found = []
    for member in members:
        size, all_values = size_of(member.values), [member.values]
        names = [member.name]
        if not family.has_lengths:
            updates = lengths(costs[size], longest)
            all_values = [resized(member.values, n) for n in updates]
            names = [f"{member.name}-max_iters{n}" for n in updates]
        for name, values in zip(names, all_values, strict=True):
            values = {**values, "out_dir": str(folder / name), "init_from": "auto"}
            turn = seeds.index(values["seed"])
            found.append(Job(name, family.setting(values), turn, size, values))
    return found


def size_of(values: Mapping[str, Any]) -> str:
    """What a member has in common with those that one program trains."""
    return program_key(from_flat(values, origin="sweep"))


def groups(
    chosen: Sequence[Job], together: Callable[[dict[str, Any], int], int]
) -> list[list[Job]]:
    """The jobs in their order, those that make one dispatch side by side.

    `together` says of knobs how many of so many that are alike make one.
    """
    alike: dict[tuple[int, str, int], list[Job]] = {}
    for job in chosen:
        alike.setdefault(job.alike, []).append(job)
    found = []
    for same in alike.values():
        n = together(same[0].values, len(same))
        found += [same[start : start + n] for start in range(0, len(same), n)]
    return found


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The members that there is time for.

    Attributes:
      jobs: those, in their order.
      n_left_out: the others.
      costs: what a member takes, by size.
      longest: seconds of the longest members of a family without lengths; 0 of another.
    """

    jobs: tuple[Job, ...]
    n_left_out: int
    costs: dict[str, MemberCost]
    longest: float

    def expected(self, job: Job) -> float:
        """Seconds that a member takes."""
        return self.costs[job.size].seconds(job.values["train.max_iters"])

    def to_json(self) -> dict[str, Any]:
        """All of it but what the family tells; `stored` reads it."""
        return {
            "members": [job.name for job in self.jobs],
            "longest_seconds": self.longest,
            "costs": {size: list(vars(cost).values()) for size, cost in self.costs.items()},
        }


def stored(found: Mapping[str, Any], family: Family, folder: Path) -> Schedule:
    """The schedule that `to_json` has told; raises ValueError, KeyError or TypeError for others."""
    costs = {size: MemberCost(*cost) for size, cost in found["costs"].items()}
    every = {job.name: job for job in jobs(family, folder, costs, found["longest_seconds"])}
    chosen = tuple(every[name] for name in found["members"])
    return Schedule(chosen, len(every) - len(chosen), costs, found["longest_seconds"])


def schedule(
    family: Family,
    folder: Path,
    costs: Mapping[str, MemberCost],
    *,
    budget: float,
    spent: float,
    run_seconds: float,
) -> Schedule:
    """What is trained within a budget of which some is spent, for a run of `run_seconds`.

    Raises:
      UserError: if there is no time for anything.
    """
    longest = 0.0
    if not family.has_lengths:
        each = [costs[size_of(member.values)] for member in family.members()]
        longest = longest_seconds(each, budget=budget, spent=spent, run_seconds=run_seconds)
    every = Schedule(tuple(jobs(family, folder, costs, longest)), 0, dict(costs), longest)
    seconds = [every.expected(job) for job in every.jobs]
    turns = [job.turn for job in every.jobs]
    places = fitting(seconds, turns, budget=budget, spent=spent)
    if not places:
        rule = f"the shortest member takes {duration(min(seconds))}"
        rule += f", after {duration(spent)} of measuring"
        raise UserError("--budget", duration(budget), rule, "Give it more time.")
    chosen = tuple(every.jobs[place] for place in places)
    return Schedule(chosen, len(seconds) - len(chosen), dict(costs), longest)


def sizes(family: Family) -> dict[str, tuple[dict[str, Any], int]]:
    """By size a member's knobs, and how many of one length are alike, seeds and rates apart."""
    members: dict[str, list[dict[str, Any]]] = {}
    for member in family.members():
        members.setdefault(size_of(member.values), []).append(member.values)
    return {
        size: (found[0], len({(v["seed"], *(v[name] for name in RATES)) for v in found}))
        for size, found in members.items()
    }
