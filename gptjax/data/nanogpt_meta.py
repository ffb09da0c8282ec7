"""nanoGPT's meta.pkl, what its folders of characters say of their ids; read without running it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from gptjax.data.token_files import MOST_IDS
from gptjax.system.errors import UserError

# Two dictionaries of at most 65,536 characters take less than 2 MB.
_LARGEST = 2**22  # bytes


class _Plain(pickle.Unpickler):
    """Builds numbers, strings, lists and dictionaries; whatever names a function is refused.

    A pickle is a program: by itself it may import any module and call any function in it.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Refuses."""
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Refuses."""
        raise pickle.UnpicklingError("it refers to something outside")


def vocabulary_size(path: Path) -> int:
    """The number of symbols that a meta.pkl tells of.

    Raises:
      UserError: if it cannot be read, holds anything but plain data, or tells of no vocabulary.
    """
    return _size(_meta(path, "--from_nanogpt"), path, "--from_nanogpt")


def symbols(path: Path, *, flag: str) -> str:
    """The characters that a meta.pkl tells of, in the order of their ids.

    Raises:
      UserError: as above, naming `flag`, or if the ids are not those of single characters.
    """
    meta = _meta(path, flag)
    size, found = _size(meta, path, flag), meta.get("itos")
    characters = [found.get(i) for i in range(size)] if isinstance(found, dict) else []
    single = [each for each in characters if isinstance(each, str) and len(each) == 1]
    if len(single) != size:
        raise UserError(flag, path, f"has no itos of {size} characters")
    return "".join(single)


def _meta(path: Path, flag: str) -> Any:
    try:
        if path.stat().st_size > _LARGEST:
            raise UserError(flag, path, f"is larger than {_LARGEST:,} bytes")
        raw = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(flag, path, f"cannot be read: {reason}") from error
    try:
        return _Plain(io.BytesIO(raw)).load()
    except Exception as error:  # A broken pickle raises anything from EOFError to MemoryError.
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(flag, path, f"is not plain data: {reason}") from error


def _size(meta: Any, path: Path, flag: str) -> int:
    size = meta.get("vocab_size") if isinstance(meta, dict) else None
    if type(size) is not int or not 1 <= size <= MOST_IDS:
        raise UserError(flag, path, f"has no vocab_size from 1 to {MOST_IDS}")
    return size
