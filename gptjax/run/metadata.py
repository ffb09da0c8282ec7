"""A checkpoint's metadata, JSON: with a checksum when written, believed only once validated.

A checkpoint may come from anywhere. What it says is compared with a schema before any of it is
used, so that a hostile or broken one is an error and not a surprise.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import jax

import gptjax
from gptjax.config import config as config_module
from gptjax.config.config import GPTConfig
from gptjax.data import tokenizer
from gptjax.data.tokenizer import Tokenizer

FORMAT = 1

# The JSON of a model of a thousand layers and 65,536 symbols has 2 MB.
LARGEST_BYTES = 16 * 2**20


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_step(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31  # the state counts in int32


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _is_val(value: Any) -> bool:
    return value is None or type(value) is float  # NaN and infinities, too, have been measured


def _is_bin(value: Any) -> bool:
    # e to the power of a fiftieth of it is a time: it must be a number.
    digits = value.removeprefix("-") if isinstance(value, str) else ""
    return digits.isdecimal() and len(digits) < 5


# A type, a predicate, a list of one pattern for every item, or a dict: of patterns by name, or of
# one pattern for every key and one for every value.
_SCHEMA: dict[Any, Any] = {
    "format": _is_count,
    "gptjax": str,
    "jax": str,
    "step": _is_step,
    "val_nats": _is_val,
    "config": {str: object},
    "overrides": [str],
    "tokenizer": {str: object},
    "corpus": {
        "name": str,
        "sha256": str,
        "requested": str,
        "fallback_reason": str,
        "floor_nats": lambda value: value is None or _is_number(value),
    },
    "val_sha256": str,
    "best": {
        "step": lambda value: value == -1 or _is_step(value),
        "val_nats": lambda value: value is None or _is_number(value),  # never NaN or infinite
    },
    "parent": lambda value: (
        value is None
        or not _mismatch(value, {"init_from": str, "step": _is_step, "corpus": str}, "")
    ),
    "machine": {"platform": str, "device": str, "n_devices": _is_count, "host_cores": _is_count},
    "ledger": {
        "wall_seconds": _is_number,
        "seconds": {str: _is_number},
        "step_ms_median": _is_number,
        "step_ms_p95": _is_number,
        "step_ms_bins": {_is_bin: _is_count},
    },
    "leaves": {
        str: lambda leaf: (
            isinstance(leaf, list)
            and len(leaf) == 3
            and not _mismatch(leaf[0], [_is_count], "")
            and isinstance(leaf[1], str)
            and _is_count(leaf[2])
        )
    },
}


def described(
    metadata: Mapping[str, Any], *, step: int, val_nats: float | None, leaves: Mapping[str, Any]
) -> dict[str, Any]:
    """The metadata of a checkpoint, with what wrote it and a checksum."""
    written = {"format": FORMAT, "gptjax": gptjax.__version__, "jax": jax.__version__}
    about = {"step": step, "val_nats": val_nats, "leaves": leaves}
    return with_checksum({**metadata, **written, **about})


def with_checksum(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with a crc32 of itself: against accidents, not against tampering."""
    return {**metadata, "crc32": _crc32(metadata)}


def validated(stored: Any, *, step: int) -> dict[str, Any]:
    """What `with_checksum` was given, once it is known to be whole and of the right form.

    Raises:
      ValueError: saying what is wrong with it. Nothing is said against a newer format, which only
        a newer gptjax can check.
    """
    if not isinstance(stored, Mapping):
        raise ValueError("is not a JSON object")
    metadata = {name: value for name, value in stored.items() if name != "crc32"}
    if stored.get("crc32") != _crc32(metadata):
        raise ValueError("crc32 differs")
    if is_newer(metadata):
        return metadata
    problem = _mismatch(metadata, _SCHEMA, "")
    if problem:
        raise ValueError(problem)
    if metadata["step"] != step:
        raise ValueError(f"describes step {metadata['step']}")
    # Another text in place of the one asked for is never any but our own: none is to be fetched.
    corpus = metadata["corpus"]
    if corpus["fallback_reason"] and corpus["name"] != "synthetic":
        raise ValueError(f"a run on {corpus['name']!r:.40} in place of another corpus")
    # A layer has at least one array: a mistaken number of layers must not make us build them all.
    n_layer, n_leaves = metadata["config"].get("model.n_layer", 0), len(metadata["leaves"])
    if type(n_layer) is int and n_layer > n_leaves:
        raise ValueError(f"{n_layer} layers in {n_leaves} arrays")
    return metadata


def is_newer(metadata: Mapping[str, Any]) -> bool:
    """Whether a later version of gptjax wrote this."""
    written = metadata.get("format")
    return type(written) is int and written > FORMAT


def model_config(metadata: Mapping[str, Any]) -> GPTConfig:
    """The model that the metadata names.

    Raises:
      UserError: if the config or the tokenizer in it breaks a rule.
    """
    config = config_module.from_flat(metadata["config"], origin="checkpoint")
    return config_module.model_config(config, stored_tokenizer(metadata).vocab_size)


def stored_tokenizer(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that the metadata holds.

    Raises:
      UserError: if it breaks a rule.
    """
    return tokenizer.from_json(metadata["tokenizer"])


def finite_val(metadata: Mapping[str, Any]) -> float | None:
    """The val loss measured at this step; None without any, or if it was not finite."""
    val_nats = metadata["val_nats"]
    return val_nats if val_nats is not None and math.isfinite(val_nats) else None


def _mismatch(value: Any, pattern: Any, path: str) -> str:
    """Where and how a value differs from its pattern, or ""."""
    if isinstance(pattern, type):
        return "" if isinstance(value, pattern) else f"{path} is not {pattern.__name__}"
    if isinstance(pattern, list):
        if not isinstance(value, list):
            return f"{path} is not a list"
        return next(filter(None, (_mismatch(item, pattern[0], path) for item in value)), "")
    if not isinstance(pattern, dict):
        return "" if pattern(value) else f"{path} has a value of the wrong kind"
    if not isinstance(value, Mapping):
        return f"{path} is not an object"
    if all(isinstance(name, str) for name in pattern):
        missing = [name for name in pattern if name not in value]
        if missing:
            return f"{path}.{missing[0]} is missing".lstrip(".")
        parts = [
            (value[name], kind, f"{path}.{name}".lstrip(".")) for name, kind in pattern.items()
        ]
    else:
        ((key_kind, value_kind),) = pattern.items()
        parts = [(key, key_kind, f"{path}: key {key!r:.40}") for key in value]
        parts += [(item, value_kind, f"{path}: {key!r:.40}") for key, item in value.items()]
    return next(filter(None, (_mismatch(*part) for part in parts)), "")


def _crc32(metadata: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
