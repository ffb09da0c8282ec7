"""metrics.jsonl: what a run measured, one JSON object a line, append-only."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections

from gptjax.run import wandb_log
from gptjax.run.progress import Notice
from gptjax.run.wandb_log import WandbLog
from gptjax.system.errors import UserError
from gptjax.system.files import encoded, write_atomically, write_errors


class RunLog:
    """metrics.jsonl, one JSON object a line; a step's line is never written twice.

    Attributes:
      evaluated: the steps whose evaluation is in the log already.
      n_damaged: lines that were no records, other than a last one torn by a kill; they are gone.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        resumed_step: int | None,
        tensorboard: bool,
        wandb: WandbLog | None = None,
    ):
        """Opens the log; what it says of steps after `resumed_step` (None: of any) is cut off.

        Raises:
          RunError: if it cannot be written, here and in `append`.
        """
        self._path = run_dir / "metrics.jsonl"
        records, self.n_damaged = _read(self._path)
        kept = [
            record
            for record in records
            if resumed_step is not None and record.get("step", 0) <= resumed_step
        ]
        write_atomically(self._path, "".join(_line(record) for record in kept))
        self.evaluated = {record["step"] for record in kept if record["kind"] == "eval"}
        # Unbuffered: what could not be written must not be tried once more at the end.
        self._file = open(self._path, "ab", buffering=0)
        self._events = _event_writer(run_dir, resumed_step) if tensorboard else None
        self._wandb = wandb

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.close(exit_code=int(kind is not None))

    def append(self, kind: str, **values: Any) -> None:
        """Writes one record, which is in the operating system's hands when this returns."""
        line = encoded(_line({"kind": kind, **values}))
        with write_errors(self._path):
            if self._file.write(line) < len(line):  # So the disk's last free bytes are used up.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._events is not None and "step" in values:
            for name, value in values.items():
                if isinstance(value, int | float) and name != "step":
                    self._events.add_scalar(f"{kind}/{name}", value, values["step"])
        if self._wandb is not None:
            self._wandb.add(kind, _finite(values))


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a metrics.jsonl; a torn last line, left by a kill, is dropped.

    Raises:
      UserError: if there is one that cannot be read.
    """
    return _read(path)[0]


def check_nothing_lost(run_dir: Path) -> None:
    """Raises UserError if a run's checkpoints are gone: a start would overwrite its log."""
    if (step := ended_at(run_dir / "metrics.jsonl")) is not None:
        raise UserError(
            "out_dir",
            run_dir,
            f"has the log of a run that ended at step {step}, and no checkpoint",
            "Put its checkpoints back, delete metrics.jsonl to start anew, or choose another "
            "--config.out_dir.",
        )


def ended_at(path: Path) -> int | None:
    """The step at which the run of a log ended, all saved.

    None for one that was killed, or could not go on: that may have had no checkpoint yet.
    """
    for record in reversed(read_records(path)):
        reason = str(record.get("reason"))
        if record["kind"] == "end" and (reason == "finished" or reason.startswith("SIG")):
            return record["step"]
    return None


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and how many lines before the last are none."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raw = b""
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("log", path, f"cannot be read: {reason}") from error
    # Not splitlines, which also cuts at characters that JSON may hold as they are.
    *lines, torn = raw.split(b"\n")
    records = [record for line in lines if (record := _record(line)) is not None]
    n_damaged = sum(1 for line in lines if line) - len(records)
    last = _record(torn)
    return records + ([last] if last is not None else []), n_damaged


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    has_step = type(record.get("step")) is int
    return record if has_step or ("step" not in record and record["kind"] == "run") else None


def _line(record: dict[str, Any]) -> str:
    return json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with null for what is not finite: JSON has no NaN and no infinity."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError when what the config logs with is not installed."""
    if config.log.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "log.tensorboard", True, "needs tensorboardX", 'pip install -e ".[tensorboard]"'
        )
    if config.log.wandb:
        wandb_log.check()


def begin(
    config: ml_collections.ConfigDict, resumed_step: int | None, *, tell: Callable[[Notice], None]
) -> RunLog:
    """The log of a run, kept in all the ways that its config asks for."""
    run_dir, wandb = Path(config.out_dir), None
    if config.log.wandb:
        wandb = wandb_log.WandbLog(config, is_resumed=resumed_step is not None, tell=tell)
    return RunLog(
        run_dir, resumed_step=resumed_step, tensorboard=config.log.tensorboard, wandb=wandb
    )


def _event_writer(run_dir: Path, resumed_step: int | None) -> Any:
    from tensorboardX import SummaryWriter

    # TensorBoard, too, is to forget what is beyond the step gone on from.
    purge_step = None if resumed_step is None else resumed_step + 1
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge_step)
