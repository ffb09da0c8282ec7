"""A text, in a file or in memory, read in pieces: its size does not matter."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from gptjax.data.tokenizer import code_points
from gptjax.system.errors import UserError

# Bytes read at once: what is made of them, code points and indices, stays near the processor.
PIECE = 2**20

_N_POINTS = 0x110000

_WHITE_SPACE = b" \t\n\r\x0b\x0c"


class Reader(Protocol):
    """What gives the next bytes of a file, fewer than asked for only at its end."""

    def read(self, size: int, /) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class Text:
    """A text that was read once, and can be read again.

    Attributes:
      where: what messages call it: the file's path, or a name.
      sha256: of its bytes.
      n_characters: how many code points it has.
      symbols: which, in order.
      raw: its bytes, or None of one that stays in its file.
      stamp: size, time and number of that file as it was read.
    """

    where: str
    sha256: str
    n_characters: int
    symbols: str
    raw: bytes | None
    stamp: tuple[int, int, int] | None = None

    def pieces(self) -> Iterator[str]:
        """The text in parts of about a MiB, as `byte_pieces` cuts them.

        Raises:
          UserError: if the file cannot be read any more or is no longer what it was.
        """
        with _opened(self.where, self.raw) as file:
            if self.raw is None and _stamp(file) != self.stamp:
                raise UserError("data.source", self.where, "has changed while it was read")
            with read_errors(self.where):
                for start, piece in byte_pieces(file):
                    yield decoded(piece, start, self.where)


def in_file(path: str) -> Text:
    """The text of a file, read once; what cannot be read twice, a pipe, is held in memory.

    Raises:
      UserError: if it cannot be read, is empty or is not UTF-8.
    """
    with read_errors(path):
        is_file = stat.S_ISREG(os.stat(path).st_mode)
    return _surveyed(path, None if is_file else file_bytes(path))


def in_memory(where: str, raw: bytes) -> Text:
    """The text of these bytes; raises UserError as above."""
    return _surveyed(where, raw)


def file_bytes(path: str) -> bytes:
    """All that a file holds; raises UserError if it cannot be read."""
    with read_errors(path):
        return Path(path).read_bytes()


def _surveyed(where: str, raw: bytes | None) -> Text:
    digest, symbols, n_characters = hashlib.sha256(), Symbols(), 0
    with _opened(where, raw) as file, read_errors(where):
        stamp = _stamp(file) if raw is None else None
        for start, piece in byte_pieces(file):
            digest.update(piece)
            text = decoded(piece, start, where)
            symbols.add(text)
            n_characters += len(text)
    if not n_characters:
        raise UserError("data", where, "is empty (0 bytes)")
    return Text(where, digest.hexdigest(), n_characters, symbols.found, raw, stamp)


class Symbols:
    """The distinct characters of all texts that are added."""

    def __init__(self) -> None:
        self._is_there = np.zeros(_N_POINTS, bool)

    def add(self, text: str) -> None:
        """Takes note of a text's characters."""
        self._is_there[code_points(text)] = True

    @property
    def found(self) -> str:
        """All characters so far, in order."""
        return "".join(map(chr, np.flatnonzero(self._is_there).tolist()))


def byte_pieces(file: Reader, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Where each piece of a file begins, and its bytes; the file stands at `start`, where one does.

    Each but the first begins with white space that follows something else: what is made of words
    and of the white space before them is the same of the pieces as of the whole. Where there is
    none in PIECE bytes, a piece ends anywhere, but not within a character. How a file is cut
    depends on its bytes alone: from any piece on, the others are the same.
    """
    rest = file.read(-start % PIECE)
    chunk = file.read(PIECE)
    while chunk:
        following = file.read(PIECE)
        end = last_gap(chunk) if following else len(chunk)
        piece = rest + chunk[:end]
        if piece:
            yield start, piece
        start += len(piece)
        rest, chunk = chunk[end:], following
    if rest:
        yield start, rest


def last_gap(chunk: bytes) -> int:
    """Where the last white space behind something begins; else the end, or that of a character."""
    index = max(chunk.rfind(b" "), chunk.rfind(b"\n"))
    while index > 0 and chunk[index - 1] in _WHITE_SPACE:
        index -= 1
    if index > 0:
        return index
    for n_bytes in range(1, min(4, len(chunk) + 1)):
        byte = chunk[-n_bytes]
        if byte >= 0xC0:  # The first of a character of two, three or four bytes.
            is_whole = n_bytes >= 2 + (byte >= 0xE0) + (byte >= 0xF0)
            return len(chunk) if is_whole else len(chunk) - n_bytes
        if byte < 0x80:
            break
    return len(chunk)


def decoded(piece: bytes, start: int, where: str) -> str:
    """A piece's text, as it stands: a byte order mark or "\\r\\n" are characters like any other.

    Raises:
      UserError: naming the byte that is not UTF-8, counted from `start`.
    """
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError as error:
        words = f"is not UTF-8 at byte {start + error.start} (0x{piece[error.start]:02x})"
        raise UserError("data", where, words, "Convert it first.") from error


@contextlib.contextmanager
def _opened(where: str, raw: bytes | None) -> Iterator[BinaryIO]:
    """What reads the text's bytes."""
    if raw is not None:
        yield io.BytesIO(raw)
        return
    with read_errors(where):
        file = open(where, "rb", buffering=0)
    with file:
        yield file  # type: ignore[misc]  # It reads as any BinaryIO does.


@contextlib.contextmanager
def read_errors(path: str) -> Iterator[None]:
    """Turns an OSError inside into a UserError that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("data.source", path, f"cannot be read: {reason}") from error


def _stamp(file: BinaryIO) -> tuple[int, int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns, found.st_ino
