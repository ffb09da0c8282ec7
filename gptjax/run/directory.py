"""The run directory: who may write into it, whether a run is in it, and whether it has room."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from gptjax.system import signals
from gptjax.system.errors import RunError, UserError
from gptjax.system.files import free_space

_LOCK = ".lock"

# Network file systems show a new file a little later, seconds.
_SEEN_SECONDS = 5.0

# Bytes for what is below a run directory: Orbax's temporary folders take up to 150.
_LONGEST_INSIDE = 256


def is_used(run_dir: Path) -> bool:
    """Whether a run has been started in this directory."""
    return (run_dir / "config.json").exists() or (run_dir / "checkpoints").exists()


def has_checkpoints(run_dir: Path) -> bool:
    """Whether a run in this directory may go on: it has, or had, a checkpoint.

    Raises:
      UserError: if that cannot be seen, because the directory belongs to somebody else.
    """
    checkpoints = run_dir / "checkpoints"
    try:
        is_folder = stat.S_ISDIR(checkpoints.stat().st_mode)
        if is_folder and not os.access(checkpoints, os.R_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return is_folder
    except PermissionError as error:
        rule = f"cannot be read: {error.strerror}"
        raise UserError("run directory", run_dir, rule, "Ask its owner for access.") from error
    except OSError:  # There is none, or its name is too long.
        return False


def check_place(run_dir: Path) -> None:
    """Raises UserError where a run would be lost, or could not save."""
    path, another = run_dir.resolve(), "Choose another --config.out_dir."
    for parent in path.parents:
        if parent.name == "checkpoints" and (parent.parent / "metrics.jsonl").exists():
            rule = f"lies among the checkpoints of {parent.parent}, which deletes them in time"
            raise UserError("out_dir", run_dir, rule, another)
    n_bytes, most = len(os.fsencode(path)), os.pathconf("/", "PC_PATH_MAX") - _LONGEST_INSIDE
    if n_bytes > most:
        shown = f"{str(run_dir):.40}…"
        raise UserError("out_dir", shown, f"has {n_bytes} bytes; must have ≤ {most}", another)


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
def locked(run_dir: Path) -> Iterator[Callable[[], None]]:
    """Holds the directory's lock: one writer at a time; the kernel frees it however we end.

    The directory is made if need be, and removed again if no run has begun in it by the end. What
    is yielded raises RunError when the directory is no longer the one that was locked: somebody has
    removed or moved it, and another process may write there now.

    Raises:
      UserError: naming the process that holds the lock.
    """
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    with _lock_file(run_dir) as file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        of_folder = os.stat(run_dir)

        def is_ours() -> bool:
            with contextlib.suppress(FileNotFoundError):
                return os.path.samestat(os.fstat(file.fileno()), os.stat(run_dir / _LOCK))
            with contextlib.suppress(OSError):  # A lock alone may have been tidied away.
                return os.path.samestat(of_folder, os.stat(run_dir))
            return False

        def check() -> None:
            if not is_ours():
                words = "was removed, moved or begun anew while this run wrote into it"
                raise RunError(f"{run_dir} {words}; nothing more is written there")

        def remove() -> None:
            if is_ours():
                _remove_unused(run_dir, made)

        try:
            with signals.tidied(remove):
                yield check
        finally:
            remove()


def lock_text(run_dir: Path) -> str:
    """Who holds the directory's lock, as its file says it; "" where it cannot be read."""
    try:
        return (run_dir / _LOCK).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def sees_lock(run_dir: Path, text: str) -> bool:
    """Whether the lock has this text here, now or as soon as a network file system shows it."""
    until = time.monotonic() + _SEEN_SECONDS
    while lock_text(run_dir) != text:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _remove_unused(run_dir: Path, made: Sequence[Path]) -> None:
    """Leaves no trace of a run that has not begun: `made` are the folders made for it."""
    if not is_used(run_dir):
        (run_dir / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # Somebody has put something there meanwhile.
            for folder in made:
                folder.rmdir()


def check_empty(run_dir: Path, *, flag: str = "--out_dir") -> None:
    """Raises UserError when there is anything in a directory that is to be made whole."""
    if run_dir.is_dir() and any(run_dir.iterdir()):
        raise UserError(flag, run_dir, "is not empty", f"Choose another {flag}.")


@contextlib.contextmanager
def made_whole(run_dir: Path, *, flag: str = "--out_dir") -> Iterator[Path]:
    """A new folder to write a run into: it becomes `run_dir` at the end, or leaves nothing.

    `flag` is what errors name: where the directory was given.

    Raises:
      UserError: if there is anything in `run_dir` at the start or at the end.
    """
    check_empty(run_dir, flag=flag)
    run_dir = run_dir.absolute()
    made = [folder for folder in run_dir.parents if not folder.exists()]
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    building = run_dir.with_name(f".gptjax.{os.getpid()}.tmp")
    shutil.rmtree(building, ignore_errors=True)  # A killed process of this number may have left it.
    remove = functools.partial(_remove_building, building, made)
    try:
        with signals.tidied(remove):
            building.mkdir()
            yield building
            try:
                os.replace(building, run_dir)  # Takes the place of an empty folder.
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise UserError(flag, run_dir, f"cannot be made: {reason}") from error
    finally:
        remove()


def _remove_building(building: Path, made: Sequence[Path]) -> None:
    """Leaves no trace of a run that was not made: `made` are the folders made for it."""
    shutil.rmtree(building, ignore_errors=True)
    with contextlib.suppress(OSError):  # Those that hold something by now stay.
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
