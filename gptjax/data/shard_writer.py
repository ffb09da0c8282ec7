"""Token shards, written so that a process killed at any moment loses nothing that was committed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gptjax.data.manifest import DTYPES, SPLITS, STARTS, Shard, shard_file, starts_file
from gptjax.system.errors import RunError
from gptjax.system.files import write_errors

_CHUNK = 2**22  # bytes read together


class _File:
    """A file that grows, and its sha256."""

    def __init__(self, path: Path, n_bytes: int):
        """Its first `n_bytes` bytes are kept; raises RunError if it has fewer."""
        self._path, self._digest = path, hashlib.sha256()
        with write_errors(path):
            self._file: BinaryIO = open(path, "r+b" if n_bytes else "wb")
            left = n_bytes
            while chunk := self._file.read(min(left, _CHUNK)) if left else b"":
                self._digest.update(chunk)
                left -= len(chunk)
            if left:
                self._file.close()
                raise RunError(f"{path} has lost bytes since it was written; delete its folder")
            self._file.truncate(n_bytes)

    def write(self, values: np.ndarray) -> None:
        """Appends an array's bytes."""
        with write_errors(self._path):
            self._file.write(values.data)
        self._digest.update(values.data)

    def commit(self) -> None:
        """Returns once all of it is on the disk."""
        with write_errors(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> str:
        """The sha256 of all of it."""
        self.commit()
        self._file.close()
        return self._digest.hexdigest()


class ShardWriter:
    """Ids, one behind another, in files of equal length but for a split's last.

    Where a shard ends depends on nothing but its length: how often the work was cut short, and how
    ids came in, changes no byte.
    """

    def __init__(
        self, folder: Path, *, dtype: str, shard_tokens: int, written: Mapping[str, Any] | None
    ):
        """Goes on from `written`, what `commit` returned last, or begins.

        Raises:
          RunError: if the files have less than was committed.
        """
        self._folder, self._dtype, self._most = folder, DTYPES[dtype], shard_tokens
        self.shards: dict[str, list[Shard]] = {split: [] for split in SPLITS}
        self._split = ""
        if written is not None:
            for split, shards in written["shards"].items():
                self.shards[split] = [Shard(**shard) for shard in shards]
            if written["open"]:
                self._open(**written["open"])

    @property
    def n_tokens(self) -> int:
        """How many tokens there are by now."""
        whole = sum(shard.n_tokens for split in SPLITS for shard in self.shards[split])
        return whole + (self._n_tokens if self._split else 0)

    def add(self, split: str, ids: np.ndarray, starts: np.ndarray) -> None:
        """Appends ids to a split; documents begin at `starts` in them. Val comes behind train."""
        if self._split not in ("", split):
            self._close()
        n_done = 0
        while n_done < len(ids):
            if not self._split:
                self._open(split, 0, 0)
            part = ids[n_done : n_done + self._most - self._n_tokens]
            own = starts[(starts >= n_done) & (starts < n_done + len(part))]
            self._starts.write((own - n_done + self._n_tokens).astype(STARTS))
            self._ids.write(np.ascontiguousarray(part, self._dtype))
            self._n_tokens += len(part)
            self._n_documents += len(own)
            n_done += len(part)
            if self._n_tokens == self._most:
                self._close()

    def commit(self) -> dict[str, Any]:
        """Makes sure of all that was added; a JSON object that `__init__` goes on from."""
        is_open = None
        if self._split:
            self._starts.commit()
            self._ids.commit()
            is_open = {
                "split": self._split,
                "n_tokens": self._n_tokens,
                "n_documents": self._n_documents,
            }
        shards = {
            split: [dataclasses.asdict(shard) for shard in shards]
            for split, shards in self.shards.items()
        }
        return {"shards": shards, "open": is_open}

    def close(self) -> None:
        """Ends the last shard; `shards` has all of them then."""
        if self._split:
            self._close()

    def _open(self, split: str, n_tokens: int, n_documents: int) -> None:
        file = shard_file(split, len(self.shards[split]))
        self._ids = _File(self._folder / file, n_tokens * self._dtype.itemsize)
        self._starts = _File(self._folder / starts_file(file), n_documents * STARTS.itemsize)
        self._split, self._n_tokens, self._n_documents = split, n_tokens, n_documents

    def _close(self) -> None:
        shards = self.shards[self._split]
        sums = {"sha256": self._ids.close(), "starts_sha256": self._starts.close()}
        file = shard_file(self._split, len(shards))
        shards.append(Shard(file, self._n_tokens, self._n_documents, **sums))
        self._split = ""
