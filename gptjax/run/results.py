"""What a run directory says of a run that is over."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptjax.config.knobs import KNOBS
from gptjax.run import runlog


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run directory says of a run that is over.

    Attributes:
      failed: why it did not come to its end; "" where it did.
      val_nats, val_sem: val after the last update, and its standard error over windows.
      n_params, n_tokens, flops: weights, tokens seen, and computed in all.
      update_seconds: an update's median; NaN if others were trained in the same dispatch.
    """

    failed: str
    val_nats: float = math.nan
    val_sem: float = math.nan
    n_params: int = 0
    n_tokens: int = 0
    flops: float = 0.0
    update_seconds: float = math.nan


def result(run_dir: Path, values: Mapping[str, Any], *, corpus_sha256: str) -> Result | None:
    """The result of the run with these knobs on that text; None of another, or while it goes on."""
    try:
        had = json.loads((run_dir / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if any(had.get(name) != values[name] for name, knob in KNOBS.items() if knob.in_digest):
        return None
    by_kind = {record["kind"]: record for record in runlog.read_records(run_dir / "metrics.jsonl")}
    if (
        not {"run", "ledger", "end"} <= set(by_kind)
        or by_kind["run"]["corpus_sha256"] != corpus_sha256
    ):
        return None
    end, last, update = by_kind["end"], by_kind.get("eval"), by_kind.get("train")
    if end["reason"].startswith("SIG"):
        return None
    if end["reason"] != "finished":
        return Result(end["reason"])
    n_updates = values["train.max_iters"]
    if end["step"] != n_updates or not last or last["step"] != n_updates or not update:
        return None
    is_alone = by_kind["run"].get("runs_together", 1) == 1
    return Result(
        "",
        val_nats=last["val_loss"],
        val_sem=math.inf if last["val_sem"] is None else last["val_sem"],
        n_params=by_kind["run"]["n_params"],
        n_tokens=update["tokens_seen"],
        flops=update["flops_total"],
        update_seconds=by_kind["ledger"]["step_ms_median"] / 1e3 if is_alone else math.nan,
    )
