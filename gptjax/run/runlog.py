"""The run directory's files beside its checkpoints: config.json, metrics.jsonl and the lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import importlib.util
import io
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gptjax.system.errors import RunError, UserError

_LOCK = ".lock"


def is_used(run_dir: Path) -> bool:
    """Whether a run has been started in this directory."""
    return (run_dir / "config.json").exists() or (run_dir / "checkpoints").exists()


def check_writable(run_dir: Path, *, flag: str = "--config.out_dir") -> None:
    """Raises UserError when the directory is a file or cannot be made and written to."""
    another = f"Choose another {flag}."
    nearest = run_dir
    try:
        while not nearest.exists() and nearest != nearest.parent:
            if nearest.is_symlink():
                raise UserError("out_dir", run_dir, f"{nearest} is a link to nothing", another)
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


def free_space(folder: Path) -> int:
    """Bytes free where a folder is or is to be."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(nearest).free


def check_space(run_dir: Path, needed_bytes: int) -> None:
    """Raises UserError when the run's checkpoints would not fit where they are to be written."""
    free_bytes = free_space(run_dir)
    if free_bytes < needed_bytes:
        raise UserError(
            "out_dir",
            run_dir,
            f"the run's checkpoints need {needed_bytes:,} bytes, and {free_bytes:,} are free",
            "Make room, lower --config.checkpoint.keep or choose another --config.out_dir.",
        )


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the directory's lock: one writer at a time; the kernel frees it however we end.

    The directory is made if need be, and removed again if no run has begun in it by the end.

    Raises:
      UserError: naming the process that holds the lock.
    """
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    with _lock_file(run_dir) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        try:
            yield
        finally:
            if not is_used(run_dir):
                (run_dir / _LOCK).unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # Somebody has put something there meanwhile.
                    for folder in made:
                        folder.rmdir()


def _lock_file(run_dir: Path) -> TextIO:
    """The lock's file, locked."""
    path = run_dir / _LOCK
    while True:
        run_dir.mkdir(parents=True, exist_ok=True)
        try:
            # A link would have us empty the file that it leads to.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            continue  # A process that failed to start has just removed the directory.
        except OSError as error:
            raise UserError("out_dir", run_dir, f"its {_LOCK} cannot be opened: {error}") from error
        file = open(descriptor, "r+", encoding="utf-8", errors="replace")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                owner = _owner(file)
            raise UserError(
                "out_dir", run_dir, f"is in use by {owner}", "Wait, or choose another."
            ) from None
        # What was opened may have been removed before it was locked: then others have a new one.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return file
        file.close()


def _owner(file: TextIO) -> str:
    """Who holds the lock, and says so in its file as soon as it has it: now, or in a moment."""
    for _ in range(20):
        time.sleep(0.1)
        file.seek(0)
        if owner := file.read().strip():
            return owner
    return "another process"


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Replaces a file as a whole: a reader sees the old content or the new, never a part.

    Only for who holds the run's lock: what a killed process left half-written is replaced.

    Raises:
      RunError: if it cannot be written, because the disk is full or broken.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with _errors_told(path):
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # "x" follows no link that somebody put there.
            file.write(_bytes(content) if isinstance(content, str) else content)
        os.replace(temporary, path)


@contextlib.contextmanager
def _errors_told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RunError(f"{path} could not be written: {reason}") from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Replaces an .npy file as a whole."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    write_atomically(path, content.getvalue())


def pretty_json(values: dict[str, Any]) -> str:
    """A JSON file's content, a line a value."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


class RunLog:
    """metrics.jsonl, one JSON object a line; a step's line is never written twice.

    Attributes:
      evaluated: the steps whose evaluation is in the log already.
      n_damaged: lines that were no records, other than a last one torn by a kill; they are gone.
    """

    def __init__(self, run_dir: Path, *, resumed_step: int | None, tensorboard: bool):
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

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()

    def append(self, kind: str, **values: Any) -> None:
        """Writes one record, which is in the operating system's hands when this returns."""
        line = _bytes(_line({"kind": kind, **values}))
        with _errors_told(self._path):
            if self._file.write(line) < len(line):  # So the disk's last free bytes are used up.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._events is not None and "step" in values:
            for name, value in values.items():
                if isinstance(value, int | float) and name != "step":
                    self._events.add_scalar(f"{kind}/{name}", value, values["step"])


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a metrics.jsonl; a torn last line, left by a kill, is dropped."""
    return _read(path)[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and how many lines before the last are none."""
    raw = path.read_bytes() if path.exists() else b""
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


def _bytes(text: str) -> bytes:
    # A path may hold bytes that are no UTF-8, in Python a lone surrogate; its escape is JSON, too.
    return text.encode("utf-8", "backslashreplace")


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
