"""How much room there is: memory, a folder's size, whether it can be written to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from gptjax.system import files
from gptjax.system.errors import UserError


def free_memory(root: Path) -> int | None:
    """Bytes that a new process could have, as /proc/meminfo below `root` says; None elsewhere."""
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * int(match[1]) if match else None


def folder_bytes(folder: Path) -> int:
    """The size of all files in a folder; 0 if there is none. What goes meanwhile is left out."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total


def is_writable(folder: Path) -> bool:
    """Whether a folder can be made, if it is not there, and written to; nothing is made."""
    try:
        files.check_writable(folder)
    except UserError:
        return False
    return True
