"""nanoGPT's ckpt.pt, read and written: the one module that imports torch, and only when it must.

What torch.save writes is a ZIP archive of tensors and of a pickle that puts them together. A pickle
is a program: torch.load with weights_only=True runs none but what builds tensors and plain data.
"""

from __future__ import annotations

import importlib
import io
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.system.errors import UserError
from gptjax.system.files import write_atomically

_EXTRA = 'Install it: pip install -e ".[torch]"'

# Before it, torch.load could be made to run code even so (CVE-2025-32434).
_FIRST_SAFE = (2, 6)

_PLAIN = (str, int, float, bool, type(None))


def read(path: Path, *, flag: str) -> Any:
    """What torch.save has written to a file: plain data, with numpy arrays for the tensors.

    Raises:
      UserError: naming `flag`, if it cannot be read, is torn or holds more, or without torch.
    """
    _check_archive(path, flag)
    torch = _torch(flag, path)
    try:
        loaded = torch.load(path, weights_only=True, map_location="cpu")
        return _with_arrays(loaded, torch.Tensor, {})
    except Exception as error:  # torch raises anything from KeyError to RuntimeError.
        words = f"is not tensors and plain data alone: {_reason(error)}"
        raise UserError(flag, path, words) from error


def _reason(error: Exception) -> str:
    """What torch has against a file, without its advice to load it all the same."""
    words = " ".join(str(error).split())
    if named := re.search(r"GLOBAL (\S+)", words):
        return f"it names {named[1]}"
    return words[:120] if words and "weights_only" not in words else type(error).__name__


def write(path: Path, content: Any, *, flag: str) -> None:
    """Replaces a file as a whole by `content`, plain data with numpy arrays, as torch.save has it.

    Raises:
      UserError: naming `flag`, without torch.
      RunError: if it cannot be written.
    """
    torch = _torch(flag, path)
    file = io.BytesIO()
    torch.save(_with_tensors(content, torch, {}), file)
    write_atomically(path, file.getbuffer())


def check_torch(path: Path, *, flag: str) -> None:
    """Raises UserError, naming `flag`, where torch is not installed or too old."""
    _torch(flag, path)


def _torch(flag: str, path: Path) -> Any:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise UserError(flag, path, "needs torch (PyTorch)", _EXTRA) from error
    if tuple(map(int, re.findall(r"\d+", torch.__version__)[:2])) < _FIRST_SAFE:
        first = ".".join(map(str, _FIRST_SAFE))
        words = f"needs torch {first} or newer, to be safe from what is in it; found"
        raise UserError(flag, path, f"{words} {torch.__version__}", _EXTRA)
    return torch


def _check_archive(path: Path, flag: str) -> None:
    """Raises UserError unless the file is a whole archive that takes no more memory than disk."""
    kind = "is no ckpt.pt that torch.save wrote"
    try:
        if not path.is_file():  # A pipe would be waited for.
            raise UserError(flag, path, "is not a file" if path.exists() else "no such file")
        if not zipfile.is_zipfile(path):
            raise UserError(flag, path, f"{kind}, or is cut short")
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            is_packed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
            if is_packed or sum(part.file_size for part in parts) > path.stat().st_size:
                raise UserError(flag, path, f"{kind}: its parts are packed")
            damaged = archive.testzip()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(flag, path, f"cannot be read: {reason}") from error
    except UserError:
        raise
    except Exception as error:  # zipfile's own, and struct's and others' for what is broken.
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(flag, path, f"is damaged: {reason}") from error
    if damaged is not None:
        raise UserError(flag, path, f"is damaged: the checksum of {damaged} differs")


def _with_arrays(value: Any, tensor: type, made: dict[int, Any]) -> Any:
    """Plain data with arrays for tensors; what is shared is converted once, `made` remembers it."""
    if type(value) in _PLAIN:
        return value
    if id(value) in made:
        if made[id(value)] is None:
            raise ValueError("it contains itself")
        return made[id(value)]
    made[id(value)] = None
    if isinstance(value, tensor):
        made[id(value)] = value.detach().numpy()  # type: ignore[attr-defined]
    elif isinstance(value, dict):
        if not all(type(key) in _PLAIN for key in value):
            raise ValueError("a key is no plain data")
        made[id(value)] = {key: _with_arrays(each, tensor, made) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        made[id(value)] = [_with_arrays(each, tensor, made) for each in value]
    else:
        raise ValueError(f"it holds a {type(value).__name__}")
    return made[id(value)]


def _with_tensors(value: Any, torch: Any, made: dict[int, Any]) -> Any:
    """The same with tensors for arrays; an array that stands there twice is one tensor."""
    if isinstance(value, np.ndarray):
        if id(value) not in made:
            made[id(value)] = torch.from_numpy(value)
        return made[id(value)]
    if isinstance(value, dict):
        return {key: _with_tensors(each, torch, made) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_with_tensors(each, torch, made) for each in value)
    return value
