"""Token ids in files, mapped into memory one behind another and read as one array."""

from __future__ import annotations

import bisect
import itertools
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np

# A page that was read counts as ours until it is given back. A window touches two of them, and the
# kernel maps up to sixteen around each.
_WINDOWS_UNTIL_FREED = 1024


class MappedIds:
    """The ids of several arrays of one dtype, as one; slices and windows of it are copies.

    Attributes:
      parts: the arrays.
      dtype: theirs.
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts, self.dtype = list(parts), parts[0].dtype
        self._starts = list(itertools.accumulate(map(len, parts), initial=0))
        self._n_read = 0

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def nbytes(self) -> int:
        """What all of them take."""
        return len(self) * self.dtype.itemsize

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.concatenate(self.parts).astype(dtype or self.dtype, copy=False)

    def __getitem__(self, wanted: slice) -> np.ndarray:
        start, stop, step = wanted.indices(len(self))
        assert step == 1, "only what is contiguous"
        ids = np.empty(max(0, stop - start), self.dtype)
        self._read(ids, start)
        return ids

    def windows(self, offsets_W: np.ndarray, length: int) -> np.ndarray:
        """The `length` ids from each offset on, a row an offset."""
        windows = np.empty((len(offsets_W), length), self.dtype)
        for row, offset in zip(windows, offsets_W.tolist(), strict=True):
            self._read(row, offset)
        self._n_read += len(windows)
        if self._n_read >= _WINDOWS_UNTIL_FREED:
            self.free()
        return windows

    def free(self) -> None:
        """Gives back the memory of all that was read; the files stay mapped."""
        self._n_read = 0
        for part in self.parts:
            free_pages(part)

    def _read(self, ids: np.ndarray, start: int) -> None:
        """Fills an array with the ids from `start` on."""
        index, n_done = bisect.bisect_right(self._starts, start) - 1, 0
        while n_done < len(ids):
            first = start + n_done - self._starts[index]
            found = self.parts[index][first : first + len(ids) - n_done]
            ids[n_done : n_done + len(found)] = found
            n_done, index = n_done + len(found), index + 1


def free_pages(ids: np.ndarray) -> None:
    """Gives back the memory of what was read of a mapped file; of other arrays nothing."""
    base: Any = ids
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


AnyIds = np.ndarray | MappedIds
