"""The arrays of a TrainState: by path, as a config calls for them, digested, and what ails them."""

from __future__ import annotations

import concurrent.futures
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax.config.config import from_flat
from gptjax.device.devices import n_cores
from gptjax.run.metadata import model_config
from gptjax.system.errors import RunError
from gptjax.update.optim import optimizer
from gptjax.update.step import TrainState, initial_state


class Damaged(RunError):
    """A checkpoint that is not what was written; `reason` says which part of it."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class Unreadable(RunError):
    """A checkpoint that may be whole, but not read: its files are somebody else's."""


class NotFinite(RunError):
    """A state that holds NaN or an infinity, and is not saved."""


def fault(folder: Path, part: str, error: object, *, steps: list[int]) -> Damaged | Unreadable:
    """What is to be raised when `part` of a checkpoint could not be had; `steps` are all there."""
    reason = f"{part}: {' '.join(str(error).split())[:200]}"
    if re.search("PERMISSION_DENIED|Permission denied", str(error)):  # TensorStore's, Python's.
        return Unreadable(f"checkpoint {folder} cannot be read: {reason}")
    return Damaged(f"checkpoint {folder} is damaged: {reason}; use another step of {steps}", reason)


def state_leaves(state: TrainState) -> dict[str, Any]:
    """The state's arrays by path, such as "params/blocks/0/mlp/up/kernel"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    # Whether an NNX variable's own field is part of the path is up to the Flax version.
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value"): leaf
        for path, leaf in paths
    }


def template(meta: Mapping[str, Any]) -> TrainState:
    """Shapes and dtypes of the state that a checkpoint's config calls for."""
    config = from_flat(meta["config"], origin="checkpoint")
    return jax.eval_shape(lambda: initial_state(model_config(meta), optimizer(config), 0))


def describe(leaves: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """Shape, dtype and crc32 of arrays by path, as metadata holds them.

    Raises:
      NotFinite: if one holds NaN or an infinity.
    """
    with concurrent.futures.ThreadPoolExecutor(n_cores()) as pool:
        digests = pool.map(_finite_crc32, leaves, leaves.values())
        return {
            path: [list(leaf.shape), str(leaf.dtype), digest]
            for (path, leaf), digest in zip(leaves.items(), digests, strict=True)
        }


def _finite_crc32(path: str, leaf: np.ndarray) -> int:
    if not np.isfinite(leaf).all():
        raise NotFinite(f"{path} is not finite")
    return crc32(leaf)


def crc32(leaf: np.ndarray) -> int:
    """The crc32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
