"""What can be made again but is better kept between runs: the user's cache folder."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path

import jax

from gptjax.system import interrupt

# Programs that compile faster than this are not worth a file.
_LEAST_COMPILE_SECONDS = 0.2

# Half a megabyte each: two thousand programs.
_MOST_BYTES_COMPILED = 1_000_000_000

# Seconds by which a file system's clock may be behind.
_CLOCKS_APART = 2.0


def folder() -> Path | None:
    """In GPTJAX_CACHE_DIR, or else in the user's cache; None without a home."""
    asked = os.environ.get("GPTJAX_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME")
    if asked:
        return Path(asked).expanduser() / "gptjax"
    home = os.environ.get("HOME")
    return Path(home) / ".cache" / "gptjax" if home else None


def programs_folder() -> Path | None:
    """Where programs are kept; None where they are not, as GPTJAX_COMPILE_CACHE=0 asks."""
    return None if os.environ.get("GPTJAX_COMPILE_CACHE") == "0" else folder()


def keep_compiled_programs() -> None:
    """From here on, programs that XLA compiles are kept for the next process; call it early.

    GPTJAX_COMPILE_CACHE=0 switches that off; JAX_COMPILATION_CACHE_DIR, where set, says where
    instead. A folder that cannot be written is done without.
    """
    kept = programs_folder()
    if kept is None or os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    # A folder shared between machines must not hand one processor's program to another; nor one
    # for many cores to a process that has few: XLA splits the work as it compiles, by the cores
    # there are, and JAX's own key does not tell those programs apart.
    machine = f"{processor('flags')} {n_cores()} cores"
    path = kept / "compiled" / hashlib.sha256(machine.encode()).hexdigest()[:12]
    # JAX makes the folder with the first program it keeps: bad input leaves nothing behind.
    if not can_be_written(path):
        return
    prune(path, most_bytes=_MOST_BYTES_COMPILED)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_COMPILE_SECONDS)


def can_be_written(path: Path) -> bool:
    """Whether a file can be made there, with its folders."""
    # os.path: Path.exists raises where another user's home may not be looked into.
    nearest = next(parent for parent in path.absolute().parents if os.path.exists(parent))
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def floats(path: Path) -> dict[str, float]:
    """The numbers remembered in a file, none of them if it is missing or damaged."""
    try:
        return {key: float(value) for key, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def keep_float(path: Path, key: str, value: float) -> None:
    """Remembers a number, if the file can be written: a cache is only a cache."""
    keep(path, json.dumps({**floats(path), key: value}).encode())


def keep(path: Path, content: bytes) -> None:
    """Replaces a file as a whole, if it can be written."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_bytes(content)
        os.replace(temporary, path)


def prune(folder: Path, *, most_bytes: int) -> None:
    """Removes the oldest files of a folder until the others have no more than `most_bytes`."""
    with contextlib.suppress(OSError):
        found = [(path.stat(), path) for path in folder.iterdir() if path.is_file()]
        excess = sum(status.st_size for status, _ in found) - most_bytes
        for status, path in sorted(found, key=lambda each: each[0].st_mtime):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= status.st_size


@functools.cache
def source_digest() -> str:
    """A digest of gptjax's own source: what one version counted, another may count otherwise.

    "" if a file has been written since this process started, or just before: then it may not be
    what was imported, and nothing that is made of it can be told by it.
    """
    newest = max(path.stat().st_mtime for path in _source())
    return "" if newest > interrupt.STARTED - _CLOCKS_APART else written_digest()


def written_digest() -> str:
    """A digest of gptjax's own source as it is on the disk."""
    digest = hashlib.sha256()
    for path in _source():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _source() -> list[Path]:
    return sorted(Path(__file__).parent.parent.rglob("*.py"))


def n_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor(field: str = "model name") -> str:
    """What Linux tells of the first processor; "unknown processor" elsewhere."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    except OSError:
        pass
    return "unknown processor"
