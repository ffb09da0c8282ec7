"""Files as they are, or unpacked as they are read: .gz and .zst."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gptjax.system.errors import UserError

# Bytes passed over together.
_CHUNK = 2**20


@contextlib.contextmanager
def opened(path: str, start: int = 0) -> Iterator[BinaryIO]:
    """Reads a file's bytes from `start` on, both of what is unpacked.

    Raises:
      UserError: if it cannot be read, is cut short or damaged, or without what unpacks it.
    """
    suffix = Path(path).suffix
    with _errors(path, suffix), contextlib.ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "rb"))
        if suffix == ".gz":
            file = stack.enter_context(gzip.open(file))
        elif suffix == ".zst":
            file = stack.enter_context(io.BufferedReader(_Frames(_zstandard(path), file), _CHUNK))
        _pass_over(file, start, is_plain=not is_packed(path))
        yield file


def is_packed(path: str) -> bool:
    """Whether a file has to be unpacked."""
    return Path(path).suffix in (".gz", ".zst")


def size(path: str) -> int:
    """Bytes of a file, unpacked; a packed one is read for it. Raises UserError as above."""
    if not is_packed(path):
        with _errors(path, ""):
            return Path(path).stat().st_size
    with opened(path) as file:
        n_bytes = 0
        while chunk := file.read(_CHUNK):
            n_bytes += len(chunk)
        return n_bytes


def _pass_over(file: BinaryIO, n_bytes: int, *, is_plain: bool) -> None:
    if is_plain:
        file.seek(n_bytes)
    while not is_plain and n_bytes > 0:
        n_bytes -= len(file.read(min(n_bytes, _CHUNK))) or n_bytes


def _zstandard(path: str) -> Any:
    try:
        return importlib.import_module("zstandard")
    except ImportError as error:
        fix = 'Install it: pip install -e ".[zst]"'
        raise UserError("--dataset", path, "needs the zstandard library", fix) from error


class _Frames(io.RawIOBase):
    """Reads what is packed by zstd, frame after frame.

    The library's own reader takes a file that is cut short for one that has ended.
    """

    def __init__(self, library: Any, file: BinaryIO):
        self._begin = library.ZstdDecompressor().decompressobj
        self._file, self._packed = file, b""
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer, or a part of it; raises EOFError if the file ends within a frame."""
        while not self._ready:
            frame = self._frame
            if frame is not None and frame.eof:
                self._packed, self._frame = frame.unused_data, None
            self._packed = self._packed or self._file.read(_CHUNK)
            if not self._packed:
                if self._frame is not None:
                    raise EOFError("it ends within a frame")
                return 0
            self._frame = frame = self._frame or self._begin()
            self._ready, self._packed = memoryview(frame.decompress(self._packed)), b""
        n_bytes = min(len(buffer), len(self._ready))
        buffer[:n_bytes], self._ready = self._ready[:n_bytes], self._ready[n_bytes:]
        return n_bytes


@contextlib.contextmanager
def _errors(path: str, suffix: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError("--dataset", path, f"is cut short or damaged: {error}") from error
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        raise UserError("--dataset", path, f"cannot be read: {reason}") from error
    except Exception as error:
        if suffix != ".zst" or type(error).__name__ != "ZstdError":
            raise
        raise UserError("--dataset", path, f"is cut short or damaged: {error}") from error
