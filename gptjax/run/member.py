"""One of several runs that are trained beside each other: its directory, and what it writes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from gptjax.config.config import flat
from gptjax.data import corpus
from gptjax.device.devices import machine
from gptjax.run import directory, runlog
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.group_program import GroupProgram
from gptjax.run.inputs import VAL_TOKENS, Inputs
from gptjax.run.ledger import Ledger
from gptjax.run.records import eval_record, run_record, update_record
from gptjax.run.resume import resume_plan
from gptjax.run.saver import Saver, checkpoint_bytes
from gptjax.run.template import NotFinite
from gptjax.system import files
from gptjax.update.step import TrainState


class Member:
    """One run of several: its directory and what is written there; use it as a context manager.

    Attributes:
      config: every knob.
      step: updates made.
      failed: why it cannot go on; "" as long as it can.
      ledger: its own; the time of a dispatch is that of each run in it.
    """

    def __init__(self, config: ml_collections.ConfigDict, inputs: Inputs, device: jax.Device):
        self.config, self.run_dir = config, Path(config.out_dir)
        self.failed = ""
        self._inputs, self._device = inputs, device
        self._best: dict[str, Any] = {"step": -1, "val_nats": None}
        self._logged_step, self._logged_seconds = 0, 0.0

    def __enter__(self) -> Member:
        with contextlib.ExitStack() as stack:
            directory.check_place(self.run_dir)
            self._check_lock = stack.enter_context(directory.locked(self.run_dir))
            self._plan = resume_plan(self.config, ())
            if self._plan.meta:
                corpus.check_unchanged(self._inputs.corpus, self._plan.meta["corpus"]["sha256"])
                self._best = dict(self._plan.meta["best"])
            self.step = self._plan.step
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.__exit__(*exception)

    def begin(self, program: GroupProgram, state: TrainState) -> None:
        """Opens what is written, room for such states being there, and writes the `run` record."""
        plan, config, enter = self._plan, self.config, self._stack.enter_context
        earlier = plan.meta["ledger"] if plan.meta else None
        self.ledger = Ledger(earlier, started=time.perf_counter())
        directory.check_space(self.run_dir, checkpoint_bytes(plan, state))
        resumed_step = plan.step if plan.is_resumed else None
        self._log = enter(runlog.begin(config, resumed_step, tell=lambda notice: None))
        self._evaluated = {*self._log.evaluated}
        files.write_atomically(self.run_dir / "config.json", files.pretty_json(flat(config)))
        files.write_array(self.run_dir / VAL_TOKENS, self._inputs.splits.val)
        checkpoints = enter(Checkpoints(self.run_dir, keep=config.checkpoint.keep))
        devices = [self._device]
        self._saver = Saver(
            checkpoints, plan, self._inputs, self.ledger, machine(devices), self._check_lock
        )
        record = run_record(plan, self._inputs, program.costs_to_json(), devices)
        self._log.append("run", **record, runs_together=program.n_runs)
        self._logged_step = self.step

    @property
    def restored(self) -> TrainState:
        """The state that it goes on from."""
        assert self._plan.checkpoint is not None
        return self._plan.checkpoint.state

    def updated(
        self, metrics_K: Mapping[str, np.ndarray], rates_K: np.ndarray, program: GroupProgram
    ) -> None:
        """The `train` records due of the last K updates."""
        config, n = self.config, len(rates_K)
        first, self.step = self.step, self.step + n
        finite_K = np.isfinite(metrics_K["loss"]) & np.isfinite(metrics_K["grad_norm"])
        end = self.ledger.seconds_here("step")
        for index in range(n):
            step = first + index + 1
            if not finite_K[index]:
                self.fail(f"update {step} is not finite", step - 1)
                return
            if step % config.log.interval and step != config.train.max_iters:
                continue
            ago = (n - 1 - index) * program.update_seconds
            seconds_each = (end - ago - self._logged_seconds) / (step - self._logged_step)
            record = update_record(
                step,
                metrics={name: float(values_K[index]) for name, values_K in metrics_K.items()},
                learning_rate=float(rates_K[index]),
                seconds_each=seconds_each,
                seconds=self.ledger.run_seconds() - ago,
                program=program,
            )
            self._log.append("train", **record)
            self._logged_step, self._logged_seconds = step, end - ago

    def at_boundary(self, program: GroupProgram, state: TrainState) -> None:
        """Evaluates and saves, if that is due."""
        config, step = self.config, self.step
        is_end, val_nats = step >= config.train.max_iters, None
        if (is_end or step % config.eval.interval == 0) and step not in self._evaluated:
            val_nats = self._evaluate(program, state)
        is_best = self._best["step"] == step
        if not self.failed and (is_end or is_best or step % config.checkpoint.interval == 0):
            self.save(state, val_nats)

    def _evaluate(self, program: GroupProgram, state: TrainState) -> float | None:
        with self.ledger.measure("eval"):
            losses = program.losses(state, self.config, step=self.step)
        val, best = losses["val"].mean, self._best["val_nats"]
        if math.isfinite(val) and (best is None or val < best):
            self._best = {"step": self.step, "val_nats": val}
        record = eval_record(
            self.step,
            losses,
            best_val=self._best["val_nats"],
            floor_nats=self._inputs.splits.floor_nats,
            seconds=self.ledger.run_seconds(),
        )
        self._log.append("eval", **record)
        self._evaluated.add(self.step)
        for split, loss in losses.items():
            if not math.isfinite(loss.mean):
                self.fail(f"the {split} loss at step {self.step} is {loss.mean}", self.step)
        return val

    def save(self, state: TrainState, val_nats: float | None = None) -> None:
        """Saves the state, unless this step is saved already."""
        try:
            self._saver.save(state, best=self._best, val_nats=val_nats)
        except NotFinite as error:
            self.fail(f"{error} at step {self.step}", self.step)

    def fail(self, reason: str, step: int) -> None:
        """Ends a run that cannot go on, with its reason."""
        self.failed = reason
        self._end(step, reason)

    def ended(self, reason: str) -> None:
        """Waits for the last save, and ends the run."""
        self._saver.wait()
        self._end(self.step, reason)

    def _end(self, step: int, reason: str) -> None:
        self._log.append("ledger", step=step, **self.ledger.to_json())
        self._log.append("end", step=step, reason=reason)
