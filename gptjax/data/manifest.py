"""The manifest of a folder of token shards: what each file holds, checked before it is believed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.data import tokenizer as tokenizers
from gptjax.data.tokenizer import Tokenizer
from gptjax.system.errors import UserError

MANIFEST = "manifest.json"
FORMAT = 1
SPLITS = ("train", "val")

# What ids may be held in, and where documents begin: the lowest byte first.
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
STARTS = np.dtype("<u8")

# What is to be done about a folder that is not whole.
FIX = "Prepare the folder anew: python scripts/prepare.py."

# A shard of 100 characters' description for each 64 MiB: a manifest of a petabyte.
_LARGEST_MANIFEST = 2**28  # bytes
_LONGEST_NAME = 100


@dataclasses.dataclass(frozen=True)
class Shard:
    """What the manifest says of a file of ids; beside it lies one of where its documents begin."""

    file: str
    n_tokens: int
    n_documents: int
    sha256: str
    starts_sha256: str

    @property
    def starts_file(self) -> str:
        """The file of the first token of each document that begins in the shard, as STARTS."""
        return starts_file(self.file)


def shard_file(split: str, number: int) -> str:
    """What a shard's file is called."""
    return f"{split}-{number:05d}.bin"


def starts_file(file: str) -> str:
    """What the file of a shard's documents is called."""
    return file.removesuffix(".bin") + ".starts"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that a manifest says.

    `shards` are those of each split, in order; `entropy_nats` as in TokenFiles.
    """

    name: str
    dtype: str
    tokenizer: Tokenizer
    shards: dict[str, list[Shard]]
    entropy_nats: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object from which `read` makes an equal one."""
        return {
            "format": FORMAT,
            "name": self.name,
            "dtype": self.dtype,
            "tokenizer": self.tokenizer.to_json(),
            "entropy_nats": self.entropy_nats,
            "shards": {
                split: [dataclasses.asdict(shard) for shard in shards]
                for split, shards in self.shards.items()
            },
        }

    def n_tokens(self, split: str) -> int:
        """How many tokens a split has."""
        return sum(shard.n_tokens for shard in self.shards[split])

    @property
    def n_documents(self) -> int:
        """How many documents begin in all shards."""
        return sum(shard.n_documents for split in SPLITS for shard in self.shards[split])

    @property
    def sha256(self) -> str:
        """By which the same tokens are known, wherever they lie and whatever they are called."""
        digest = hashlib.sha256(json.dumps(self.tokenizer.to_json(), sort_keys=True).encode())
        for split in SPLITS:
            for shard in self.shards[split]:
                digest.update(f"{split} {self.dtype} {shard.n_tokens} {shard.sha256} ".encode())
        return digest.hexdigest()


def read(folder: Path) -> Manifest:
    """The manifest of a folder, checked.

    Raises:
      UserError: if it is missing or breaks a rule.
    """
    path = folder / MANIFEST
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_MANIFEST:
            raise UserError("data.source", path, "is not a file of at most 256 MiB")
        stored = json.loads(path.read_bytes())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError("data.source", path, f"cannot be read: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise UserError("data.source", path, "is not JSON") from error
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        found = stored.get("format") if isinstance(stored, dict) else stored
        raise UserError(f"{path}: format", f"{found!r:.22}", f"must be {FORMAT}")
    _check_names(path, stored, Manifest("", "", tokenizers.IdTokenizer(1), {}).to_json())
    name, dtype, shards = stored["name"], stored["dtype"], stored["shards"]
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        rule = f"must be printable text of 1 to {_LONGEST_NAME} characters"
        raise UserError(f"{path}: name", f"{name!r:.22}", rule)
    if not isinstance(dtype, str) or dtype not in DTYPES:
        rule = f"must be {' or '.join(DTYPES)}"
        raise UserError(f"{path}: dtype", f"{dtype!r:.22}", rule)
    if not isinstance(stored["tokenizer"], dict):
        raise UserError(f"{path}: tokenizer", f"{stored['tokenizer']!r:.22}", "must be an object")
    tokenizer = tokenizers.from_json(stored["tokenizer"])
    most = 2 ** (8 * DTYPES[dtype].itemsize)
    if tokenizer.vocab_size > most:
        rule = f"{dtype} holds {most:,} ids at most, and the tokenizer has {tokenizer.vocab_size:,}"
        raise UserError(f"{path}: dtype", dtype, rule, FIX)
    if not isinstance(shards, dict) or sorted(shards) != sorted(SPLITS):
        raise UserError(f"{path}: shards", f"{shards!r:.22}", "must be those of train and val")
    found = {split: _shards(path, split, shards[split]) for split in SPLITS}
    entropy_nats = _entropy(path, stored["entropy_nats"], math.log(tokenizer.vocab_size))
    return Manifest(name, dtype, tokenizer, found, entropy_nats)


def _shards(path: Path, split: str, stored: Any) -> list[Shard]:
    if not isinstance(stored, list) or not stored:
        raise UserError(f"{path}: {split}", f"{stored!r:.22}", "must be a list of shards")
    shards = []
    for number, each in enumerate(stored):
        what = f"{path}: shard {number} of {split}"
        _check_names(what, each, {field.name: 0 for field in dataclasses.fields(Shard)})
        shard = Shard(**each)
        if shard.file != shard_file(split, number):  # Never a path that leads elsewhere.
            rule = f"must be {shard_file(split, number)}"
            raise UserError(f"{what}: file", f"{shard.file!r:.40}", rule)
        for name, least in (("n_tokens", 1), ("n_documents", 0)):
            count = each[name]
            if type(count) is not int or not least <= count < 2**63:
                raise UserError(f"{what}: {name}", f"{count!r:.22}", f"must be ≥ {least}")
        for name in ("sha256", "starts_sha256"):
            if not isinstance(each[name], str) or not re.fullmatch("[0-9a-f]{64}", each[name]):
                raise UserError(f"{what}: {name}", f"{each[name]!r:.22}", "must be 64 hex digits")
        shards.append(shard)
    return shards


def _entropy(path: Path, stored: Any, most: float) -> float | None:
    if stored is None:
        return None
    if type(stored) not in (int, float) or not 0 <= stored <= most:
        rule = f"must be null or from 0 to {most:.4f}, the logarithm of the vocabulary"
        raise UserError(f"{path}: entropy_nats", f"{stored!r:.22}", rule)
    return float(stored)


def _check_names(what: object, stored: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(stored, dict) or stored.keys() != wanted.keys():
        raise UserError("data.source", what, f"must have {', '.join(wanted)} alone")
