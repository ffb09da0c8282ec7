"""A family of small runs: the law of their losses, and what to train."""

from __future__ import annotations

import dataclasses
import hashlib
import json as json_module
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from gptjax.config.config import from_flat
from gptjax.config.family import Family, laptop_family, load_family
from gptjax.device.devices import available_devices
from gptjax.explain import law_plots, sweep_words
from gptjax.explain.drawing import pyplot_for
from gptjax.explain.ladder_plan import budget_seconds, seconds_left
from gptjax.explain.loss_law import Undetermined
from gptjax.explain.sweep_findings import Findings, SweptRun, findings
from gptjax.explain.sweep_plan import MemberCost
from gptjax.explain.sweep_schedule import Job, Schedule, groups, schedule, sizes, stored
from gptjax.run import directory, header
from gptjax.run.inputs import read_inputs
from gptjax.run.progress import Display, duration
from gptjax.run.trainings import Trainings
from gptjax.system import cache, files, signals
from gptjax.system.command import run_script
from gptjax.system.errors import UserError
from gptjax.system.output import printable

# What a member takes besides its updates and its evaluation: its start and its checkpoint.
_OTHER_SECONDS = 1.5


def sweep(
    file: str | None,
    overrides: Mapping[str, str],
    *,
    text: str | None,
    budget: str,
    run_time: str,
    at_once: int,
    out_dir: str | None,
    plot: str | None,
    json: str | None,
) -> int:
    """Trains a family of runs and prints what follows for one that takes `run_time`.

    Args:
      file, text: a sweep file, or a text to try a laptop's sizes and learning rates on.
      overrides: knobs of the sweep file's config, from the command line.
      budget: how long all may take, `10m`.
      at_once: runs in a dispatch; 0: one on a CPU, on a GPU as many as there are alike.
      out_dir: where members have their run directories; None: by the file's name.
      plot, json: files for a picture and for all numbers, or None.

    Returns the exit code: 130 or 143 where a signal stopped it; the same command goes on.

    Raises:
      UserError: for bad input, or a budget that is too small.
      RunError: if something cannot be written.
    """
    started = time.monotonic()
    seconds, run_seconds = budget_seconds(budget), budget_seconds(run_time, flag="--run_time")
    if at_once < 0:
        raise UserError("--at_once", at_once, "must be ≥ 0")
    files.check_folder_of("--json", json)
    files.check_picture("--plot", plot)
    if plot:
        pyplot_for("--plot", plot)
    family = load_family(file, overrides) if file else laptop_family(f"text:{text}")
    folder = Path(out_dir or f"out/sweep_{Path(file or text or '').stem}")
    files.check_writable(folder, flag="--out_dir")
    cache.keep_compiled_programs()
    base = from_flat(family.base, origin="sweep")
    devices, why = available_devices(base.mesh.cpu_devices, base.mesh.gpu_memory)
    inputs = read_inputs(base)
    with directory.locked(folder):
        notices = header.of_devices(devices[:1], why) + header.of_corpus(inputs)
        Display(n_updates=1, step=0).notices(notices)
        trainings = Trainings(inputs, devices[0], at_once=at_once)
        members = Sweep(
            family, trainings, folder, budget=seconds, run_seconds=run_seconds, started=started
        )
        with signals.noted() as stop:
            members.run(stop)
        try:
            found = findings(members.swept(), run_seconds=run_seconds)
        except Undetermined as error:
            print(f"nothing can be said yet: {error}")
            return stop.exit_code if stop.number else 1
    sweep_words.print_table(found)
    said = sweep_words.sentences(
        found,
        run_seconds=run_seconds,
        unit=inputs.tokenizer.unit,
        n_train_tokens=inputs.n_tokens["train"],
        n_left_out=members.n_left_out,
    )
    for number, sentence in enumerate(said, 1):
        print(printable(f"{number}  {sentence}"))
    if stop.number:
        print("stopped: what is done is kept; the same command goes on")
    elif found.choices:
        command = sweep_words.train_command(file, overrides, family, found.choices[0])
        print("train it:", printable(command))
    _write(found, said, plot=plot, json=json)
    return stop.exit_code if stop.number else 0


def _write(found: Findings, said: list[str], *, plot: str | None, json: str | None) -> None:
    if plot:
        files.write_atomically(Path(plot), law_plots.picture_file(found, plot))
    if json:
        content = files.pretty_json({**sweep_words.to_json(found), "sentences": said})
        files.write_atomically(Path(json), content)


class Sweep:
    """A family's members: which are trained, and how far they are.

    Attributes:
      n_left_out: members that there was no time for.
    """

    def __init__(
        self,
        family: Family,
        trainings: Trainings,
        folder: Path,
        *,
        budget: float,
        run_seconds: float,
        started: float,
    ):
        """Decides what is trained: as when this command was begun, else by measuring.

        `started` is time.monotonic() when the budget began.

        Raises:
          UserError: if there is no time for anything.
        """
        self._family, self._trainings = family, trainings
        self._budget, self._started, self._spent = budget, started, 0.0
        axes = [[axis.name, axis.choices] for axis in family.axes]
        identity = [family.base, axes, budget, run_seconds, trainings.identity]
        said = json_module.dumps(identity, sort_keys=True)
        self._path = folder / f"plan_{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
        try:
            known = json_module.loads(self._path.read_text(encoding="utf-8"))
            self._schedule: Schedule = stored(known, family, folder)
            self._spent = float(known["spent_seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            self._schedule = schedule(
                family,
                folder,
                self._measured(),
                budget=budget,
                spent=time.monotonic() - started,
                run_seconds=run_seconds,
            )
        self.n_left_out = self._schedule.n_left_out
        self._store()

    def _spent_seconds(self) -> float:
        return self._spent + time.monotonic() - self._started

    def _store(self) -> None:
        known = {**self._schedule.to_json(), "spent_seconds": self._spent_seconds()}
        files.write_atomically(self._path, files.pretty_json(known))

    def _measured(self) -> dict[str, MemberCost]:
        """What a member of each size takes, by a few updates."""
        found = {}
        for size, (values, n_alike) in sizes(self._family).items():
            timing = self._trainings.timing(values, n_alike)
            other = timing.evaluation + _OTHER_SECONDS
            found[size] = MemberCost(timing.update, other, timing.update_alone)
            setting = self._family.setting(values) or "the base"
            print(f"an update of {setting}: {1e3 * timing.update:,.1f} ms, measured", flush=True)
        return found

    def run(self, stop: signals.StopRequest) -> None:
        """Trains the members that are not over yet, as long as the budget lasts."""
        every = self._schedule.jobs
        missing = [job for job in every if self._trainings.result(job.values) is None]
        self._announce(missing)
        if not missing:
            return
        made = groups(missing, self._trainings.together)
        expected = [sum(map(self._schedule.expected, group)) for group in made]
        n_made, n_before = len(every) - len(missing), 0
        start = time.monotonic()
        with Display(n_updates=sum(map(_n_updates, made)), step=0) as display:
            for index, group in enumerate(made):
                figures = {"run": f"{n_made + len(group)}/{len(every)}"}

                def told(n: int, index=index, before=n_before, group=group, figures=figures):
                    passed, part = time.monotonic() - start, n / _n_updates(group)
                    left = seconds_left(expected, index, part, passed=passed)
                    display.update(before + n, figures, eta_seconds=left)

                if index and self._spent_seconds() + expected[index] > self._budget:
                    self.n_left_out += sum(map(len, made[index:]))
                    display.message("the budget is used up: updates took longer than measured")
                    return
                self._trainings.train([job.values for job in group], told, stop)
                self._store()
                if stop.number:
                    return
                n_made, n_before = n_made + len(group), n_before + _n_updates(group)
                for job in group:
                    display.message(f"{job.name}: {self._words(job)}")

    def _announce(self, missing: Sequence[Job]) -> None:
        n_jobs = len(self._schedule.jobs)
        if not missing:
            print(f"all {n_jobs} members are there already")
            return
        words = f"{n_jobs} of {n_jobs + self.n_left_out} members fit the budget"
        if n_jobs > len(missing):
            words += f", {n_jobs - len(missing)} are there already"
        print(f"{words}; about {duration(sum(map(self._schedule.expected, missing)))}")
        print("Ctrl-C stops it and keeps what is done; the same command goes on", flush=True)

    def _words(self, job: Job) -> str:
        found = self._trainings.result(job.values)
        assert found is not None
        return found.failed or f"val {found.val_nats:.4f} ± {found.val_sem:.4f}"

    def swept(self) -> list[SweptRun]:
        """The members that are over."""
        found = []
        for job in self._schedule.jobs:
            if (each := self._trainings.result(job.values)) is not None:
                if math.isnan(each.update_seconds):
                    alone = self._schedule.costs[job.size].alone_seconds
                    each = dataclasses.replace(each, update_seconds=alone)
                found.append(SweptRun(job.setting, job.values, **vars(each)))
        return found


def _n_updates(group: Sequence[Job]) -> int:
    return sum(job.values["train.max_iters"] for job in group)


if __name__ == "__main__":
    run_script(__file__)
