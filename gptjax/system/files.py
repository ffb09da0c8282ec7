"""Files replaced as a whole, and whether there is room for them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gptjax.system import signals
from gptjax.system.errors import RunError, UserError

# Values of an array written together.
_CHUNK = 2**20


def check_writable(folder: Path, *, flag: str = "--config.out_dir") -> None:
    """Raises UserError when the folder is a file or cannot be made and written to."""
    another = f"Choose another {flag}."
    nearest = folder
    try:
        while not nearest.exists() and nearest != nearest.parent:
            if nearest.is_symlink():
                raise UserError("out_dir", folder, f"{nearest} is a link to nothing", another)
            nearest = nearest.parent
        if not nearest.is_dir():
            raise UserError("out_dir", folder, f"{nearest} is a file", another)
        # Only trying tells: permissions do not bind root, and some file systems take no files.
        # On Linux a temporary file has no name, so that nothing is to be seen of it.
        with tempfile.TemporaryFile(dir=nearest), plain_path(folder.resolve()):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(
            "out_dir", folder, f"{nearest} cannot be written to: {reason}", another
        ) from error


def check_folder_of(flag: str, file: str | None) -> None:
    """Raises UserError when a file asked for by a flag is a folder, or its folder is missing."""
    if file and not Path(file).absolute().parent.is_dir():
        raise UserError(flag, file, "its folder does not exist")
    if file and Path(file).is_dir():
        raise UserError(flag, file, "is a folder", "Give the file's name as well.")


def check_picture(flag: str, file: str | None) -> None:
    """Raises UserError for a picture of an unknown kind, or that cannot be where asked for.

    matplotlib writes another file than was asked for, or none.
    """
    check_folder_of(flag, file)
    if file and Path(file).suffix.lower() not in (".png", ".pdf", ".svg"):
        raise UserError(flag, file, "must end in .png, .pdf or .svg")


@contextlib.contextmanager
def temporary_folder(parent: str | None = None) -> Iterator[Path]:
    """A new, empty folder that is gone afterwards, even if a signal ends the process."""
    with tempfile.TemporaryDirectory(prefix="gptjax-", dir=parent) as name:
        with signals.tidied(functools.partial(shutil.rmtree, name, ignore_errors=True)):
            yield Path(name)


@contextlib.contextmanager
def plain_path(folder: Path) -> Iterator[Path]:
    """A folder under a name that no library takes for a pattern or an address: its own, or a link.

    Orbax globs for files below its folder: in `out/[2026]` it finds none, and says so to nobody.
    """
    if _is_plain(str(folder)):
        yield folder
        return
    with temporary_folder(_parent_of_a_link(folder)) as links:
        link = links / "run"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _is_plain(path: str) -> bool:
    # TensorStore's paths are UTF-8 whatever the locale: it would write into a folder of its own.
    return bool(re.fullmatch(r"[\w/.+,=@ -]*", path)) and os.fsencode(path) == path.encode()


def _parent_of_a_link(folder: Path) -> str:
    """A folder with a plain name that can be written to."""
    for parent in (os.environ.get("TMPDIR") or "/tmp", "/tmp", "/var/tmp", "/dev/shm"):
        if os.path.isabs(parent) and _is_plain(parent) and os.access(parent, os.W_OK | os.X_OK):
            return parent
    raise UserError(
        "out_dir",
        folder,
        "such a path is reached by a link, and no folder for temporary files can be written to",
        "Choose a path of letters and digits, or set TMPDIR.",
    )


def free_space(folder: Path) -> int:
    """Bytes free where a folder is or is to be."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(nearest).free


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Replaces a file as a whole: a reader sees the old content or the new, never a part.

    Not for two writers at once: what a killed process left half-written is replaced.

    Raises:
      RunError: if it cannot be written, because the disk is full or broken.
    """
    with _replaced(path) as file:
        file.write(encoded(content) if isinstance(content, str) else content)


def write_array(path: Path, array: Any) -> None:
    """Replaces an .npy file as a whole: of an array of one axis, or of what is sliced as one."""
    head = {"descr": array.dtype.str, "fortran_order": False, "shape": (len(array),)}
    with _replaced(path) as file:
        np.lib.format.write_array_header_1_0(file, head)
        for start in range(0, len(array), _CHUNK):
            file.write(np.ascontiguousarray(array[start : start + _CHUNK]).data)


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the path's place once it is written."""
    temporary = path.with_name(f".{path.name}.tmp")
    with write_errors(path):
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # "x" follows no link that somebody put there.
            yield file
        os.replace(temporary, path)


@contextlib.contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError inside into a RunError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RunError(f"{path} could not be written: {reason}") from error


def encoded(text: str) -> bytes:
    """The text as UTF-8; what a path holds of other bytes, in Python lone surrogates, escaped."""
    return text.encode("utf-8", "backslashreplace")


def pretty_json(values: dict[str, Any]) -> str:
    """A JSON file's content, a line a value."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
