"""Short runs that switch one difference at a time between two experiments: each one's share."""

from __future__ import annotations

import hashlib
import json as json_module
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gptjax.device.devices import available_devices
from gptjax.explain.ladder_design import Design, Job, Rung, design
from gptjax.explain.ladder_ends import read_end
from gptjax.explain.ladder_plan import Cost, Plan, budget_seconds, plan, seconds_left
from gptjax.explain.ladder_words import Reading, print_table, sentences
from gptjax.run import directory
from gptjax.run.kept_runs import KeptRuns
from gptjax.run.progress import Display, duration
from gptjax.system import cache, files, signals
from gptjax.system.command import run_script
from gptjax.system.errors import RunError, UserError
from gptjax.system.output import printable


def ladder(
    start: str, end: str, *, budget: str, orders: int, seeds: int, out_dir: str, json: str | None
) -> None:
    """Prints what each difference between two experiments makes of the gap of short runs.

    Args:
      start, end: config files, run directories or logs.
      budget: how long it may take, `10m`; it sets the length of the runs and their number.
      orders: random ones, besides the stated one and its reverse.
      seeds: of every rung; 0: as the budget allows.
      out_dir: where results are kept; the same command goes on from them.
      json: a file for all numbers, or None.

    Raises:
      UserError: for ends that cannot be compared so, or a budget that is too small.
      RunError: if a number is not finite.
    """
    seconds = budget_seconds(budget)
    for flag, value in (("--orders", orders), ("--seeds", seeds)):
        if value < 0:
            raise UserError(flag, value, "must be ≥ 0")
    files.check_folder_of("--json", json)
    found = design([read_end("--from", start), read_end("--to", end)], n_random=orders)
    folder = Path(out_dir)
    files.check_writable(folder, flag="--out_dir")
    cache.keep_compiled_programs()
    device = available_devices()[0][0]
    runs = KeptRuns(folder, device, context=found.context, max_tokens=found.max_tokens)
    check_texts(found, runs)
    tell_start(found, runs)
    with directory.locked(folder):
        asked = {"budget": seconds, "seeds": seeds, "device": device.device_kind}
        path = folder / f"plan_{_digest({**found.identity(), **asked})}.json"
        climb = Climb(found, runs, *_planned(found, runs, path, budget=seconds, n_seeds=seeds))
        with signals.tidied(climb.tell_stopped):
            climb.make()
    climb.tell()
    if json:
        files.write_atomically(Path(json), files.pretty_json(climb.to_json()))


def check_texts(found: Design, runs: KeptRuns) -> None:
    """Raises UserError if a text is too short for a rung, or not the one that an end had."""
    for rung in found.rungs:
        runs.inputs(found.values(rung))
    for flag, end in zip(("--from", "--to"), found.ends, strict=True):
        if end.corpus_sha256 not in ("", runs.inputs(end.values).corpus.sha256):
            source = printable(end.values["data.source"])
            raise UserError(flag, end.label, f"its text, {source}, is another one now")


def tell_start(found: Design, runs: KeptRuns) -> None:
    """Says what differs, and how the rungs are made comparable."""
    a, b = (end.values for end in found.ends)
    print(f"{found.labels[0]} → {found.labels[1]}: {len(found.steps)} differences")
    for step in found.steps:
        print(printable(f"  {step.name}: {step.words}"))
    inputs = runs.inputs(a)
    n_tokens = len(runs.val_windows(a)) * found.context
    print(f"val: {n_tokens:,} tokens of {printable(inputs.corpus.name)} at context {found.context}")
    if a["model.block_size"] != b["model.block_size"]:
        print("  contexts differ: every rung is evaluated at the shorter one, so that it compares")
    if inputs.val_sha256 != runs.inputs(b).val_sha256:
        print(
            "  texts differ: each rung is evaluated on its own, and losses on two texts are "
            "different quantities"
        )


def _planned(
    found: Design, runs: KeptRuns, path: Path, *, budget: float, n_seeds: int
) -> tuple[Plan, dict[Rung, Cost]]:
    """The plan and what each rung costs: as it was when this command was begun, else measured."""
    try:
        stored = json_module.loads(path.read_text(encoding="utf-8"))
        costs = {r: Cost(*c) for r, c in zip(found.rungs, stored["costs"], strict=True)}
        return Plan(tuple(stored["shares"]), stored["n_seeds"], stored["seconds"]), costs
    except (OSError, ValueError, KeyError, TypeError):
        costs = measured_costs(found, runs)
    chosen = plan(list(costs.values()), budget=budget, n_seeds=n_seeds)
    stored = {"shares": list(chosen.shares), "n_seeds": chosen.n_seeds, "seconds": chosen.seconds}
    stored["costs"] = [list(vars(cost).values()) for cost in costs.values()]
    files.write_atomically(path, files.pretty_json(stored))
    return chosen, costs


def measured_costs(found: Design, runs: KeptRuns) -> dict[Rung, Cost]:
    """What each rung costs, by a few updates of both ends and the formula for FLOPs.

    A rung between them makes as many FLOPs a second as both do in the geometric mean.
    """
    print("measuring an update of both", flush=True)
    ends = []
    for label, values in zip(found.labels, (end.values for end in found.ends), strict=True):
        program = runs.program(values)
        program.measure()
        print(f"an update of {label}: {1e3 * program.update_seconds:,.1f} ms, measured")
        ends.append(program)
    rates = [
        program.update_seconds / runs.flops(end.values)
        for program, end in zip(ends, found.ends, strict=True)
    ]
    costs = {}
    for rung in found.rungs:
        values = found.values(rung)
        seconds = math.sqrt(rates[0] * rates[1]) * runs.flops(values)
        if rung in found.corners:
            seconds = ends[found.corners.index(rung)].update_seconds
        costs[rung] = Cost(
            n_updates=values["train.max_iters"],
            update_seconds=seconds,
            run_seconds=max(program.evaluation_seconds for program in ends),
            compile_seconds=sum(program.compile_seconds for program in ends) / len(ends),
        )
    return costs


class Climb:
    """The runs of a ladder, as far as they are made."""

    def __init__(self, found: Design, runs: KeptRuns, chosen: Plan, costs: dict[Rung, Cost]):
        self._design, self._runs, self._plan, self._costs = found, runs, chosen, costs
        self._vals: dict[tuple[float, Rung, int], float] = {}
        self._jobs = found.jobs(chosen)
        self._display: Display | None = None
        for job in self._jobs:
            if (val := runs.kept(job.values)) is not None:
                self._vals[job.share, job.rung, job.place] = val

    def make(self) -> None:
        """Makes the runs that are missing."""
        missing = [j for j in self._jobs if (j.share, j.rung, j.place) not in self._vals]
        self._announce(missing)
        n_updates = sum(job.values["train.max_iters"] for job in missing)
        expected = [self._expected(job) for job in missing]
        start = time.monotonic()
        n_before, n_made = 0, len(self._jobs) - len(missing)
        with Display(n_updates=n_updates, step=0) as display:
            self._display = display
            for index, job in enumerate(missing):
                figures = {"run": f"{n_made + index + 1}/{len(self._jobs)}"}
                length = job.values["train.max_iters"]

                def told(n: int, before=n_before, index=index, figures=figures, length=length):
                    passed = time.monotonic() - start
                    left = seconds_left(expected, index, n / length, passed=passed)
                    display.update(before + n, figures, eta_seconds=left)

                val = self._made(job, told)
                self._vals[job.share, job.rung, job.place] = val
                n_before += length
                display.message(
                    f"run {figures['run']}: val {val:.4f} after {length:,} updates of "
                    f"{self._design.words(job.rung)}, seed {job.values['seed']}"
                )

    def _made(self, job: Job, told: Callable[[int], None]) -> float:
        try:
            return self._runs.make(job.values, told)
        except RunError as error:
            raise RunError(
                f"{self._design.words(job.rung)}, seed {job.values['seed']}: {error}; no share can "
                "be given without that run. Bring the ends' learning rates closer together"
            ) from error

    def _announce(self, missing: list[Job]) -> None:
        if not missing:
            print(f"all {len(self._jobs)} runs are there already")
            return
        design, chosen = self._design, self._plan
        lengths = " and ".join(design.horizon(share).at for share in chosen.shares)
        words = (
            f"cost: {len(self._jobs)} short runs: {len(design.rungs)} configs, {chosen.n_seeds} "
            f"seeds each, {lengths}; about {duration(sum(map(self._expected, missing)))}"
        )
        if n_kept := len(self._jobs) - len(missing):
            words += f" for the {len(missing)} that are missing; {n_kept} are there already"
        print(words)
        print("Ctrl-C stops it and keeps what is done; the same command goes on", flush=True)

    def _expected(self, job: Job) -> float:
        """Seconds of a run, a part of the compilation among them."""
        cost, n_runs = self._costs[job.rung], self._plan.n_seeds * len(self._plan.shares)
        return cost.seconds(job.share) + cost.compile_seconds / n_runs

    def tell_stopped(self) -> None:
        """Says what there is when it ends early; called from another thread."""
        if self._display is not None:
            self._display.__exit__()
        print(f"stopped: {len(self._vals)} of {len(self._jobs)} runs are made and kept")
        if self._design.readings(self._plan, self._vals):
            print("so far:")
            self.tell()
        sys.stdout.flush()

    def tell(self) -> None:
        """Prints a table a horizon, then the sentences."""
        for reading in (readings := self._design.readings(self._plan, self._vals)):
            print_table(reading, self._design.steps)
        for number, sentence in enumerate(self._sentences(readings), 1):
            print(printable(f"{number}  {sentence}"))

    def _sentences(self, readings: list[Reading]) -> list[str]:
        unit = self._runs.inputs(self._design.ends[0].values).tokenizer.unit
        return sentences(readings, self._design.steps, self._design.labels, unit=unit)

    def to_json(self) -> dict[str, Any]:
        """All numbers."""
        readings = self._design.readings(self._plan, self._vals)
        return {
            **self._design.to_json(),
            "n_seeds": self._plan.n_seeds,
            "readings": [reading.to_json(self._design.steps) for reading in readings],
            "sentences": self._sentences(readings),
        }


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json_module.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    run_script(__file__)
