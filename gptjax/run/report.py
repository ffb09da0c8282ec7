"""What a run tells: each record into metrics.jsonl, and in words to the person who watches."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from gptjax.device.devices import machine
from gptjax.run import header
from gptjax.run.evaluator import Loss
from gptjax.run.inputs import Inputs
from gptjax.run.last_words import best_words, mfu_words, next_words, time_words
from gptjax.run.ledger import Ledger
from gptjax.run.program import CompiledTrainer
from gptjax.run.progress import Display, Notice, count, duration
from gptjax.run.records import eval_record, peak_record, run_record, update_record
from gptjax.run.resume import ResumePlan
from gptjax.run.runlog import RunLog
from gptjax.system.errors import RunError

# A run longer than this is announced, with a smaller config to try first.
_LONG_RUN_SECONDS = 15 * 60
_LAPTOP_PARAMETERS = 2_000_000


def tell_start(
    display: Display, plan: ResumePlan, devices: list[jax.Device], why: str, inputs: Inputs
) -> None:
    """Says what a run goes on from and what differs from before, and what it trains on where."""
    if plan.checkpoint:
        source = plan.parent["init_from"] if plan.is_fork and plan.parent else ""
        display.message(
            (f"forked from {source}" if source else "resumed") + f" at step {plan.step}"
        )
        was, now = plan.checkpoint.meta["machine"], machine(devices)
        changes = [f"{name} {was[name]} → {now[name]}" for name in now if was[name] != now[name]]
        if changes:
            words = ", ".join(changes)
            display.message(f"  {words}: the last digits of the results may differ")
    elif plan.weights:
        display.message(f"weights of {plan.weights.source}")
    for notice in plan.notices:
        display.notice(notice, indent="  ")
    display.notices(header.of_devices(devices, why) + header.of_corpus(inputs))


class Report:
    """Writes a run's records and tells its user what they mean."""

    def __init__(
        self,
        log: RunLog,
        display: Display,
        ledger: Ledger,
        plan: ResumePlan,
        inputs: Inputs,
        program: CompiledTrainer,
    ):
        self._log, self._display, self._ledger = log, display, ledger
        self._plan, self._inputs, self._program = plan, inputs, program
        self._last_record: dict[str, Any] = {}
        self._loss_noted = False
        self._logged_step, self._logged_seconds = plan.step, ledger.seconds_here("step")
        self._first_peak = self._logged_peak = program.peak

    def started(self, devices: list[jax.Device]) -> None:
        """The `run` record, and what is about to be trained, at which cost."""
        program, costs = self._program, self._program.costs_to_json()
        self._log.append("run", **run_record(self._plan, self._inputs, costs, devices))
        lines = header.of_model(self._plan.config, program.costs, program.attention, devices[0])
        self._display.notices(lines + header.of_costs(program.costs, program.peak))
        if self._log.n_damaged:
            words = f"{self._log.n_damaged} damaged lines of metrics.jsonl are left out"
            self._display.notice(Notice(words, "warning"))

    def updates(
        self, n_done: int, metrics_K: Mapping[str, np.ndarray], seconds_each: float
    ) -> None:
        """The `train` records due of the last K updates, each of which took `seconds_each`.

        With them `n_done` are made in all. A call's time is spread evenly over its updates.
        """
        config, n_updates = self._plan.config, len(metrics_K["loss"])
        first, end = n_done - n_updates, self._ledger.seconds_here("step")
        due = [
            step
            for step in range(first + 1, n_done + 1)
            if step % config.log.interval == 0 or step == config.train.max_iters
        ]
        rates = self._program.learning_rates([step - 1 for step in due])
        for step, rate in zip(due, rates, strict=True):
            seconds_ago = (n_done - step) * seconds_each
            passed = end - seconds_ago - self._logged_seconds
            record = update_record(
                step,
                metrics={
                    name: float(values[step - first - 1]) for name, values in metrics_K.items()
                },
                learning_rate=rate,
                seconds_each=passed / (step - self._logged_step),
                seconds=self._ledger.run_seconds() - seconds_ago,
                program=self._program,
            )
            self._log.append("train", **record)
            self._last_record = record
            self._logged_step, self._logged_seconds = step, end - seconds_ago

    def doing(self, what: str) -> contextlib.AbstractContextManager[None]:
        """While inside, the screen says what it is that takes its time."""
        return self._display.doing(what)

    def progress(self, eta_seconds: float) -> None:
        """Shows the last `train` record and what is left."""
        record = self._last_record
        if self._display.lost and not self._loss_noted:
            self._loss_noted = True
            self._log.append("note", step=record.get("step", 0), text=self._display.lost)
        if not record:
            return
        figures = {
            "loss": f"{record['loss']:.4f}",
            "step": f"{record['step_ms']:.3g} ms",
            "tok/s": count(record["tokens_per_s"]),
            "mfu": f"{record['mfu']:.0%}",
        }
        self._display.update(record["step"], figures, eta_seconds=eta_seconds)

    def evaluated(self, step: int, losses: Mapping[str, Loss], best: Mapping[str, Any]) -> None:
        """The `eval` record, and its line."""
        val, floor_nats = losses["val"], self._inputs.splits.floor_nats
        record = eval_record(
            step,
            losses,
            best_val=best["val_nats"],
            floor_nats=floor_nats,
            seconds=self._ledger.run_seconds(),
        )
        self._log.append("eval", **record)
        self._log_peak(step)
        words = (
            f"step {step}: train {losses['train'].mean:.4f}, "
            f"val {val} nats/{self._inputs.tokenizer.unit}"
        )
        if floor_nats is not None:
            above = val.mean - floor_nats
            words += f", {above:.4f} above the floor of the {self._inputs.corpus.name} corpus"
        self._display.message(words + (" (best)" if best["step"] == step else ""))

    def long_run(self, left_seconds: float) -> None:
        """Says how long the run will take, if that is long, and which config is quicker."""
        if left_seconds <= _LONG_RUN_SECONDS:
            return
        advice = "Ctrl-C stops and saves it, the same command resumes it"
        if self._program.costs.n_params > _LAPTOP_PARAMETERS:
            advice += "; configs/shakespeare_char.py takes a minute or two on a CPU"
        self._display.message(
            f"this will take about {duration(left_seconds)} on this device, evaluations included; "
            f"{advice}",
            style="yellow",
        )

    def ended(
        self, step: int, reason: str, *, best: Mapping[str, Any], last_val: Loss | None
    ) -> None:
        """The `ledger` and `end` records, and the last words."""
        ledger, say = self._ledger.to_json() | self._ledger.hosts_to_json(), self._display.message
        n_updates, program = step - self._plan.step, self._program
        if n_updates:
            flops_per_s = n_updates * program.flops / self._ledger.seconds_here("step")
            program.raise_peak(flops_per_s)
        self._log_peak(step)
        self._log.append("ledger", step=step, **ledger)
        self._log.append("end", step=step, reason=reason)
        for words in time_words(ledger):
            say(words)
        if n_updates:
            say(mfu_words(flops_per_s, program.peak, first=self._first_peak))
        if best["val_nats"] is not None:
            say(best_words(best, last_val, self._inputs.corpus.name))
        say(next_words(reason, step, self._plan.config.out_dir))

    def _log_peak(self, step: int) -> None:
        """The `peak` record, if the peak has risen since it was written down last."""
        if self._program.peak != self._logged_peak:
            self._logged_peak = self._program.peak
            self._log.append("peak", **peak_record(step, self._program))

    def failed(self, step: int, reason: str) -> None:
        """The `end` record of a run that cannot go on, if the log can still be written."""
        with contextlib.suppress(RunError):
            self._log.append("end", step=step, reason=reason)
