"""Checkpoints that are whole, checked and self-contained, kept by Orbax.

`checkpoints/N/` holds two items: `state`, every array of the TrainState, and `meta`, JSON with all
that is needed to use them (config, tokenizer, corpus, best value, ledger) and a crc32 of each
array. Orbax notices a missing or shortened file but loads a flipped bit without a word; the crc32
is what catches it. It guards against accidents, not against tampering.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import shutil
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint.checkpoint_managers import preservation_policy

import gptjax
from gptjax import config as config_module
from gptjax import mesh
from gptjax.config import GPTConfig
from gptjax.errors import RunError, UserError
from gptjax.optim import optimizer
from gptjax.step import TrainState, initial_state
from gptjax.tokenizer import CharTokenizer

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, verified, in host memory."""

    step: int
    meta: dict[str, Any]
    state: TrainState


class Damaged(RunError):
    """A checkpoint that is not what was written; `reason` says which part of it."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


class Checkpoints:
    """The checkpoints of one run directory; use it as a context manager.

    Leaving the context waits for the last save, so that no way out loses it.
    """

    def __init__(self, run_dir: Path, *, keep: int = 1, read_only: bool = False):
        # Orbax takes a relative path and fails at the first save.
        self._dir = run_dir.resolve() / "checkpoints"
        self._read_only = read_only
        # Orbax warns of each array that it restores as numpy, which is what is wanted here, and
        # logs what it raises as well: a failed save is to be told of once, by us.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        sys.unraisablehook = _report_unraisable
        policies = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep),
                # reverse=True keeps the smallest.
                preservation_policy.BestN(get_metric_fn=_val_or_infinity, reverse=True, n=1),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            best_fn=_val_or_infinity,
            best_mode="min",
            preservation_policy=policies,
            # Deleting is not atomic, renaming is: old steps go to trash/, which is emptied here.
            todelete_subdir=None if read_only else "trash",
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._dir, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        try:
            self._manager.close()
        except Exception as error:  # As in check.
            if kind is None:  # Otherwise what went wrong first is on its way up already.
                raise _not_written(error) from error
        if not self._read_only:  # A reader must not reach into the trash of a running run.
            self._empty_trash()

    def steps(self) -> list[int]:
        """Steps that have a committed checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, meta: Mapping[str, Any], *, val_nats: float | None) -> None:
        """Starts writing a checkpoint; returns once the arrays are copied to host memory.

        Raises:
          RunError: if the state holds a value that is not finite, or an earlier save failed.
        """
        self.check()
        step = int(state.step)
        # Copied, because the next update overwrites the state's own memory.
        leaves = {path: np.array(leaf) for path, leaf in state_leaves(state).items()}
        for path, leaf in leaves.items():
            if leaf.dtype.kind in "fV" and not np.isfinite(leaf.astype(np.float32)).all():
                raise RunError(f"step {step}: {path} is not finite; this state is not saved")
        described = {
            **meta,
            "format": FORMAT,
            "gptjax": gptjax.__version__,
            "jax": jax.__version__,
            "step": step,
            "val_nats": val_nats,
            "leaves": {
                path: [list(leaf.shape), str(leaf.dtype), _crc32(leaf)]
                for path, leaf in leaves.items()
            },
        }
        described["crc32"] = _json_crc32(described)
        self._empty_trash()
        try:
            started = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(unflatten_dict(leaves, sep="/")),
                    meta=ocp.args.JsonSave(described),
                ),
                metrics={"val_nats": val_nats if val_nats is not None else math.inf},
            )
        except (OSError, ValueError) as error:
            raise RunError(f"step {step} could not be saved: {error}") from error
        if not started:
            raise RunError(
                f"step {step} was not saved: {self._dir} already has step {self.steps()[-1]}"
            )

    def check(self) -> None:
        """Raises RunError if a save in the background has failed."""
        try:
            self._manager.check_for_errors()
        except Exception as error:  # Whatever went wrong in Orbax's thread.
            raise _not_written(error) from error

    def wait(self) -> None:
        """Returns when every save has been committed; raises RunError if one failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # As in check.
            raise _not_written(error) from error

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint, verified.

        Raises:
          Damaged: if it is.
          RunError: if a newer gptjax wrote it.
        """
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
            )
            meta = dict(restored["meta"])
            stored_crc32 = meta.pop("crc32")
        except Exception as error:  # Orbax raises anything from KeyError to UnicodeDecodeError.
            raise self._damaged(step, "meta", error) from error
        if meta.get("format", 0) > FORMAT:
            raise RunError(
                f"checkpoint {self._dir / str(step)} was written by gptjax {meta.get('gptjax')}; "
                "it needs that version or a later one"
            )
        if _json_crc32(meta) != stored_crc32:
            raise self._damaged(step, "meta", "crc32 differs")
        return meta

    def restore(self, step: int) -> Checkpoint:
        """The checkpoint of `step`, every array checked, on the host whatever wrote it.

        Raises:
          Damaged: if anything in it is missing, changed or not what its config calls for.
          RunError: if a newer gptjax wrote it.
        """
        meta = self.meta(step)
        # A description, true or not, must not make us build or allocate what cannot fit.
        mesh.check_memory(model_config(meta), jax.local_devices(backend="cpu")[0])
        template = _template(meta)
        shapes = state_leaves(template)
        described = {path: (list(leaf.shape), str(leaf.dtype)) for path, leaf in shapes.items()}
        if described != {p: (shape, dtype) for p, (shape, dtype, _) in meta["leaves"].items()}:
            raise self._damaged(step, "state", "other arrays than its config calls for")
        wanted = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in shapes.items()}
        target = ocp.args.StandardRestore(unflatten_dict(wanted, sep="/"))
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=target))["state"]
        except Exception as error:  # As above: missing files, broken JSON, DATA_LOSS, …
            raise self._damaged(step, "state", error) from error
        leaves = {path: np.asarray(leaf) for path, leaf in flatten_dict(restored, sep="/").items()}
        for path, (_, _, crc32) in meta["leaves"].items():
            if _crc32(leaves[path]) != crc32:
                raise self._damaged(step, path, "crc32 differs")
        structure = jax.tree.structure(template)
        state = jax.tree.unflatten(structure, [leaves[path] for path in state_leaves(template)])
        return Checkpoint(step, meta, state)

    def best(self) -> int | None:
        """The step with the lowest val loss among the readable checkpoints; None without any."""
        vals = {}
        for step in self.steps():
            try:
                val_nats = self.meta(step)["val_nats"]
            except RunError:
                continue
            if val_nats is not None and math.isfinite(val_nats):
                vals[step] = val_nats
        return min(vals, key=lambda step: vals[step]) if vals else None

    def set_aside(self, step: int) -> Path:
        """Renames a damaged checkpoint, so that it is neither listed nor in the way; its new name.

        Only for who holds the run's lock.
        """
        folder = self._dir / str(step)
        names = (folder.with_name(f"{step}.corrupt{suffix}") for suffix in ("", *range(1, 1000)))
        aside = next(name for name in names if not name.exists())
        os.rename(folder, aside)
        return aside

    def _damaged(self, step: int, part: str, error: object) -> Damaged:
        reason = f"{part}: {' '.join(str(error).split())[:200]}"
        return Damaged(
            f"checkpoint {self._dir / str(step)} is damaged: {reason}; "
            f"use another step of {self.steps()} or delete that folder",
            reason,
        )

    def _empty_trash(self) -> None:
        # The folder itself stays: Orbax's thread may be about to move a step into it.
        for deleted in (self._dir / "trash").glob("*"):
            shutil.rmtree(deleted, ignore_errors=True)


def open_for_reading(out_dir: str, *, flag: str = "--out_dir") -> Checkpoints:
    """The checkpoints of a finished or running run; creates nothing.

    `flag` is what errors name: where the directory was given.

    Raises:
      UserError: if there is no run or it has no checkpoint.
    """
    folder = Path(out_dir) / "checkpoints"
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long.
        raise UserError(flag, out_dir, "holds no run", "Train one: scripts/train.py")
    checkpoints = Checkpoints(Path(out_dir), read_only=True)
    if not checkpoints.steps():
        raise UserError(flag, out_dir, "has no checkpoint yet")
    return checkpoints


def select_step(checkpoints: Checkpoints, wanted: str, *, flag: str = "--step") -> int:
    """The step that `--step best|latest|N` names.

    Raises:
      UserError: if it names no checkpoint.
    """
    steps = checkpoints.steps()
    if wanted == "latest":
        return steps[-1]
    if wanted == "best":
        # Before the first evaluation there is no best: then the newest is meant.
        best = checkpoints.best()
        return steps[-1] if best is None else best
    if not wanted.isdecimal() or int(wanted) not in steps:
        have = ", ".join(map(str, steps))
        raise UserError(flag, wanted, f"must be best, latest or one of {have}")
    return int(wanted)


def model_config(meta: Mapping[str, Any]) -> GPTConfig:
    """The model that a checkpoint's JSON describes."""
    config = config_module.from_flat(meta["config"], origin="checkpoint")
    vocab_size = CharTokenizer.from_json(meta["tokenizer"]).vocab_size
    return GPTConfig(**config.model, vocab_size=vocab_size)


def state_leaves(state: TrainState) -> dict[str, Any]:
    """The state's arrays by path, such as "params/blocks/0/mlp/up/kernel"."""
    paths, _ = jax.tree_util.tree_flatten_with_path(state)
    # Whether an NNX variable's own field is part of the path is up to the Flax version.
    return {
        jax.tree_util.keystr(path, simple=True, separator="/").removesuffix("/value"): leaf
        for path, leaf in paths
    }


def _template(meta: Mapping[str, Any]) -> TrainState:
    """Shapes and dtypes of the state that a checkpoint's config calls for."""
    config = config_module.from_flat(meta["config"], origin="checkpoint")
    return jax.eval_shape(lambda: initial_state(model_config(meta), optimizer(config), 0))


def _not_written(error: Exception) -> RunError:
    return RunError(f"a checkpoint could not be written: {error}")


def _report_unraisable(unraisable: Any) -> None:
    """Leaves out what TensorStore says when it fails after Orbax has closed its event loop.

    The failure itself is raised; only the late calls of its callbacks would be printed.
    """
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _val_or_infinity(metrics: Any) -> float:
    """What Orbax ranks by: without this a NaN would count as best and the best be deleted."""
    val_nats = metrics.get("val_nats", math.inf) if isinstance(metrics, Mapping) else math.inf
    return val_nats if math.isfinite(val_nats) else math.inf


def _crc32(leaf: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).tobytes())


def _json_crc32(meta: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
