"""How much room there is: memory, CPUs, a folder's size, whether it can be written to."""

from __future__ import annotations

import os
import re
import time
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


def busy_cpus(root: Path, *, seconds: float) -> float:
    """How many CPUs were at work while this process slept so long, by /proc/stat below `root`.

    0.0 where that does not tell.
    """
    before = _cpu_ticks(root)
    time.sleep(seconds)
    after = _cpu_ticks(root)
    if before is None or after is None or sum(after) <= sum(before):
        return 0.0
    spent = [b - a for a, b in zip(before, after, strict=True)]
    idle, iowait = spent[3:5]
    n_cpus = sum(bool(re.match(r"cpu\d", line)) for line in _stat(root))
    return n_cpus * (1 - (idle + iowait) / sum(spent))


def _cpu_ticks(root: Path) -> list[int] | None:
    """Ticks of all CPUs since the start: user, nice, system, idle, iowait, irq, softirq, steal."""
    for line in _stat(root):
        if line.startswith("cpu "):
            # What follows, the guests', is counted in the first two.
            ticks = [int(word) for word in line.split()[1:9]]
            return ticks if len(ticks) == 8 else None
    return None


def _stat(root: Path) -> list[str]:
    try:
        return (root / "proc/stat").read_text().splitlines()
    except OSError:
        return []


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
