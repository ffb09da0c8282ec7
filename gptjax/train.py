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
from gptjax.run import directory, runlog
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.evaluator import Loss
from gptjax.run.inputs import VAL_TOKENS, read_inputs
from gptjax.run.ledger import Ledger
from gptjax.run.program import CompiledTrainer, check_fits, compile_trainer
from gptjax.run.progress import Display
from gptjax.run.report import Report, tell_start
from gptjax.run.resume import ResumePlan, resume_plan
from gptjax.run.saver import Saver, checkpoint_bytes
from gptjax.run.silence import orbax_in_silence
from gptjax.run.template import NotFinite
from gptjax.system import cache, files, signals
from gptjax.system.command import run_script
from gptjax.system.errors import RunError

# Updates of about this long make a call, so that signals and the bar are never late.
_CALL_SECONDS = 1.0


def train(requested: ml_collections.ConfigDict, overrides: Collection[str]) -> int:
    """Trains as the config says; returns the process's exit code.

    `overrides` names the knobs that were given on the command line.

    0: all updates are made; 130 or 143: stopped by Ctrl-C or SIGTERM, saved, can be resumed.

    Raises:
      UserError: for input that breaks a rule; nothing has been created then.
      RunError: if the run cannot go on.
    """
    cache.keep_compiled_programs()
    found, why = available_devices(requested.mesh.cpu_devices, requested.mesh.gpu_memory)
    run_dir = Path(requested.out_dir)
    directory.check_place(run_dir)
    files.check_writable(run_dir)
    with contextlib.ExitStack() as stack:
        check_lock = stack.enter_context(directory.locked(run_dir))
        # What the run starts from and trains on.
        plan = resume_plan(requested, overrides)
        config, max_iters = plan.config, plan.config.train.max_iters
        if plan.is_resumed and plan.step >= max_iters:
            print(f"{run_dir} is at step {plan.step} of {max_iters}: nothing to do.")
            return 0
        devices = choose_devices(found, config)
        runlog.check(config)
        display = Display(n_updates=max_iters, step=plan.step)
        ledger = Ledger(plan.meta["ledger"] if plan.meta else None)
        with ledger.measure("data"):
            inputs = read_inputs(config, plan.checkpoint, is_fork=plan.is_fork, doing=display.doing)
            check_fits(config, inputs, devices)
            state = plan.state(inputs.tokenizer.vocab_size)
        tell_start(display, plan, devices, why, inputs)
        with ledger.measure("compile"), display.doing("getting ready"):
            program = compile_trainer(
                config, inputs, devices, state, tell=display.notice, meanwhile=orbax_in_silence
            )
        # What the run writes and says. From here on its directory is in use.
        directory.check_space(run_dir, checkpoint_bytes(plan, program.state))
        resumed_step = plan.step if plan.is_resumed else None
        log = stack.enter_context(runlog.begin(config, resumed_step, tell=display.notice))
        files.write_atomically(run_dir / "config.json", files.pretty_json(flat(config)))
        files.write_array(run_dir / VAL_TOKENS, inputs.splits.val)
        stack.enter_context(display)
        report = Report(log, display, ledger, plan, inputs, program)
        report.started(devices)
        checkpoints = stack.enter_context(Checkpoints(run_dir, keep=config.checkpoint.keep))
        saver = Saver(checkpoints, plan, inputs, ledger, machine(devices), check_lock)
        return Trainer(plan, program, saver, report, ledger, evaluated=log.evaluated).run()


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
        *,
        evaluated: Collection[int],
    ):
        """`evaluated` are the steps whose evaluation is in the log already."""
        self._config, self._is_resumed = plan.config, plan.is_resumed
        self._program, self._saver, self._report, self._ledger = program, saver, report, ledger
        self.n_done = self._first_step = plan.step
        # The checkpoint gone on from has its evaluation, or was not due one.
        self._evaluated = {*evaluated, *([plan.step] if plan.is_resumed else [])}
        self._best: dict[str, Any] = {"step": -1, "val_nats": None}
        if plan.meta:
            self._best = dict(plan.meta["best"])
        self._last_val: Loss | None = None
        self._last_metrics: dict[str, float] = {}
        self._eval_seconds = 0.0
        self._length_said = False

    def run(self) -> int:
        """Runs to max_iters or to a signal; returns the exit code."""
        try:
            with signals.noted() as stop:
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
        while self.n_done < self._config.train.max_iters and not stop.number:
            self._make_updates(min(self._to_boundary(), self._updates_this_call()))
            self._warn_if_long()
            self._saver.check()
            self._at_boundary()
        if stop.number:
            self._save(val_nats=None)

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

    def _to_boundary(self) -> int:
        """Updates until something is due."""
        config, done = self._config, self.n_done
        intervals = (config.eval.interval, config.checkpoint.interval)
        ends = [done - done % interval + interval for interval in intervals]
        return min(*ends, config.train.max_iters) - done

    def _updates_this_call(self) -> int:
        """Updates that a call may make without keeping anybody waiting."""
        most = self._program.max_updates_per_call
        if self._config.train.updates_per_dispatch:
            return most
        if self.n_done == self._first_step:
            return 1
        return max(1, min(most, int(_CALL_SECONDS / self._seconds_each())))

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
        self._report.progress(self._eta())

    def _evaluate(self) -> float:
        """Evaluates both splits; returns val's loss, nats per token."""
        start = time.perf_counter()
        with self._ledger.measure("eval"), self._report.doing("evaluating"):
            losses = self._program.losses(step=self.n_done)
        self._eval_seconds = time.perf_counter() - start
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
        words = what
        if self._last_metrics:
            rate = self._program.learning_rates([update])[0]
            words += (
                f": loss {self._last_metrics['loss']:.5g}, gradient norm "
                f"{self._last_metrics['grad_norm']:.5g}, learning rate {rate:.3g}"
            )
        good = f"the last good checkpoint is step {self._saver.step}"
        if self._saver.step < 0:
            good = "there is no checkpoint yet"
        return RunError(f"{words}; {good}. Try a lower --config.optim.learning_rate")

    def _seconds_each(self) -> float:
        return self._ledger.seconds_here("step") / (self.n_done - self._first_step)

    def _eta(self) -> float:
        """Seconds left at the pace measured so far, evaluations included."""
        left = self._config.train.max_iters - self.n_done
        n_evaluations = math.ceil(left / self._config.eval.interval)
        return left * self._seconds_each() + n_evaluations * self._eval_seconds

    def _warn_if_long(self) -> None:
        """Announces a long run, once two calls' time has shown the pace."""
        if not self._length_said and self._ledger.seconds_here("step") > 2 * _CALL_SECONDS:
            self._length_said = True
            self._report.long_run(self._eta())


if __name__ == "__main__":
    run_script(__file__)
