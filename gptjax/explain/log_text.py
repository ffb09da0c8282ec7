"""The text of a log, whatever it went through: a terminal, a notebook, PowerShell, a chat."""

from __future__ import annotations

import codecs
import json
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gptjax.system.errors import UserError

# What is read at once. A log may be larger than the memory, and be one line.
_CHUNK_BYTES = 1 << 22

# JSON must be in memory as a whole; a notebook that is larger is read as text.
_LARGEST_NOTEBOOK = 1 << 27

# Colours, cursor movements (CSI) and titles (OSC) of a terminal.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]{0,256}(?:\x07|\x1b\\)?|[@-Z\\^_])"
)

# Quotes that an editor made smart, spaces that do not break, the minus sign; without a width: gone.
# U+FFFD stands where bytes were no UTF-8: in Latin-1 mostly a space that does not break.
_PLAIN = {
    **dict.fromkeys("\u2018\u2019\u201a\u2032", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u2033", '"'),
    **dict.fromkeys("\u00a0\u2007\u2009\u202f\u3000\ufffd", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\x00\x08", ""),
    **dict.fromkeys("\u2028\u2029\u0085", "\n"),
    "\u2212": "-",
}
_NOT_PLAIN = re.compile(f"[{''.join(_PLAIN)}]")


def pieces(path: Path) -> Iterator[str]:
    """The text of a file, or of stdin for `-`, in pieces of a few MB that are cut anywhere.

    Escape codes are gone, quotes and spaces are plain ASCII, "\\r" is a line's end. Of a notebook
    it is what its cells printed.

    Raises:
      UserError: if it is no regular file or cannot be read.
    """
    if str(path) == "-":
        yield from _texts(sys.stdin.buffer, is_notebook=False)
        return
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # A pipe may never end, a device never does.
            raise UserError("log", path, "is no regular file", "Give a file, or - for stdin.")
        with open(path, "rb") as file:
            yield from _texts(file, is_notebook=path.suffix == ".ipynb")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("log", path, f"cannot be read: {reason}") from error


def _texts(file: BinaryIO, *, is_notebook: bool) -> Iterator[str]:
    first = file.read(_CHUNK_BYTES)
    starts_as_notebook = first.lstrip()[:1] == b"{" and b'"cells"' in first
    if is_notebook or starts_as_notebook:
        first += file.read(_LARGEST_NOTEBOOK)
        printed = _printed(first)
        if printed is not None:
            yield _plain(printed)
            return
    decoder = codecs.getincrementaldecoder(_encoding(first))(errors="replace")
    kept = ""
    while first:
        text = kept + decoder.decode(first)
        # An escape code may go on in the next piece.
        start = text.rfind("\x1b", -256)
        text, kept = (text, "") if start < 0 else (text[:start], text[start:])
        yield _plain(text)
        first = file.read(_CHUNK_BYTES)
    yield _plain(kept + decoder.decode(b"", final=True))


def _encoding(first: bytes) -> str:
    """UTF-16 by its byte order mark, or by the zeros in ASCII; else UTF-8."""
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = first[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    if max(even, odd) > 0.8 * len(head) / 2 and min(even, odd) < 0.2 * len(head) / 2:
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"


def _plain(text: str) -> str:
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    # A string as Python or JSON prints it has its newlines as two characters.
    text = text.replace("\r", "\n").replace("\\n", "\n")
    if text.isascii() and "\x00" not in text and "\x08" not in text:
        return text
    return _NOT_PLAIN.sub(lambda match: _PLAIN[match[0]], text)


def _printed(raw: bytes) -> str | None:
    """What the cells of a notebook printed; None if it is no notebook."""
    try:
        cells = json.loads(raw)["cells"]
        return "\n".join(_output(output) for cell in cells for output in cell.get("outputs", []))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _output(output: dict[str, Any]) -> str:
    text = output["text"] if "text" in output else output.get("data", {}).get("text/plain", "")
    return "".join(text)
