"""A corpus of token ids in files, nanoGPT's train.bin and val.bin, checked before use."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.data.mapped import AnyIds, free_pages
from gptjax.data.tokenizer import Tokenizer
from gptjax.system.errors import UserError

TRAIN, VAL, META = "train.bin", "val.bin", "meta.json"

# What nanoGPT writes beside the ids of characters: a pickle, which could run code.
PICKLED_META = "meta.pkl"

# GPT-2's, of which nanoGPT's folders are: 50,000 merges, 256 bytes and the end of a text.
GPT2_VOCABULARY = 50_257

# Of so many tokens at most every one is read at each start. Of more, parts are.
_MOST_READ = 2**31 - 1

# How much of larger files the digest is of: so many parts of so many bytes, evenly spread.
_N_PARTS, _PART = 1024, 2**16

# What the files hold: unsigned, two bytes, the lower first.
DTYPE = np.dtype("<u2")

# Ids looked at together: 8 MiB.
_CHUNK = 2**22

_LARGEST_META = 2**16  # bytes

# Two bytes hold no more.
MOST_IDS = 2**16

# Ids by which a file's width is told.
_FEWEST_TO_TELL = 16
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class TokenFiles:
    """Token ids on the disk, mapped into memory, under the name that their folder gives them.

    `entropy_nats` is the exact entropy per token where the ids' source is known, else None;
    `highest_id` the largest of all ids that were looked at; `tokenizer` theirs, where known.
    """

    name: str
    train: AnyIds
    val: AnyIds
    vocab_size: int
    sha256: str
    entropy_nats: float | None
    highest_id: int = 0
    fallback_reason: str = ""  # Nothing ever stands in for token files.
    tokenizer: Tokenizer | None = None

    @property
    def size(self) -> str:
        """How much there is, in words."""
        return f"{len(self.train) + len(self.val):,} tokens"

    def check_known(self, tokenizer: Tokenizer) -> None:
        """Raises UserError unless the tokenizer, which may be a checkpoint's, has every id."""
        if self.tokenizer is not None and self.tokenizer != tokenizer:
            raise UserError(
                f"corpus {self.name}",
                f"its tokenizer, of {self.vocab_size:,} symbols",
                f"is not the checkpoint's, of {tokenizer.vocab_size:,}",
                "Fork from a run on tokens of the same tokenizer.",
            )
        if self.tokenizer is not None:
            return
        if tokenizer.unit != "token" or tokenizer.vocab_size < self.vocab_size:
            raise UserError(
                f"corpus {self.name}",
                f"ids of {self.vocab_size} symbols",
                f"the checkpoint knows {tokenizer.vocab_size} {tokenizer.unit}s",
                "Fork from a run on the same kind of tokens.",
            )


def read(folder: str) -> TokenFiles:
    """The token files of a folder; reads them once, to see that every id is in the vocabulary.

    Of those that no memory holds it reads parts; what a run reads of them is looked at as it goes.

    Raises:
      UserError: if a file is missing or is not what it should be.
    """
    vocab_size, name, entropy_nats = _meta(Path(folder))
    train, val = (_mapped(Path(folder) / file) for file in (TRAIN, VAL))
    is_whole = len(train) + len(val) <= _MOST_READ
    digest, highest_id = hashlib.sha256(), 0
    for file, ids in ((TRAIN, train), (VAL, val)):
        digest.update(f"{file} {ids.nbytes} ".encode())
        for chunk in _chunks(ids) if is_whole else _parts(ids):
            digest.update(chunk.data)
            highest_id = max(highest_id, highest := int(chunk.max()))
            if highest >= vocab_size:
                raise UserError(
                    "data.source",
                    Path(folder) / file,
                    f"has the id {highest}, and the vocabulary {vocab_size} ids",
                    f"Give the right vocab_size in {META}.",
                )
    sha256 = digest.hexdigest()
    return TokenFiles(f"tokens:{name}", train, val, vocab_size, sha256, entropy_nats, highest_id)


def _chunks(ids: np.ndarray) -> Iterator[np.ndarray]:
    """All ids, some at a time."""
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
        free_pages(ids)


def _parts(ids: np.ndarray) -> Iterator[np.ndarray]:
    """The first ids, the last, and some between."""
    n_ids = _PART // DTYPE.itemsize
    for start in np.linspace(0, max(0, len(ids) - n_ids), _N_PARTS, dtype=np.int64).tolist():
        yield ids[start : start + n_ids]
    free_pages(ids)


def meta_json(*, vocab_size: int, name: str, entropy_nats: float | None) -> dict[str, Any]:
    """What meta.json says of the files beside it."""
    return {"vocab_size": vocab_size, "name": name, "entropy_nats": entropy_nats}


def _mapped(path: Path) -> np.ndarray:
    try:
        # A pipe would be waited for, a folder cannot be mapped.
        if path.exists() and not path.is_file():
            raise UserError("data.source", path, "is not a file")
        n_bytes = path.stat().st_size
        if not n_bytes or n_bytes % DTYPE.itemsize:
            wanted = "must hold ids of two bytes each (uint16)"
            raise UserError("data.source", path, f"has {n_bytes} bytes; {wanted}")
        ids = np.memmap(path, DTYPE, mode="r")
        _check_width(path, ids)
        return ids
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("data.source", path, f"cannot be read: {reason}") from error


def _check_width(path: Path, ids: np.ndarray) -> None:
    """Raises UserError for ids that are wider than two bytes: then all upper halves are 0.

    Real text has id 0 every second time nowhere; of a few ids it could be chance.
    """
    head = ids[:_CHUNK]
    for n_halves, dtype in ((4, "int64"), (2, "uint32 or int32")):
        whole = head[: len(head) // n_halves * n_halves].reshape(-1, n_halves)
        if len(whole) >= _FEWEST_TO_TELL and whole[:, 0].any() and not whole[:, 1:].any():
            name = dtype.split()[0]
            raise UserError(
                "data.source",
                path,
                f"has ids of {2 * n_halves} bytes each, {dtype}; must be of two (uint16)",
                f"Convert it: numpy.fromfile(path, '{name}').astype('uint16').tofile(path).",
            )


def _meta(folder: Path) -> tuple[int, str, float | None]:
    """Size of the vocabulary, name and entropy: meta.json's, or GPT-2's where there is none."""
    path = folder / META
    try:
        if not path.exists() and (folder / PICKLED_META).exists():
            raise UserError(
                "data.source",
                folder,
                f"has a {PICKLED_META}, which is not read, and no {META}",
                f"Make one: python scripts/prepare.py --from_nanogpt {folder}",
            )
        if not path.exists():
            return GPT2_VOCABULARY, folder.absolute().name, None
        if not path.is_file() or path.stat().st_size > _LARGEST_META:
            raise UserError("data.source", path, "is not a file of at most 64 KiB")
        raw = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("data.source", path, f"cannot be read: {reason}") from error
    try:
        meta = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UserError("data.source", path, "is not JSON") from error
    if (
        not isinstance(meta, dict)
        or meta.keys() != meta_json(vocab_size=0, name="", entropy_nats=None).keys()
    ):
        raise UserError("data.source", path, "must have vocab_size, name and entropy_nats alone")
    vocab_size, name, entropy_nats = meta["vocab_size"], meta["name"], meta["entropy_nats"]
    if type(vocab_size) is not int or not 1 <= vocab_size <= MOST_IDS:
        raise UserError(f"{path}: vocab_size", f"{vocab_size!r:.22}", f"must be 1 to {MOST_IDS}")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        rule = f"must be printable text of 1 to {_LONGEST_NAME} characters"
        raise UserError(f"{path}: name", f"{name!r:.22}", rule)
    most = math.log(vocab_size)
    is_number = type(entropy_nats) in (int, float)
    if entropy_nats is not None and not (is_number and 0 <= entropy_nats <= most):
        rule = f"must be null or from 0 to {most:.4f}, the logarithm of vocab_size"
        raise UserError(f"{path}: entropy_nats", f"{entropy_nats!r:.22}", rule)
    return vocab_size, name, None if entropy_nats is None else float(entropy_nats)
