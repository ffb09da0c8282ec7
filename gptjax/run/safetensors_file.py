"""Weights in safetensors files: one, or several named by an index, looked at before they are read.

The format is a list of names, dtypes, shapes and places, as JSON, and then the numbers: nothing in
it is run.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gptjax.system.errors import RunError, UserError

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"

# The index of a model of a thousand layers has 2 MB, a config.json 1 kB.
_LARGEST_JSON = 16 * 2**20

_POINTER = b"version https://git-lfs"
_ADVICE = "Write it with transformers: model.float().save_pretrained(FOLDER)."


class Stored(NamedTuple):
    """Where a tensor is, and of what kind: dtypes are the format's (F32, BF16)."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


def tensors(folder: Path, *, flag: str) -> dict[str, Stored]:
    """What a folder has of tensors, by name; their numbers are not read.

    Raises:
      UserError: naming `flag`, if a file is missing, cut short or none of safetensors.
    """
    if (folder / WHOLE).exists() or not (folder / INDEX).exists():
        return _tensors_of(folder / WHOLE, flag)
    path = folder / INDEX
    files = json_file(path, flag=flag)
    files = files.get("weight_map") if isinstance(files, dict) else None
    if not isinstance(files, dict) or not all(
        isinstance(file, str) and file == Path(file).name and file for file in files.values()
    ):
        raise UserError(flag, path, "has no weight_map of names to files beside it")
    found: dict[str, Stored] = {}
    for file in sorted(set(files.values())):
        inside = _tensors_of(folder / file, flag)
        if missing := sorted(name for name in files if files[name] == file and name not in inside):
            raise UserError(flag, folder / file, f"has no {missing[0]}, as {INDEX} says")
        if twice := sorted(found.keys() & inside.keys()):
            raise UserError(flag, folder / file, f"has {twice[0]}, which another file has as well")
        found |= inside
    return found


def _tensors_of(path: Path, flag: str) -> dict[str, Stored]:
    check_file(path, flag=flag)
    check_library(path, flag=flag)
    from safetensors import SafetensorError, safe_open  # Only who has such weights waits for it.

    try:
        with open(path, "rb") as file:
            if file.read(len(_POINTER)) == _POINTER:
                rule = "is Git LFS's note of where the weights are, not the weights"
                raise UserError(flag, path, rule, "Fetch them: git lfs pull.")
        with safe_open(path, framework="numpy") as opened:
            found = {}
            for name in opened.keys():  # noqa: SIM118 (it cannot be iterated)
                part = opened.get_slice(name)
                found[name] = Stored(path, str(part.get_dtype()), tuple(part.get_shape()))
            return found
    except SafetensorError as error:
        rule = f"is no whole safetensors file: {_one_line(error)}"
        raise UserError(flag, path, rule, _ADVICE) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(flag, path, f"cannot be read: {reason}") from error


def array(name: str, stored: Stored) -> np.ndarray:
    """A tensor's numbers, of a dtype that numpy has.

    Raises:
      RunError: if they cannot be read any more.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(stored.path, framework="numpy") as opened:
            return opened.get_tensor(name)
    except (OSError, SafetensorError) as error:
        words = f"{name} of {stored.path} can no longer be read: {_one_line(error)}"
        raise RunError(words) from error


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a new file, in a form that transformers takes.

    Raises:
      RunError: if it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    contiguous = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    try:
        # transformers loads no file that does not say for whom it was laid out: "pt" is torch.
        save_file(contiguous, path, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} could not be written: {_one_line(error)}") from error


def check_library(path: Path, *, flag: str) -> None:
    """Raises UserError, naming `flag`, where safetensors is not installed."""
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(flag, path, "needs safetensors", "Install it: pip install safetensors")


def json_file(path: Path, *, flag: str) -> Any:
    """What a JSON file of reasonable size holds.

    Raises:
      UserError: naming `flag`, if there is none or it is something else.
    """
    check_file(path, flag=flag)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise UserError(flag, path, f"is larger than {_LARGEST_JSON // 2**20} MiB")
        return json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(flag, path, f"cannot be read: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(flag, path, "is not JSON") from error


def check_file(path: Path, *, flag: str) -> None:
    """Raises UserError unless there is such a file; a pipe would be waited for."""
    try:
        if path.is_file():
            return
        if path.exists():
            raise UserError(flag, path, "is not a file")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(flag, path, f"cannot be read: {reason}") from error
    is_old = path.name == WHOLE and (path.parent / "pytorch_model.bin").exists()
    other = ", only a pytorch_model.bin, a pickle, which is not read" if is_old else ""
    raise UserError(flag, path, f"no such file{other}", _ADVICE if is_old else "")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
