"""Training a GPT: from a config to a run directory, started anew, resumed or forked."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gptjax
from gptjax import batches, corpus, flops, mesh, optim, runlog, step
from gptjax.checkpoint import Checkpoints
from gptjax.config import GPTConfig, digest, flat
from gptjax.config_file import load_config
from gptjax.errors import RunError
from gptjax.evaluate import VAL_TOKENS, Evaluator, Loss, mean_loss
from gptjax.ledger import KINDS, Ledger
from gptjax.model import n_parameters
from gptjax.progress import Display, count, duration
from gptjax.resume import Origin, find_origin
from gptjax.tokenizer import CharTokenizer

# One dispatch makes at most so many updates, or about a second's worth if that is fewer.
_MOST_UPDATES = 100
_DISPATCH_SECONDS = 1.0

# Random evaluation batches are numbered from here on, beyond any training batch.
_FIRST_EVAL_BATCH = 2**62

# A run longer than this is announced, with a smaller config to try first.
_LONG_RUN_SECONDS = 15 * 60
_LAPTOP_PARAMETERS = 2_000_000


def train(config_path: str, overrides: Mapping[str, str]) -> int:
    """Trains as the config says; returns the process's exit code.

    0: all updates are made; 130 or 143: stopped by Ctrl-C or SIGTERM, saved, can be resumed.

    Raises:
      UserError: for input that breaks a rule; nothing has been created then.
      RunError: if the run cannot go on.
    """
    requested = load_config(config_path, overrides)
    devices, why = mesh.choose_devices(requested)
    run_dir = Path(requested.out_dir)
    runlog.check_writable(run_dir)
    with contextlib.ExitStack() as stack:
        used = runlog.is_used(run_dir)
        if used:
            stack.enter_context(runlog.locked(run_dir))
        origin = find_origin(requested, overrides)
        run = Run(origin, devices, why)
        if origin.resumed and run.n_done >= run.config.train.max_iters:
            print(f"{run_dir} is at step {run.n_done} of {run.config.train.max_iters}: all done.")
            return 0
        if not used:
            run_dir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(runlog.locked(run_dir))
        run.log = stack.enter_context(
            runlog.RunLog(
                run_dir,
                resumed_step=run.n_done if origin.resumed else None,
                tensorboard=run.config.log.tensorboard,
            )
        )
        run.display = stack.enter_context(
            Display(n_updates=run.config.train.max_iters, step=run.n_done)
        )
        run.checkpoints = stack.enter_context(Checkpoints(run_dir, keep=run.config.checkpoint.keep))
        return run.train()


class Run:
    """One process's work on a run. Building it reads and checks everything and writes nothing."""

    log: runlog.RunLog
    display: Display
    checkpoints: Checkpoints

    def __init__(self, origin: Origin, devices: list[jax.Device], why: str):
        self.origin, self.devices, self.why = origin, devices, why
        self.config = config = origin.config
        self.run_dir = Path(config.out_dir)
        meta = origin.found.meta if origin.found else None
        self.ledger = Ledger(meta["ledger"] if meta and origin.resumed else None)
        self.n_done = origin.found.step if origin.found else 0
        with self.ledger.measure("data"):
            self.text = _text(origin)
            self.tokenizer = (
                CharTokenizer.from_json(meta["tokenizer"])
                if meta
                else CharTokenizer.of_text(self.text.text)
            )
            self.splits = corpus.split(self.text, self.tokenizer, config.data)
            corpus.check_lengths(self.splits, config.model.block_size)
        self.model_config = GPTConfig(**config.model, vocab_size=self.tokenizer.vocab_size)
        self.graph = step.model_graph(self.model_config)
        self.tx = optim.optimizer(config)
        self.rate = optim.learning_rate(config)
        self.best = dict(meta["best"]) if meta and origin.resumed else {"step": 0, "val_nats": None}
        self.stop_signal = 0
        self.eval_seconds = 0.0
        self.long_run_said = False

    def train(self) -> int:
        """Runs to max_iters or to a signal; returns the exit code."""
        self._prepare()
        self._announce()
        previous = [signal.signal(kind, self._on_signal) for kind in _SIGNALS]
        try:
            finished = self._loop()
        except (RunError, KeyboardInterrupt) as error:
            self.log.append("end", step=self.n_done, reason=str(error) or type(error).__name__)
            raise
        finally:
            for kind, handler in zip(_SIGNALS, previous, strict=True):
                signal.signal(kind, handler)
        with self.ledger.measure("checkpoint"):
            self.checkpoints.wait()
        self._finish(finished)
        return 0 if finished else 128 + self.stop_signal

    def _prepare(self) -> None:
        """Puts state and tokens on the devices and compiles the step."""
        config, ledger = self.config, self.ledger
        data_mesh = mesh.data_mesh(self.devices)
        everywhere = mesh.replicated(data_mesh)
        with ledger.measure("data"):
            self.tokens = {
                name: jax.device_put(ids, everywhere)
                for name, ids in (("train", self.splits.train), ("val", self.splits.val))
            }
        with ledger.measure("compile"):
            if self.origin.found is None:
                make = functools.partial(
                    step.initial_state, self.model_config, self.tx, config.seed
                )
                self.state = jax.jit(make, out_shardings=everywhere)()
            else:
                self.state = jax.device_put(self.origin.found.state, everywhere)
            dropout_key = step.named_key(config.seed, "dropout") if config.model.dropout else None
            train_steps = functools.partial(
                step.train_steps, self.graph, self.tx, dropout_key, config.model.block_size
            )
            self.n_slots = config.train.updates_per_dispatch or _MOST_UPDATES
            n_micro = config.train.grad_accum_steps
            self.offsets_shape = (self.n_slots, n_micro, config.train.batch_size // n_micro)
            self.offsets_sharding = mesh.split_last_axis(data_mesh, len(self.offsets_shape))
            offsets_KAB = jax.ShapeDtypeStruct(
                self.offsets_shape, np.int32, sharding=self.offsets_sharding
            )
            self.train_steps = (
                jax.jit(train_steps, donate_argnums=1, out_shardings=everywhere)
                .lower(self.tokens["train"], self.state, offsets_KAB, np.int32(0))
                .compile()
            )
            self.evaluator = Evaluator(self.graph, config.model.block_size)
            self.n_params = n_parameters(self.state.params)
            self.n_tokens = config.train.batch_size * config.model.block_size
            self.formula_flops = flops.formula_flops(
                self.model_config, self.n_params, self.n_tokens
            )
            self.flops = flops.xla_flops(
                self.model_config, self.tx, batch_size=config.train.batch_size, n_micro=n_micro
            )
            self.peak = flops.peak(self.devices, config.model.dtype, cache=flops.cache_dir())

    def _announce(self) -> None:
        """Writes what the run is to its directory, and says it."""
        config, text, say = self.config, self.text, self.display.message
        runlog.write_atomically(self.run_dir / "config.json", runlog.pretty_json(flat(config)))
        runlog.write_array(self.run_dir / VAL_TOKENS, self.splits.val)
        device = self.devices[0]
        self.log.append(
            "run",
            gptjax=gptjax.__version__,
            jax=jax.__version__,
            device=device.device_kind,
            platform=device.platform,
            n_devices=len(self.devices),
            host_cores=mesh.n_cores(),
            xla_flags=os.environ.get("XLA_FLAGS", ""),
            config_digest=digest(config),
            start_step=self.n_done,
            n_params=self.n_params,
            flops_per_update=self.flops,
            formula_flops_per_update=self.formula_flops,
            peak_flops_per_s=self.peak.flops_per_s,
            peak_source=self.peak.source,
            precision=self._precision(),
            **self._corpus_json("corpus_"),
            parent=self.origin.parent,
        )
        say(
            f"gptjax {gptjax.__version__}, jax {jax.__version__}, "
            f"{len(self.devices)} x {device.platform} ({device.device_kind}): {self.why}"
        )
        if text.fallback_reason:
            say(
                f"WARNING: {text.fallback_reason}.\n"
                "WARNING: training on the SYNTHETIC corpus instead. Its losses cannot be compared "
                "with Shakespeare's.",
                style="bold yellow",
            )
        say(
            f"corpus {text.name}: {len(text.text):,} characters, {self.tokenizer.vocab_size} "
            f"symbols; {len(self.splits.train):,} train and {len(self.splits.val):,} val tokens"
        )
        if self.tokenizer.vocab_size == 1:
            say("warning: the vocabulary has 1 symbol; there is nothing to learn", style="yellow")
        if self.splits.floor_nats is not None:
            say(f"floor: no model can have a val loss below {self.splits.floor_nats:.4f}")
        say(f"model: {count(self.n_params)} parameters, {self._precision()}")
        if config.model.dtype == "bfloat16" and mesh.lacks_bfloat16(device):
            say("warning: this CPU emulates bfloat16; float32 is faster here", style="yellow")
        say(
            f"update: {self.flops / 1e9:.3f} GFLOP by XLA's count, {self.formula_flops / 1e9:.3f} "
            f"by 6N+12LHQT ({self.flops / self.formula_flops:.3f}); peak "
            f"{self.peak.flops_per_s / 1e9:,.0f} GFLOP/s, {self.peak.source}"
        )
        if self.origin.found:
            verb = "resumed" if self.origin.resumed else f"forked from {self.origin.parent}"
            say(f"{verb} at step {self.n_done}")
        for line in self.origin.lines:
            say("  " + line, style="yellow" if line.startswith("warning") else "")

    def _precision(self) -> str:
        model = self.config.model
        words = f"{model.param_dtype} parameters, {model.dtype} compute"
        if model.param_dtype == "float32":
            return words
        if self.config.optim.master_weights:
            return words + ", float32 masters"
        return words + ", no masters: updates below 1/256 of a weight are lost"

    def _loop(self) -> bool:
        """Updates, evaluations and checkpoints in their order; False if a signal ended it."""
        config = self.config
        max_iters = config.train.max_iters
        self.saved_step = self.n_done if self.origin.resumed else -1
        self.first_step = self.n_done
        self.logged = (self.n_done, self.ledger.seconds("step"))
        self._at_boundary()
        while self.n_done < max_iters:
            self._chunk(min(self._to_boundary(), self._affordable()))
            self._announce_long_run()
            self._at_boundary()
            if self.stop_signal:
                self._save(val_nats=None)
                return False
        return True

    def _announce_long_run(self) -> None:
        """Says once how long the run will take, if that is long, and which config is quicker."""
        if self.long_run_said or self.ledger.step_seconds_here() < 2 * _DISPATCH_SECONDS:
            return
        self.long_run_said = True
        if (left := self._eta()) > _LONG_RUN_SECONDS:
            advice = "stop it with Ctrl-C at any time: the same command goes on"
            if self.n_params > _LAPTOP_PARAMETERS:
                advice += "; configs/shakespeare_char.py takes minutes on a CPU"
            self.display.message(
                f"this will take about {duration(left)} on this device, evaluations included; "
                f"{advice}",
                style="yellow",
            )

    def _at_boundary(self) -> None:
        """Whatever is due after `n_done` updates: a log line, an evaluation, a checkpoint."""
        config, done = self.config, self.n_done
        at_end = done >= config.train.max_iters
        if done > self.logged[0] and (at_end or done % config.log.interval == 0):
            self._log_train()
        val_nats, is_best = None, False
        if (at_end or done % config.eval.interval == 0) and done not in self.log.evaluated:
            val_nats, is_best = self._evaluate()
        if at_end or is_best or done % config.checkpoint.interval == 0:
            self._save(val_nats=val_nats)

    def _to_boundary(self) -> int:
        """Updates until something is due."""
        config, done = self.config, self.n_done
        intervals = (config.log.interval, config.eval.interval, config.checkpoint.interval)
        ends = [done - done % interval + interval for interval in intervals]
        return min(*ends, config.train.max_iters) - done

    def _affordable(self) -> int:
        """Updates that take about _DISPATCH_SECONDS, so that signals and the bar are not late."""
        if self.config.train.updates_per_dispatch:
            return self.n_slots
        made = self.n_done - self.first_step
        if not made:
            return 1
        each = self.ledger.step_seconds_here() / made
        return max(1, min(self.n_slots, int(_DISPATCH_SECONDS / max(each, 1e-9))))

    def _chunk(self, n_updates: int) -> None:
        """Makes n_updates updates in one dispatch and checks that they are finite."""
        config = self.config
        with self.ledger.measure("data"):
            offsets_KAB = np.zeros(self.offsets_shape, np.int32)
            for slot in range(n_updates):
                offsets_KAB[slot] = batches.offsets(
                    config.seed,
                    "train",
                    self.n_done + slot,
                    n_tokens=len(self.splits.train),
                    block_size=config.model.block_size,
                    batch_size=config.train.batch_size,
                ).reshape(self.offsets_shape[1:])
            offsets = jax.device_put(offsets_KAB, self.offsets_sharding)
        start = time.perf_counter()
        with self.ledger.measure("step"):
            self.state, metrics = self.train_steps(
                self.tokens["train"], self.state, offsets, np.int32(n_updates)
            )
            metrics_K = {name: np.asarray(values)[:n_updates] for name, values in metrics.items()}
        self.ledger.count_steps(n_updates, time.perf_counter() - start)
        finite_K = np.isfinite(metrics_K["loss"]) & np.isfinite(metrics_K["grad_norm"])
        if not finite_K.all():
            bad = int(np.argmin(finite_K))
            raise RunError(
                f"update {self.n_done + bad} is not finite: loss {metrics_K['loss'][bad]}, "
                f"gradient norm {metrics_K['grad_norm'][bad]}, learning rate "
                f"{self._rate(self.n_done + bad):.3g}; the last good checkpoint is step "
                f"{self.saved_step}. Try a lower --config.optim.learning_rate."
            )
        self.n_done += n_updates
        self.last = {name: float(values[-1]) for name, values in metrics_K.items()}

    def _log_train(self) -> None:
        """One `train` record, on the last update, with the mean time since the record before."""
        done, (before, seconds_before) = self.n_done, self.logged
        seconds_each = (self.ledger.seconds("step") - seconds_before) / (done - before)
        self.logged = (done, self.ledger.seconds("step"))
        rate = self.flops / seconds_each
        record = {
            "step": done,
            "loss": self.last["loss"],
            "lr": self._rate(done - 1),
            "grad_norm": self.last["grad_norm"],
            "step_ms": 1e3 * seconds_each,
            "tokens_per_s": self.n_tokens / seconds_each,
            "mfu": rate / self.peak.flops_per_s,
            "mfu_a100": self.formula_flops / seconds_each / flops.A100_PEAK,
            "tokens_seen": done * self.n_tokens,
            "flops_total": done * self.flops,
            "seconds": self.ledger.process_seconds(),
        }
        self.log.append("train", **record)
        figures = {
            "loss": f"{record['loss']:.4f}",
            "step": f"{record['step_ms']:.3g} ms",
            "tok/s": count(record["tokens_per_s"]),
            "mfu": f"{record['mfu']:.0%}",
        }
        self.display.update(done, figures, eta_seconds=self._eta())

    def _rate(self, index: int) -> float:
        return float(self.rate(jnp.asarray(index, jnp.int32)))

    def _eta(self) -> float:
        """Seconds left, evaluations included, at the pace measured so far."""
        config, done = self.config, self.n_done
        made = max(1, done - self.first_step)
        left = config.train.max_iters - done
        n_evals = math.ceil(left / config.eval.interval)
        return left * self.ledger.step_seconds_here() / made + n_evals * self.eval_seconds

    def _evaluate(self) -> tuple[float, bool]:
        """Both splits' losses, logged and shown: (val, whether it is the best so far)."""
        start = time.perf_counter()
        with self.ledger.measure("eval"):
            losses = {name: self._loss(name) for name in ("train", "val")}
        # The first evaluation compiles as well: the estimate of time left mends itself.
        self.eval_seconds = time.perf_counter() - start
        val = losses["val"].mean
        is_best = math.isfinite(val) and (
            self.best["val_nats"] is None or val < self.best["val_nats"]
        )
        if is_best:
            self.best = {"step": self.n_done, "val_nats": val}
        record: dict[str, Any] = {"step": self.n_done}
        for name, loss in losses.items():
            record |= {f"{name}_loss": loss.mean, f"{name}_sem": loss.sem}
        record |= {"best_val": self.best["val_nats"], "seconds": self.ledger.process_seconds()}
        words = (
            f"step {self.n_done}: train {losses['train'].mean:.4f}, "
            f"val {val:.4f} ± {losses['val'].sem:.4f} nats/char"
        )
        if self.splits.floor_nats is not None:
            record["val_above_floor"] = val - self.splits.floor_nats
            words += f", {record['val_above_floor']:.4f} above the floor of {self.text.name}"
        self.log.append("eval", **record)
        self.display.message(words + (" (best)" if is_best else ""))
        if not math.isfinite(val):
            raise RunError(f"the val loss at step {self.n_done} is {val}")
        return val, is_best

    def _loss(self, name: str) -> Loss:
        config, ids = self.config, getattr(self.splits, name)
        block_size = config.model.block_size
        if config.eval.mode == "random":
            offsets_W = np.concatenate(
                [
                    batches.offsets(
                        config.seed,
                        name,
                        _FIRST_EVAL_BATCH + self.n_done * config.eval.iters + index,
                        n_tokens=len(ids),
                        block_size=block_size,
                        batch_size=config.train.batch_size,
                    )
                    for index in range(config.eval.iters)
                ]
            )
        else:
            # Both splits get the same number of tokens: val's, or what max_tokens allows.
            max_tokens = config.eval.max_tokens or len(self.splits.val) - 1
            offsets_W = batches.sweep_offsets(
                n_tokens=len(ids), block_size=block_size, max_tokens=max_tokens
            )
        return mean_loss(self.evaluator.losses(self.state.params, self.tokens[name], offsets_W))

    def _save(self, *, val_nats: float | None) -> None:
        if self.saved_step == self.n_done:
            return
        with self.ledger.measure("checkpoint"):
            meta = {
                "config": flat(self.config),
                "overrides": self.origin.overrides,
                "tokenizer": self.tokenizer.to_json(),
                "corpus": self._corpus_json(),
                "val_sha256": batches.sha256(self.splits.val),
                "best": self.best,
                "parent": self.origin.parent,
                "ledger": self.ledger.to_json(),
            }
            self.checkpoints.save(self.state, meta, val_nats=val_nats)
        self.saved_step = self.n_done

    def _corpus_json(self, prefix: str = "") -> dict[str, Any]:
        values = {
            "name": self.text.name,
            "sha256": self.text.sha256,
            "requested": self.config.data.source,
            "fallback_reason": self.text.fallback_reason,
            "floor_nats": self.splits.floor_nats,
        }
        return {prefix + name: value for name, value in values.items()}

    def _finish(self, finished: bool) -> None:
        """The ledger and the last words."""
        ledger, say = self.ledger.to_json(), self.display.message
        self.log.append("ledger", step=self.n_done, **ledger)
        reason = "finished" if finished else signal.Signals(self.stop_signal).name
        self.log.append("end", step=self.n_done, reason=reason)
        parts = ", ".join(f"{kind} {ledger['seconds'][kind]:.1f} s" for kind in KINDS)
        say(f"wall {duration(ledger['wall_seconds'])}: {parts}")
        say(
            f"an update took {ledger['step_ms_median']:.1f} ms (median; p95 "
            f"{ledger['step_ms_p95']:.1f}), evaluation, saving and compilation not included"
        )
        if self.best["val_nats"] is not None:
            at = self.best["step"]
            overfit = "; overfit since then" if finished and at < self.n_done else ""
            say(f"best val {self.best['val_nats']:.4f} at step {at} on {self.text.name}{overfit}")
        if finished:
            say(f"sample from it: python scripts/sample.py --out_dir {self.run_dir}")
        else:
            say(f"stopped by {reason} at step {self.n_done}, saved; the same command goes on")

    def _on_signal(self, number: int, frame: object) -> None:
        if self.stop_signal:
            raise KeyboardInterrupt
        self.stop_signal = number


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _text(origin: Origin) -> corpus.Corpus:
    """The run's text; for a run that goes on, the one it began with, fallback or not."""
    data = origin.config.data
    if not origin.resumed or origin.found is None:
        return corpus.load(data.source, fallback=data.fallback)
    was = origin.found.meta["corpus"]
    if was["fallback_reason"]:
        found = corpus.load(was["name"], fallback="")
        found = corpus.relabel(found, was["fallback_reason"])
    else:
        found = corpus.load(data.source, fallback="")
    corpus.check_unchanged(found, was["sha256"])
    return found
