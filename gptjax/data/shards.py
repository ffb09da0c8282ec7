"""A folder of token shards: ids in many files, as its manifest says, mapped and checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gptjax.data import manifest as manifests
from gptjax.data.manifest import DTYPES, FIX, MANIFEST, SPLITS, STARTS, Manifest, Shard
from gptjax.data.mapped import MappedIds, free_pages
from gptjax.data.token_files import TokenFiles
from gptjax.system.errors import UserError

# Folders of at most so many bytes are read whole at every start: a second or two. Of larger ones
# the sizes are looked at, and each id as it is used.
_MOST_READ = 2**30

_CHUNK = 2**22  # bytes read together


def is_there(folder: str) -> bool:
    """Whether a folder is one of shards."""
    return os.path.lexists(Path(folder) / MANIFEST)


def read(folder: str) -> TokenFiles:
    """The shards of a folder, mapped; those of a small one are read once and compared.

    Raises:
      UserError: if a file is missing or is not what the manifest says.
    """
    manifest, path = manifests.read(Path(folder)), Path(folder)
    n_bytes = DTYPES[manifest.dtype].itemsize * sum(map(manifest.n_tokens, SPLITS))
    train, val = (
        MappedIds([_mapped(path, manifest, shard) for shard in manifest.shards[split]])
        for split in SPLITS
    )
    if n_bytes <= _MOST_READ:
        for _ in check(path, manifest):
            pass
    return TokenFiles(
        f"tokens:{manifest.name}",
        train,
        val,
        manifest.tokenizer.vocab_size,
        manifest.sha256,
        manifest.entropy_nats,
        manifest.tokenizer.vocab_size - 1,
        tokenizer=manifest.tokenizer,
    )


def check(folder: Path, manifest: Manifest) -> Iterator[Shard]:
    """Compares every shard with what the manifest says of it; each of them, once it is compared.

    Raises:
      UserError: naming the first file that differs.
    """
    for shard in (shard for split in SPLITS for shard in manifest.shards[split]):
        ids, digest, highest = _mapped(folder, manifest, shard), hashlib.sha256(), 0
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            digest.update(chunk.data)
            highest = max(highest, int(chunk.max()))
            free_pages(ids)
        where = folder / shard.file
        if digest.hexdigest() != shard.sha256:
            raise UserError("data.source", where, f"its sha256 is not the one in {MANIFEST}", FIX)
        if highest >= manifest.tokenizer.vocab_size:
            raise UserError(
                "data.source",
                where,
                f"has the id {highest}, and the tokenizer {manifest.tokenizer.vocab_size} ids",
                FIX,
            )
        _check_starts(folder, shard)
        yield shard


def _check_starts(folder: Path, shard: Shard) -> None:
    where = folder / shard.starts_file
    try:
        raw = where.read_bytes()
    except OSError as error:
        raise UserError("data.source", where, f"cannot be read: {error.strerror}", FIX) from error
    if hashlib.sha256(raw).hexdigest() != shard.starts_sha256:
        raise UserError("data.source", where, f"its sha256 is not the one in {MANIFEST}", FIX)
    starts = np.frombuffer(raw, STARTS) if len(raw) % STARTS.itemsize == 0 else np.empty(0, STARTS)
    is_in_order = bool((starts[1:] > starts[:-1]).all())
    if len(starts) != shard.n_documents or not is_in_order or (starts >= shard.n_tokens).any():
        words = f"must be where {shard.n_documents:,} documents begin, in order"
        raise UserError("data.source", where, words, FIX)


def _mapped(folder: Path, manifest: Manifest, shard: Shard) -> np.ndarray:
    where, dtype = folder / shard.file, DTYPES[manifest.dtype]
    wanted = shard.n_tokens * dtype.itemsize
    try:
        if where.exists() and not where.is_file():
            raise UserError("data.source", where, "is not a file")
        n_bytes = where.stat().st_size
        if n_bytes != wanted:
            words = f"has {n_bytes:,} bytes; {MANIFEST} says {shard.n_tokens:,} tokens, {wanted:,}"
            raise UserError("data.source", where, words, FIX)
        return np.memmap(where, dtype, mode="r")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("data.source", where, f"cannot be read: {reason}", FIX) from error
