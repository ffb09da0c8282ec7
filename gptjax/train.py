"""Training a GPT: from a config to a run directory, started anew, resumed or forked."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from gptjax.config.config import flat, micro_batches, model_config
from gptjax.data import batches, corpus
from gptjax.device import mesh
from gptjax.evaluate import VAL_TOKENS, Loss
from gptjax.run import runlog
from gptjax.run.checkpoint import Checkpoints, NotFinite
from gptjax.run.ledger import Ledger
from gptjax.run.metadata import stored_tokenizer
from gptjax.run.program import Program, n_slots
from gptjax.run.progress import Display
from gptjax.run.report import Report, corpus_json
from gptjax.run.resume import Origin, find_origin
from gptjax.system import cache, signals
from gptjax.system.errors import RunError
from gptjax.update import optim
from gptjax.update.step import TrainState

# Updates of about this long make a dispatch, so that signals and the bar are never late.
_DISPATCH_SECONDS = 1.0


def train(requested: ml_collections.ConfigDict, overrides: Collection[str]) -> int:
    """Trains as the config says; returns the process's exit code.

    `overrides` names the knobs that were given on the command line.

    0: all updates are made; 130 or 143: stopped by Ctrl-C or SIGTERM, saved, can be resumed.

    Raises:
      UserError: for input that breaks a rule; nothing has been created then.
      RunError: if the run cannot go on.
    """
    cache.keep_compiled_programs()
    found_devices, why = mesh.available_devices(
        requested.mesh.cpu_devices, requested.mesh.gpu_memory
    )
    run_dir = Path(requested.out_dir)
    runlog.check_writable(run_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(runlog.locked(run_dir))
        origin = find_origin(requested, overrides)
        max_iters = origin.config.train.max_iters
        if origin.resumed and origin.step >= max_iters:
            print(f"{run_dir} is at step {origin.step} of {max_iters}: nothing to do.")
            return 0
        devices = mesh.choose_devices(found_devices, origin.config)
        if origin.config.log.tensorboard:
            runlog.check_tensorboard()
        run = Run(origin, mesh.machine(devices))
        program = run.compiled(devices)
        runlog.check_space(run_dir, run.bytes_to_come(program.state))
        log = stack.enter_context(
            runlog.RunLog(
                run_dir,
                resumed_step=run.n_done if origin.resumed else None,
                tensorboard=run.config.log.tensorboard,
            )
        )
        runlog.write_atomically(run_dir / "config.json", runlog.pretty_json(flat(run.config)))
        runlog.write_array(run_dir / VAL_TOKENS, run.splits.val)
        display = stack.enter_context(Display(n_updates=max_iters, step=run.n_done))
        report = Report(log, display, run.ledger, unit=run.tokenizer.unit)
        report.started(
            origin, run.text, run.splits, run.tokenizer.vocab_size, program, devices, why
        )
        checkpoints = stack.enter_context(Checkpoints(run_dir, keep=run.config.checkpoint.keep))
        return run.train(program, checkpoints, report, evaluated=log.evaluated)


class Run:
    """One process's work on a run. Building it reads and checks everything and writes nothing."""

    def __init__(self, origin: Origin, machine: dict[str, Any]):
        self.origin, self.config, self.machine = origin, origin.config, machine
        meta = origin.found.meta if origin.found else None
        self.ledger = Ledger(meta["ledger"] if meta and origin.resumed else None)
        self.n_done = origin.step
        with self.ledger.measure("data"):
            self.text = _text(origin)
            self.tokenizer = stored_tokenizer(meta) if meta else corpus.tokenizer(self.text)
            self.splits = corpus.split(self.text, self.tokenizer, self.config.data)
            corpus.check_lengths(self.splits, self.config.model.block_size)
            self.val_sha256 = batches.sha256(self.splits.val)
        self.best: dict[str, Any] = {"step": -1, "val_nats": None}
        if meta and origin.resumed:
            self.best = dict(meta["best"])
        # One program, not one an operation; called on the CPU, where numbers are had at once.
        self.rate = jax.jit(optim.learning_rate(self.config))
        self.stop_signal = 0

    def compiled(self, devices: list) -> Program:
        """The program of this run, its state placed on the devices.

        Raises:
          UserError: if the model is too large for them.
        """
        model = model_config(self.config, self.tokenizer.vocab_size)
        n_micro = micro_batches(self.config, devices[0].platform, len(devices))
        micro_batch = self.config.train.batch_size // n_micro // len(devices)
        n_windows = self.config.train.batch_size * n_slots(self.config)
        mesh.check_memory(
            model,
            devices[0],
            micro_batch=micro_batch,
            n_windows=n_windows,
            n_corpus_bytes=self.splits.train.nbytes + self.splits.val.nbytes,
        )
        state = self.origin.found.state if self.origin.found else None
        with self.ledger.measure("compile"):
            return Program(self.config, model, self.splits, devices, state)

    def bytes_to_come(self, state: TrainState) -> int:
        """What this run's checkpoints may still take on the disk."""
        # The newest, the best and the one being written; a resumed run has the others already.
        n_checkpoints = 1 if self.origin.resumed else self.config.checkpoint.keep + 2
        return n_checkpoints * sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    def train(
        self, program: Program, checkpoints: Checkpoints, report: Report, *, evaluated: set[int]
    ) -> int:
        """Runs to max_iters or to a signal; returns the exit code.

        `evaluated` are the steps whose evaluation is in the log already.
        """
        self.program, self.checkpoints, self.report = program, checkpoints, report
        # The checkpoint gone on from has its evaluation, or was not due one.
        self.evaluated = evaluated | ({self.n_done} if self.origin.resumed else set())
        self.saved_step = self.n_done if self.origin.resumed else -1
        self.first_step = self.logged_step = self.n_done
        self.logged_seconds = self.ledger.seconds_here("step")
        self.eval_seconds = 0.0
        self.last_metrics: dict[str, float] = {}
        self.last_val: Loss | None = None
        self.length_said = False
        try:
            with signals.handled(self._note_signal):
                self._loop()
                with self.ledger.measure("checkpoint"):
                    checkpoints.wait()
        except RunError as error:
            report.failed(self.n_done, str(error))
            raise
        stopped = self.stop_signal and self.n_done < self.config.train.max_iters
        reason = signal.Signals(self.stop_signal).name if stopped else "finished"
        report.ended(
            self.n_done,
            reason,
            best=self.best,
            last_val=self.last_val,
            text=self.text,
            out_dir=self.config.out_dir,
        )
        return 128 + self.stop_signal if stopped else 0

    def _loop(self) -> None:
        """Updates, and at each boundary a log line, an evaluation and a checkpoint as due."""
        self._at_boundary()
        while self.n_done < self.config.train.max_iters and not self.stop_signal:
            self._chunk(min(self._to_boundary(), self._affordable()))
            self._say_length()
            self.checkpoints.check()  # Nothing is trained in vain on top of a save that failed.
            self._at_boundary()
        if self.stop_signal:
            self._save(val_nats=None)

    def _at_boundary(self) -> None:
        config, done = self.config, self.n_done
        is_first = done == self.first_step and not self.origin.resumed
        is_edge = is_first or done >= config.train.max_iters
        val_nats, is_best = None, False
        if (is_edge or done % config.eval.interval == 0) and done not in self.evaluated:
            val_nats = self._evaluate()
            is_best = self.best["step"] == done
        if is_edge or is_best or done % config.checkpoint.interval == 0:
            self._save(val_nats=val_nats)

    def _to_boundary(self) -> int:
        """Updates until something is due."""
        config, done = self.config, self.n_done
        intervals = (config.eval.interval, config.checkpoint.interval)
        ends = [done - done % interval + interval for interval in intervals]
        return min(*ends, config.train.max_iters) - done

    def _affordable(self) -> int:
        """Updates to dispatch at once."""
        if self.config.train.updates_per_dispatch:
            return self.program.n_slots
        if self.n_done == self.first_step:
            return 1
        return max(1, min(self.program.n_slots, int(_DISPATCH_SECONDS / self._seconds_each())))

    def _seconds_each(self) -> float:
        return self.ledger.seconds_here("step") / (self.n_done - self.first_step)

    def _chunk(self, n_updates: int) -> None:
        """Makes `n_updates` updates in one dispatch and checks that they are finite."""
        with self.ledger.measure("data"):
            offsets_KAB = self.program.offsets(self.n_done, n_updates)
        before = self.ledger.seconds_here("step")
        with self.ledger.measure("step"):
            metrics_K = self.program.train(offsets_KAB, n_updates)
        seconds = self.ledger.seconds_here("step") - before
        self.ledger.count_steps(n_updates, seconds)
        finite_K = np.isfinite(metrics_K["loss"]) & np.isfinite(metrics_K["grad_norm"])
        n_finite = n_updates if finite_K.all() else int(np.argmin(finite_K))
        last = min(n_finite, n_updates - 1)
        self.last_metrics = {name: float(values[last]) for name, values in metrics_K.items()}
        self.n_done += n_finite
        self._log_updates(metrics_K, n_finite, seconds / n_updates)
        if n_finite < n_updates:
            raise self._not_finite(f"update {self.n_done} is not finite", self.n_done)
        self.report.progress(self._eta())

    def _not_finite(self, what: str, index: int) -> RunError:
        """The error for a number that is not finite: with the metrics of update `index`."""
        words = what
        if self.last_metrics:
            words += (
                f": loss {self.last_metrics['loss']:.5g}, gradient norm "
                f"{self.last_metrics['grad_norm']:.5g}, learning rate {self._rates([index])[0]:.3g}"
            )
        good = f"the last good checkpoint is step {self.saved_step}"
        if self.saved_step < 0:
            good = "there is no checkpoint yet"
        return RunError(f"{words}; {good}. Try a lower --config.optim.learning_rate")

    def _log_updates(
        self, metrics_K: dict[str, np.ndarray], n_updates: int, seconds_each: float
    ) -> None:
        """Writes the lines due of the last `n_updates` updates."""
        config, end = self.config, self.ledger.seconds_here("step")
        first = self.n_done - n_updates
        due = [
            step
            for step in range(first + 1, self.n_done + 1)
            if step % config.log.interval == 0 or step == config.train.max_iters
        ]
        for step, lr in zip(due, self._rates([step - 1 for step in due]), strict=True):
            # A dispatch's time is spread evenly over its updates.
            seconds = end - (self.n_done - step) * seconds_each
            self.report.updates(
                step,
                seconds_each=(seconds - self.logged_seconds) / (step - self.logged_step),
                seconds_ago=end - seconds,
                lr=lr,
                metrics={
                    name: float(values[step - first - 1]) for name, values in metrics_K.items()
                },
                program=self.program,
            )
            self.logged_step, self.logged_seconds = step, seconds

    def _rates(self, indices: Sequence[int]) -> list[float]:
        """The learning rates of updates, as many as fit a dispatch."""
        padded_K = np.zeros(self.program.n_slots, np.int32)
        padded_K[: len(indices)] = indices
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            return np.asarray(self.rate(padded_K))[: len(indices)].tolist()

    def _eta(self) -> float:
        """Seconds left at the pace measured so far, evaluations included."""
        left = self.config.train.max_iters - self.n_done
        n_evaluations = math.ceil(left / self.config.eval.interval)
        return left * self._seconds_each() + n_evaluations * self.eval_seconds

    def _say_length(self) -> None:
        """Announces a long run, once two dispatches' time has shown the pace."""
        if not self.length_said and self.ledger.seconds_here("step") > 2 * _DISPATCH_SECONDS:
            self.length_said = True
            self.report.long_run(self._eta(), self.program.n_params)

    def _evaluate(self) -> float:
        """Evaluates both splits; returns val's loss, nats per token."""
        start = time.perf_counter()
        with self.ledger.measure("eval"):
            losses = self.program.losses(step=self.n_done)
        self.eval_seconds = time.perf_counter() - start
        val_nats = losses["val"].mean
        best = self.best["val_nats"]
        if math.isfinite(val_nats) and (best is None or val_nats < best):
            self.best = {"step": self.n_done, "val_nats": val_nats}
        self.last_val = losses["val"]
        self.report.evaluated(self.n_done, losses, self.best, self.text, self.splits.floor_nats)
        for split, loss in losses.items():
            if not math.isfinite(loss.mean):
                what, last = f"the {split} loss at step {self.n_done}", self.n_done - 1
                raise self._not_finite(f"{what} is {loss.mean}, after update {last}", last)
        return val_nats

    def _save(self, *, val_nats: float | None) -> None:
        if self.saved_step == self.n_done:
            return
        with self.ledger.measure("checkpoint"):
            meta = {
                "config": flat(self.config),
                "overrides": self.origin.overrides,
                "tokenizer": self.tokenizer.to_json(),
                "corpus": corpus_json(self.config, self.text, self.splits),
                "val_sha256": self.val_sha256,
                "best": self.best,
                "parent": self.origin.parent,
                "machine": self.machine,
                "ledger": self.ledger.to_json(),
            }
            try:
                self.checkpoints.save(self.program.state, meta, val_nats=val_nats)
            except NotFinite as error:
                what, last = f"{error} at step {self.n_done}", self.n_done - 1
                raise self._not_finite(f"{what}, after update {last}", last) from error
        self.saved_step = self.n_done

    def _note_signal(self, number: int, frame: object) -> None:
        """Ctrl-C and SIGTERM end the loop after the present chunk."""
        self.stop_signal = number


def _text(origin: Origin) -> corpus.AnyCorpus:
    """The run's text or tokens; for a run that goes on, the one it began with, fallback or not."""
    data = origin.config.data
    if not origin.resumed or origin.found is None:
        return corpus.load(data.source, fallback=data.fallback)
    return corpus.load_again(data.source, origin.found.meta["corpus"])
