"""Which stretches of which files train, and which validate."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gptjax.data import compressed, texts
from gptjax.system.errors import UserError

# Where a text is cut in two, white space is looked for in so many bytes before.
_GAP = 2**16


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of a file: all of it, or what is before or behind where val begins.

    Attributes:
      path: the file, or what a dataset calls one of its splits.
      start, end: bytes of what is unpacked, or the numbers of examples.
      split: "train" or "val".
      begins, ends: whether a document of a text begins and ends with it.
    """

    path: str
    start: int
    end: int
    split: str
    begins: bool = True
    ends: bool = True


def found_files(kind: str, pattern: str) -> list[str]:
    """The files that a pattern names, in order; raises UserError if there are none."""
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not paths:
        raise UserError("--dataset", f"{kind}:{pattern}", "there is no such file")
    return paths


def stamps(paths: Sequence[str]) -> list[list[Any]]:
    """By which it is seen whether a file is still the same: path, size and time."""
    return [[path, Path(path).stat().st_size, Path(path).stat().st_mtime_ns] for path in paths]


def segments(
    kind: str, paths: Sequence[str], sizes: Sequence[int], val_fraction: float
) -> list[Segment]:
    """The stretches of files, of which the last hold a share of `val_fraction` of all bytes.

    Raises:
      UserError: if no document of val is left.
    """
    left = int(sum(sizes) * (1 - val_fraction))
    found = []
    for path, size in zip(paths, sizes, strict=True):
        n_train = min(left, size)
        left -= n_train
        cut = _cut(kind, path, n_train, size) if 0 < n_train < size else n_train
        is_cut = kind == "text" and 0 < cut < size
        if cut > 0:
            found.append(Segment(path, 0, cut, "train", ends=not is_cut))
        if cut < size:
            found.append(Segment(path, cut, size, "val", begins=not is_cut))
        if n_train < size:
            left = 0
    for split in ("train", "val"):
        if all(segment.split != split for segment in found):
            words = f"leaves no document for {split}"
            raise UserError("--val_fraction", val_fraction, words, "Give another, or more text.")
    return found


def _cut(kind: str, path: str, wanted: int, size: int) -> int:
    """Where a file is cut in two: of a text, at white space before; of lines, where one begins."""
    if kind == "text":
        first = max(0, wanted - _GAP)
        with compressed.opened(path, first) as file:
            return first + texts.last_gap(file.read(wanted - first))
    with compressed.opened(path, wanted - 1) as file:
        return min(size, wanted - 1 + len(file.readline()))


def sizes(paths: Sequence[str], tell: Callable[[str], None]) -> list[int]:
    """Bytes of each file, unpacked; `tell` hears of those that have to be read for it."""
    packed = [path for path in paths if compressed.is_packed(path)]
    if packed:
        tell(f"unpacking {len(packed):,} files to learn how much they hold")
    return [compressed.size(path) for path in paths]
