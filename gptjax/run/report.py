"""What a run says of itself: every record of metrics.jsonl, and the words a person reads."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from typing import Any

import jax
import ml_collections

import gptjax
from gptjax.config.config import digest
from gptjax.data.corpus import AnyCorpus, Splits
from gptjax.device import flops, mesh
from gptjax.evaluate import Loss
from gptjax.run.ledger import KINDS, Ledger
from gptjax.run.program import Program
from gptjax.run.progress import Display, count, duration
from gptjax.run.resume import Origin
from gptjax.run.runlog import RunLog
from gptjax.system.errors import RunError

# A run longer than this is announced, with a smaller config to try first.
_LONG_RUN_SECONDS = 15 * 60
_LAPTOP_PARAMETERS = 2_000_000


class Report:
    """Writes a run's records and tells its user what they mean."""

    def __init__(self, log: RunLog, display: Display, ledger: Ledger, *, unit: str):
        """`unit` is what the run's losses are per: "char" or "token"."""
        self._log, self._display, self._ledger, self._unit = log, display, ledger, unit
        self._last_record: dict[str, Any] = {}

    def started(
        self,
        origin: Origin,
        text: AnyCorpus,
        splits: Splits,
        vocab_size: int,
        program: Program,
        devices: list[jax.Device],
        why: str,
    ) -> None:
        """The `run` record, and what is about to be trained on what."""
        config, device, say = origin.config, devices[0], self._display.message
        machine = mesh.machine(devices)
        start_step = int(program.state.step)
        self._log.append(
            "run",
            versions=_versions(),
            **machine,
            xla_flags=os.environ.get("XLA_FLAGS", ""),
            config_digest=digest(config),
            start_step=start_step,
            precision=precision(config),
            **program.costs(),
            **{
                f"corpus_{name}": value for name, value in corpus_json(config, text, splits).items()
            },
            parent=origin.parent,
        )
        say(
            f"gptjax {gptjax.__version__}, jax {jax.__version__}, "
            f"{len(devices)} x {device.platform} ({device.device_kind}): {why}"
        )
        if text.fallback_reason:
            say(
                f"WARNING: {text.fallback_reason}.\n"
                "WARNING: training on the SYNTHETIC corpus instead. Its losses cannot be compared "
                "with Shakespeare's.",
                style="bold yellow",
            )
        say(
            f"corpus {text.name}: {text.size}, {vocab_size} symbols; "
            f"{len(splits.train):,} train and {len(splits.val):,} val tokens"
        )
        if vocab_size == 1:
            say("warning: the vocabulary has 1 symbol; there is nothing to learn", style="yellow")
        if splits.floor_nats is not None:
            say(f"floor: no model can have a val loss below {splits.floor_nats:.4f}")
        say(f"model: {count(program.n_params)} parameters; {precision(config)}")
        if device.platform != "cpu":
            kernels = program.attention
            say(f"attention: {kernels.updates}, evaluating {kernels.evaluations}: {kernels.why}")
        if config.model.dtype == "bfloat16" and mesh.lacks_bfloat16(device):
            words = f"warning: this {device.platform} emulates bfloat16; float32 is faster here"
            say(words, style="yellow")
        ratio = program.flops / program.formula_flops
        say(
            f"update: {program.flops / 1e9:.3f} GFLOP by XLA's count, "
            f"{program.formula_flops / 1e9:.3f} by 6N+12LHQT (ratio {ratio:.3f}); "
            f"peak {program.peak.flops_per_s / 1e9:,.0f} GFLOP/s, {program.peak.source}"
        )
        if origin.found:
            source = origin.parent["init_from"] if origin.is_fork and origin.parent else ""
            say((f"forked from {source}" if source else "resumed") + f" at step {start_step}")
            was = origin.found.meta["machine"]
            changes = [
                f"{name} {was[name]} → {now}" for name, now in machine.items() if was[name] != now
            ]
            if changes:
                say(f"  {', '.join(changes)}: the last digits of the results may differ")
        if self._log.n_damaged:
            say(
                f"warning: {self._log.n_damaged} damaged lines of metrics.jsonl are left out",
                style="yellow",
            )
        for line in origin.lines:
            say("  " + line, style="yellow" if line.startswith("warning") else "")

    def updates(
        self,
        step: int,
        *,
        seconds_each: float,
        seconds_ago: float,
        lr: float,
        metrics: dict[str, float],
        program: Program,
    ) -> None:
        """The `train` record: the last update's loss, the mean time since the record before."""
        record = {
            "step": step,
            "loss": metrics["loss"],
            "lr": lr,
            "grad_norm": metrics["grad_norm"],
            "step_ms": 1e3 * seconds_each,
            "tokens_per_s": program.n_tokens / seconds_each,
            "mfu": program.flops / seconds_each / program.peak.flops_per_s,
            # nanoGPT's way, whatever the device: its formula over an A100's peak.
            "mfu_a100": program.formula_flops / seconds_each / flops.A100_PEAK,
            "tokens_seen": step * program.n_tokens,
            "flops_total": step * program.flops,
            "seconds": self._ledger.run_seconds() - seconds_ago,
        }
        self._log.append("train", **record)
        self._last_record = record

    def progress(self, eta_seconds: float) -> None:
        """Shows the last `train` record and what is left."""
        record = self._last_record
        if not record:
            return
        figures = {
            "loss": f"{record['loss']:.4f}",
            "step": f"{record['step_ms']:.3g} ms",
            "tok/s": count(record["tokens_per_s"]),
            "mfu": f"{record['mfu']:.0%}",
        }
        self._display.update(record["step"], figures, eta_seconds=eta_seconds)

    def evaluated(
        self,
        step: int,
        losses: dict[str, Loss],
        best: dict[str, Any],
        text: AnyCorpus,
        floor_nats: float | None,
    ) -> None:
        """The `eval` record, and its line."""
        record: dict[str, Any] = {"step": step}
        for name, loss in losses.items():
            record |= {f"{name}_loss": loss.mean, f"{name}_sem": loss.sem}
        record |= {"best_val": best["val_nats"], "seconds": self._ledger.run_seconds()}
        val = losses["val"]
        words = (
            f"step {step}: train {losses['train'].mean:.4f}, "
            f"val {val.mean:.4f} ± {val.sem:.4f} nats/{self._unit}"
        )
        if floor_nats is not None:
            record["val_above_floor"] = val.mean - floor_nats
            words += f", {val.mean - floor_nats:.4f} above the floor of the {text.name} corpus"
        self._log.append("eval", **record)
        self._display.message(words + (" (best)" if best["step"] == step else ""))

    def long_run(self, left_seconds: float, n_params: int) -> None:
        """Says how long the run will take, if that is long, and which config is quicker."""
        if left_seconds <= _LONG_RUN_SECONDS:
            return
        advice = "Ctrl-C stops and saves it, the same command goes on"
        if n_params > _LAPTOP_PARAMETERS:
            advice += "; configs/shakespeare_char.py takes a minute or two on a CPU"
        self._display.message(
            f"this will take about {duration(left_seconds)} on this device, evaluations included; "
            f"{advice}",
            style="yellow",
        )

    def ended(
        self,
        step: int,
        reason: str,
        *,
        best: dict[str, Any],
        last_val: Loss | None,
        text: AnyCorpus,
        out_dir: str,
    ) -> None:
        """The `ledger` and `end` records, and the last words."""
        ledger, say = self._ledger.to_json(), self._display.message
        self._log.append("ledger", step=step, **ledger)
        self._log.append("end", step=step, reason=reason)
        parts = ", ".join(f"{kind} {ledger['seconds'][kind]:.1f} s" for kind in KINDS)
        say(f"wall {duration(ledger['wall_seconds'])}: {parts}")
        say(
            f"an update took {ledger['step_ms_median']:.1f} ms (median; p95 "
            f"{ledger['step_ms_p95']:.1f}); evaluation, saving and compilation are not in it"
        )
        finished = reason == "finished"
        if best["val_nats"] is not None:
            words = f"best val {best['val_nats']:.4f} at step {best['step']} on {text.name}"
            # Two standard errors worse than the best is more than chance.
            if last_val and last_val.mean > best["val_nats"] + 2 * last_val.sem:
                words += f"; overfit since then: {last_val.mean:.4f} now"
            say(words)
        if finished:
            say(f"sample from it: python scripts/sample.py --out_dir {out_dir}")
        else:
            say(f"stopped by {reason} at step {step}, saved; the same command goes on from there")

    def failed(self, step: int, reason: str) -> None:
        """The `end` record of a run that cannot go on, if the log can still be written."""
        with contextlib.suppress(RunError):
            self._log.append("end", step=step, reason=reason)


def _versions() -> dict[str, str]:
    libraries = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    found = {name: importlib.metadata.version(name) for name in libraries}
    return {"python": platform.python_version(), "gptjax": gptjax.__version__, **found}


def precision(config: ml_collections.ConfigDict) -> str:
    """What is held and computed in what, and what is lost by it."""
    model = config.model
    words = f"{model.param_dtype} parameters, {model.dtype} compute"
    if model.matmul_precision != "default":
        words += f" at the {model.matmul_precision} precision"
    if model.param_dtype == "float32":
        return words
    if config.optim.master_weights:
        return words + ", float32 masters"
    return words + ", no masters: updates below 1/256 of a weight are lost"


def corpus_json(
    config: ml_collections.ConfigDict, text: AnyCorpus, splits: Splits
) -> dict[str, Any]:
    """What the run's log and its checkpoints say of the text."""
    return {
        "name": text.name,
        "sha256": text.sha256,
        "requested": config.data.source,
        "fallback_reason": text.fallback_reason,
        "floor_nats": splits.floor_nats,
    }
