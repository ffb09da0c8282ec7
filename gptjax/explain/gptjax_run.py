"""A run directory of gptjax, read as a Series."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.device.formula import formula_flops
from gptjax.explain.series import Evaluations, Fact, Series, Times, Updates
from gptjax.run.final_peak import final_peak
from gptjax.run.ledger import Ledger
from gptjax.run.runlog import read_records
from gptjax.system.errors import UserError

# Of a `run` record, and what they are called as facts.
_FROM_RECORD = {
    "n_params": "parameters",
    "vocab_size": "vocab_size",
    "train_tokens": "train_tokens",
    "val_bytes_per_token": "val_bytes_per_token",
    "corpus_name": "corpus",
    "corpus_sha256": "corpus_sha256",
    "corpus_floor_nats": "floor_nats",
    "device": "device",
    "n_devices": "n_devices",
    "host_cores": "host_cores",
    "precision": "precision",
    "formula_flops_per_update": "flops_per_update",
    "versions": "versions",
    "started": "started",
    "parent": "parent",
}


def read_run(path: Path, label: str) -> Series:
    """A run, from its config.json and metrics.jsonl.

    Raises:
      UserError: if there is no log, or no evaluation after an update in it.
    """
    log = path / "metrics.jsonl"
    records = read_records(log)
    if not records:
        rule = "has no metrics.jsonl, or nothing in it"
        raise UserError("run", path, rule, "Give a run directory.")
    told = _records(records, "eval", "step", "val_loss", "seconds")
    if not told:
        raise UserError("run", path, "has no evaluation yet")
    trained = _records(records, "train", "step", "seconds")
    if not trained or told[-1]["step"] == 0:
        raise UserError("run", path, "has no evaluation after an update yet")
    facts = _facts(path, records)
    notes = []
    if len(starts := [record for record in records if record["kind"] == "run"]) > 1:
        notes.append(f"it was started {len(starts)} times; facts are of the last start")
    return Series(
        label=label,
        path=str(path),
        program="gptjax",
        evaluations=Evaluations(
            update_E=_column(told, "step"),
            train_E=_column(told, "train_loss"),
            val_E=_column(told, "val_loss"),
            train_sem_E=_column(told, "train_sem"),
            val_sem_E=_column(told, "val_sem"),
            seconds_E=_column(told, "seconds"),
        ),
        updates=Updates(
            update_U=_column(trained, "step"),
            loss_U=_column(trained, "loss"),
            ms_U=_column(trained, "step_ms"),
            lr_U=_column(trained, "lr"),
            grad_norm_U=_column(trained, "grad_norm"),
            seconds_U=_column(trained, "seconds"),
        ),
        times=_times(records, n_evaluations=len(told)),
        facts=facts,
        notes=tuple(notes),
    )


def _records(records: list[dict[str, Any]], kind: str, *names: str) -> list[dict[str, Any]]:
    """Those of a kind that hold a number under the first name, and something under the others."""
    return [
        record
        for record in records
        if record["kind"] == kind
        and isinstance(record.get(names[0]), int | float)
        and all(name in record for name in names)
    ]


def _number(value: Any) -> float:
    """A record's number; NaN for what was not finite when it was written, or is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def _column(records: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([_number(record.get(name)) for record in records], np.float64)


def _facts(path: Path, records: list[dict[str, Any]]) -> dict[str, Fact]:
    """What the run's config and the record of its last start say."""
    facts = {}
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    if isinstance(config, dict):
        facts = {name: Fact(value, "config") for name, value in config.items()}
    starts = [record for record in records if record["kind"] == "run"]
    record = starts[-1] if starts else {}
    for name, fact in _FROM_RECORD.items():
        if record.get(name) is not None:
            facts[fact] = Fact(record[name], "record")
    if peak := final_peak(records):
        facts["peak_flops_per_s"] = Fact(peak.flops_per_s, "record")
        facts["peak_source"] = Fact(peak.source, "record")
    version = (record.get("versions") or {}).get("gptjax", "")
    facts["program"] = Fact(f"gptjax {version}".strip(), "record")
    derived = {
        "tokens_per_update": _tokens_per_update(facts),
        "flops_per_update": _flops_per_update(facts),
        "loss_estimate": facts.get("eval.mode") and facts["eval.mode"].value,
    }
    for name, value in derived.items():
        if value is not None and name not in facts:
            facts[name] = Fact(value, "config")
    return facts


def _values(facts: dict[str, Fact], *names: str) -> list[Any] | None:
    """The values of facts; None unless all are numbers."""
    values = [facts[name].value for name in names if name in facts]
    are_all = len(values) == len(names) and all(isinstance(v, int | float) for v in values)
    return values if are_all else None


def _tokens_per_update(facts: dict[str, Fact]) -> int | None:
    values = _values(facts, "train.batch_size", "model.block_size")
    return values[0] * values[1] if values else None


def _flops_per_update(facts: dict[str, Fact]) -> float | None:
    names = ("model.n_layer", "model.n_embd", "model.block_size", "parameters")
    values, n_tokens = _values(facts, *names), _tokens_per_update(facts)
    if values is None or n_tokens is None:
        return None
    n_layer, n_embd, block_size, n_params = values
    return formula_flops(
        n_layer=n_layer, n_embd=n_embd, block_size=block_size, n_params=n_params, n_tokens=n_tokens
    )


def _times(records: list[dict[str, Any]], *, n_evaluations: int) -> Times:
    """From the last ledger; a run that is going on, or was killed, has none."""
    ledgers = [record for record in records if record["kind"] == "ledger"]
    if not ledgers:
        return Times()
    ledger = ledgers[-1]
    seconds = {
        kind: _number(value)
        for kind, value in (ledger.get("seconds") or {}).items()
        if _number(value) >= 0
    }
    wall = sum(seconds.values())
    earlier = Ledger({"step_ms_bins": ledger.get("step_ms_bins") or {}})
    return Times(
        update_ms=_number(ledger.get("step_ms_median")),
        update_ms_low=earlier.step_ms(0.05),
        update_ms_high=_number(ledger.get("step_ms_p95")),
        n_updates=sum((ledger.get("step_ms_bins") or {}).values()),
        evaluation_seconds=seconds.get("eval", math.nan) / n_evaluations,
        evaluation_share=seconds.get("eval", math.nan) / wall if wall else math.nan,
        ledger=seconds,
    )
