"""The run directory's files beside its checkpoints: config.json, metrics.jsonl and the lock."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import json
import math
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.errors import UserError


def is_used(run_dir: Path) -> bool:
    """Whether a run has been started in this directory."""
    return (run_dir / "config.json").exists() or (run_dir / "checkpoints").exists()


def check_writable(run_dir: Path) -> None:
    """Raises UserError when the directory is a file or cannot be made and written to."""
    another = "Choose another --config.out_dir."
    nearest = run_dir
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise UserError("out_dir", run_dir, f"{nearest} is a file", another)
        # Only trying tells: permissions do not bind root, and some file systems take no files.
        # On Linux a temporary file has no name, so that nothing is to be seen of it.
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            "out_dir", run_dir, f"{nearest} cannot be written to: {reason}", another
        ) from error


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the directory's lock: one writer at a time; the kernel frees it however we end.

    Raises:
      UserError: naming the process that holds it.
    """
    path = run_dir / ".lock"
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise UserError(
                "out_dir", run_dir, f"is in use by {owner}", "Wait, or choose another."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replaces a file as a whole: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(temporary, path)


def write_array(path: Path, array: np.ndarray) -> None:
    """Replaces an .npy file as a whole."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_atomically(path, content.getvalue())


def pretty_json(values: dict[str, Any]) -> str:
    """A JSON file's content, a line a value."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


class RunLog:
    """metrics.jsonl, one JSON object a line; a step's line is never written twice."""

    def __init__(self, run_dir: Path, *, resumed_step: int | None, tensorboard: bool):
        """Opens the log; what it says of steps after `resumed_step` (None: of any) is cut off."""
        self._path = run_dir / "metrics.jsonl"
        kept = [] if resumed_step is None else _kept(read_records(self._path), resumed_step)
        write_atomically(self._path, "".join(_line(record) for record in kept))
        self.evaluated = {record["step"] for record in kept if record["kind"] == "eval"}
        self._file = open(self._path, "a", encoding="utf-8")
        self._events = _event_writer(run_dir, resumed_step) if tensorboard else None

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def append(self, kind: str, **values: Any) -> None:
        """Writes one record, which is in the operating system's hands when this returns."""
        self._file.write(_line({"kind": kind, **values}))
        self._file.flush()
        if self._events is not None and "step" in values:
            for name, value in values.items():
                if isinstance(value, int | float) and name != "step":
                    self._events.add_scalar(f"{kind}/{name}", value, values["step"])


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a metrics.jsonl; a torn last line, left by a kill, is dropped."""
    records = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and "kind" in record:
            records.append(record)
    return records


def _kept(records: list[dict[str, Any]], step: int) -> list[dict[str, Any]]:
    return [record for record in records if record.get("step", 0) <= step]


def _line(record: dict[str, Any]) -> str:
    # JSON has no NaN and no infinity: what is not finite is written as null.
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.items()
    }
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


def check_tensorboard() -> None:
    """Raises UserError when what writes event files is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "log.tensorboard", True, "needs tensorboardX", 'pip install -e ".[tensorboard]"'
        )


def _event_writer(run_dir: Path, resumed_step: int | None) -> Any:
    from tensorboardX import SummaryWriter

    # TensorBoard, too, is to forget what is beyond the step gone on from.
    purge_step = None if resumed_step is None else resumed_step + 1
    return SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge_step)
