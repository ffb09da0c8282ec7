"""Training a GPT: from a config to a run directory, started anew, resumed or forked."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from gptjax.config.config import flat
from gptjax.device.devices import available_devices, choose_devices, machine
from gptjax.device.distributed import joined
from gptjax.run import directory, runlog, together
from gptjax.run.evaluator import Loss
from gptjax.run.inputs import VAL_TOKENS, read_inputs
from gptjax.run.last_words import not_finite_words
from gptjax.run.ledger import Ledger
from gptjax.run.pace import Pace
from gptjax.run.program import CompiledTrainer, check_fits, compile_trainer
from gptjax.run.progress import Display
from gptjax.run.report import Report, tell_start
from gptjax.run.resume import ResumePlan, resume_plan
from gptjax.run.saver import Saver, checkpoint_bytes
from gptjax.run.silence import orbax_in_silence
from gptjax.run.split import open_checkpoints
from gptjax.run.template import NotFinite
from gptjax.system import cache, files, signals
from gptjax.system.command import run_script
from gptjax.system.errors import RunError
from gptjax.system.hosts import Hosts
from gptjax.system.rollcall import ALONE, Place


def train(
    requested: ml_collections.ConfigDict,
    overrides: Collection[str],
    place: Place = ALONE,
) -> int:
    """Trains as the config says; returns the process's exit code.

    `overrides` names the knobs that were given on the command line, `place` says which of a run's
    processes this is.

    0: all updates are made; 130 or 143: stopped by Ctrl-C or SIGTERM, saved, can be resumed.

    Raises:
      UserError: for input that breaks a rule; nothing has been created then.
      RunError: if the run cannot go on.
    """
    cache.keep_compiled_programs()
    with contextlib.ExitStack() as stack:
        hosts = stack.enter_context(joined(place))
        together.agree_at_start(hosts, requested)
        found, why = available_devices(requested.mesh.cpu_devices, requested.mesh.gpu_memory)
        run_dir = Path(requested.out_dir)
        directory.check_place(run_dir)
        files.check_writable(run_dir)
        check_lock = stack.enter_context(together.locked(hosts, run_dir))
        # What the run starts from and trains on.
        with hosts.first_in_turn():
            plan = resume_plan(requested, overrides)
        together.agree(hosts, {"step of the run": plan.step, **flat(plan.config)})
        config, max_iters = plan.config, plan.config.train.max_iters
        display = Display(n_updates=max_iters, step=plan.step, quiet=not hosts.leads)
        if plan.is_resumed and plan.step >= max_iters:
            display.message(f"{run_dir} is at step {plan.step} of {max_iters}: nothing to do.")
            return 0
        devices = choose_devices(found, config)
        runlog.check(config)
        ledger = Ledger(plan.meta["ledger"] if plan.meta else None)
        with ledger.measure("data"):
            inputs = read_inputs(config, plan.checkpoint, is_fork=plan.is_fork, doing=display.doing)
            check_fits(config, inputs, devices)
            state = plan.state(inputs.tokenizer.vocab_size)
        together.agree_on_inputs(hosts, inputs)
        display.notices(together.clock_notices(hosts))
        tell_start(display, plan, devices, why, inputs)
        with ledger.measure("compile"), display.doing("getting ready"):
            program = compile_trainer(
                config, inputs, devices, state, tell=display.notice, meanwhile=orbax_in_silence
            )
        together.agree_on_weights(hosts, program.state)
        # What the run writes and says. From here on its directory is in use.
        directory.check_space(run_dir, checkpoint_bytes(plan, program.state))
        resumed_step = plan.step if plan.is_resumed else None
        log = stack.enter_context(
            together.begin_log(hosts, config, resumed_step, tell=display.notice)
        )
        if hosts.leads:
            files.write_atomically(run_dir / "config.json", files.pretty_json(flat(config)))
            files.write_array(run_dir / VAL_TOKENS, inputs.splits.val)
        stack.enter_context(display)
        report = Report(log, display, ledger, plan, inputs, program)
        report.started(devices)
        checkpoints = stack.enter_context(
            open_checkpoints(hosts, run_dir, program.state, keep=config.checkpoint.keep)
        )
        saver = Saver(checkpoints, plan, inputs, ledger, machine(devices), check_lock)
        return Trainer(plan, program, saver, report, ledger, hosts, evaluated=log.evaluated).run()


class Trainer:
    """The loop: updates, and at each boundary a log line, an evaluation and a checkpoint as due.

    Attributes:
      n_done: updates made, those of earlier processes included.
    """

    def __init__(
        self,
        plan: ResumePlan,
        program: CompiledTrainer,
        saver: Saver,
        report: Report,
        ledger: Ledger,
        hosts: Hosts,
        *,
        evaluated: Collection[int],
    ):
        """`evaluated` are the steps whose evaluation is in the log already."""
        self._config, self._is_resumed = plan.config, plan.is_resumed
        self._program, self._saver, self._report, self._ledger = program, saver, report, ledger
        self._hosts = hosts
        self.n_done = self._first_step = plan.step
        # The checkpoint gone on from has its evaluation, or was not due one.
        self._pace = Pace(plan.config, ledger, first=plan.step, most=program.max_updates_per_call)
        self._evaluated = {*evaluated, *([plan.step] if plan.is_resumed else [])}
        self._best: dict[str, Any] = {"step": -1, "val_nats": None}
        if plan.meta:
            self._best = dict(plan.meta["best"])
        self._last_val: Loss | None = None
        self._last_metrics: dict[str, float] = {}
        self._length_said = False

    def run(self) -> int:
        """Runs to max_iters or to a signal; returns the exit code."""
        try:
            with signals.noted() as stop, self._hosts.blamed():
                together.connect(self._hosts)
                self._loop(stop)
                self._saver.wait()
        except RunError as error:
            self._report.failed(self.n_done, str(error))
            raise
        is_stopped = stop.number and self.n_done < self._config.train.max_iters
        reason = stop.name if is_stopped else "finished"
        self._report.ended(self.n_done, reason, best=self._best, last_val=self._last_val)
        return stop.exit_code if is_stopped else 0

    def _loop(self, stop: signals.StopRequest) -> None:
        self._at_boundary()
        while n_updates := self._next_updates(stop):
            self._make_updates(n_updates)
            self._warn_if_long()
            self._saver.check()
            self._at_boundary()
        if stop.number:
            self._save(val_nats=None)

    def _next_updates(self, stop: signals.StopRequest) -> int:
        """Updates to be made in the next call, 0 for none; all processes come to the same."""
        said = [self._pace.updates(self.n_done), stop.number]
        n_updates, number = self._hosts.decide(said, together.next_call)
        stop.number = number or stop.number  # It may have come meanwhile: then next time.
        return 0 if number else n_updates

    def _at_boundary(self) -> None:
        """Evaluates and saves, if that is due."""
        config, done = self._config, self.n_done
        is_start = done == self._first_step and not self._is_resumed
        is_edge = is_start or done >= config.train.max_iters
        val_nats, is_best = None, False
        if (is_edge or done % config.eval.interval == 0) and done not in self._evaluated:
            val_nats = self._evaluate()
            is_best = self._best["step"] == done
        if is_edge or is_best or done % config.checkpoint.interval == 0:
            self._save(val_nats=val_nats)

    def _make_updates(self, n_updates: int) -> None:
        """Makes `n_updates` updates in one call and checks that they are finite."""
        with self._ledger.measure("wait"):
            call = self._program.batches(self.n_done, n_updates)
        before = self._ledger.seconds_here("step")
        with self._ledger.measure("step"):
            metrics_K = self._program.train(call, n_updates)
        seconds = self._ledger.seconds_here("step") - before
        self._ledger.count_steps(n_updates, seconds)
        finite_K = np.isfinite(metrics_K["loss"]) & np.isfinite(metrics_K["grad_norm"])
        n_finite = n_updates if finite_K.all() else int(np.argmin(finite_K))
        last = min(n_finite, n_updates - 1)
        self._last_metrics = {name: float(values[last]) for name, values in metrics_K.items()}
        self.n_done += n_finite
        finite = {name: values[:n_finite] for name, values in metrics_K.items()}
        self._report.updates(self.n_done, finite, seconds / n_updates)
        if n_finite < n_updates:
            raise self._not_finite(f"update {self.n_done} is not finite", self.n_done)
        self._report.progress(self._pace.left_seconds(self.n_done))

    def _evaluate(self) -> float:
        """Evaluates both splits; returns val's loss, nats per token."""
        start = time.perf_counter()
        with self._ledger.measure("eval"), self._report.doing("evaluating"):
            losses = self._program.losses(step=self.n_done)
        self._pace.eval_seconds = time.perf_counter() - start
        if self._hosts.count > 1:
            self._ledger.count_hosts(together.shares(self._hosts, self._program.own_eval_seconds))
        if self.n_done > self._first_step:  # The first update is not to wait for it.
            with self._ledger.measure("compile"):
                self._program.measure_peak(self._ledger.process_seconds())
        val_nats, best = losses["val"].mean, self._best["val_nats"]
        if math.isfinite(val_nats) and (best is None or val_nats < best):
            self._best = {"step": self.n_done, "val_nats": val_nats}
        self._last_val = losses["val"]
        self._report.evaluated(self.n_done, losses, self._best)
        for split, loss in losses.items():
            if not math.isfinite(loss.mean):
                what, last = f"the {split} loss at step {self.n_done}", self.n_done - 1
                raise self._not_finite(f"{what} is {loss.mean}, after update {last}", last)
        return val_nats

    def _save(self, *, val_nats: float | None) -> None:
        try:
            with self._report.doing("saving"):
                self._saver.save(self._program.state, best=self._best, val_nats=val_nats)
        except NotFinite as error:
            what, last = f"{error} at step {self.n_done}", self.n_done - 1
            raise self._not_finite(f"{what}, after update {last}", last) from error

    def _not_finite(self, what: str, update: int) -> RunError:
        """The error for a number that is not finite: with the metrics of the last update."""
        rate = self._program.learning_rates([update])[0]
        return RunError(not_finite_words(what, self._last_metrics, rate, self._saver.step))

    def _warn_if_long(self) -> None:
        """Announces a long run, once two calls' time has shown the pace."""
        if not self._length_said and self._pace.is_shown:
            self._length_said = True
            self._report.long_run(self._pace.left_seconds(self.n_done))


if __name__ == "__main__":
    run_script(__file__)
