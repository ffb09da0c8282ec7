"""Checkpoints that are whole, checked and self-contained, kept by Orbax.

`checkpoints/N/` holds two items: `state`, every array of the TrainState, and `meta`, JSON with all
that is needed to use them (config, tokenizer, corpus, best value, ledger) and a crc32 of each
array. Orbax notices a missing or shortened file but loads a flipped bit without a word; the crc32
is what catches it. It guards against accidents, not against tampering.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint.checkpoint_managers import preservation_policy

import gptjax
from gptjax.config import config as config_module
from gptjax.device import mesh
from gptjax.run import metadata
from gptjax.system.errors import RunError, UserError
from gptjax.update.optim import optimizer
from gptjax.update.step import TrainState, initial_state


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


class NotFinite(RunError):
    """A state that holds NaN or an infinity, and is not saved."""


class Checkpoints:
    """The checkpoints of one run directory; use it as a context manager.

    Leaving the context waits for the last save, so that no way out loses it.
    """

    def __init__(self, run_dir: Path, *, keep: int = 1, read_only: bool = False):
        # Orbax takes a relative path and fails at the first save.
        self._dir = run_dir.resolve() / "checkpoints"
        self._read_only = read_only
        self._vals: dict[int, float] = {}
        # Orbax warns of each array that it restores as numpy, which is what is wanted here, and
        # logs what it raises as well: a failed save is to be told of once, by us.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        sys.unraisablehook = _report_unraisable
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_NewestAndBest(keep, self._vals),
            # Deleting is not atomic, renaming is: old steps go to trash/, which is emptied here.
            todelete_subdir=None if read_only else "trash",
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self._dir, options=options)
        if not read_only:
            self._vals.update(self._vals_on_disk())

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, *exception: object) -> None:
        try:
            self.wait()
        except RunError as error:
            if kind is None:
                raise
            # What went wrong first is on its way up already.
            print(f"gptjax: error: {error}", file=sys.stderr)
        finally:
            with contextlib.suppress(Exception):  # What wait has raised comes once more.
                self._manager.close()
        if not self._read_only:  # A reader must not reach into the trash of a running run.
            self._empty_trash()

    def steps(self) -> list[int]:
        """Steps that have a committed checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, meta: Mapping[str, Any], *, val_nats: float | None) -> None:
        """Starts writing a checkpoint; returns once the arrays are copied and described.

        Raises:
          NotFinite: if the state holds a value that is not finite.
          RunError: if it cannot be saved, or an earlier save failed.
        """
        self.wait()
        step = int(state.step)
        # On a CPU these are the state's own memory, which the next update overwrites; Orbax copies
        # numpy arrays before its save returns (its NumpyHandler's deepcopy_host_arrays).
        leaves = {path: np.asarray(leaf) for path, leaf in state_leaves(state).items()}
        with concurrent.futures.ThreadPoolExecutor(mesh.n_cores()) as pool:
            found = pool.map(_finite_crc32, leaves, leaves.values())
            crc32s = dict(zip(leaves, found, strict=True))
        self._check_space(step, sum(leaf.nbytes for leaf in leaves.values()))
        described = metadata.signed(
            {
                **meta,
                "format": metadata.FORMAT,
                "gptjax": gptjax.__version__,
                "jax": jax.__version__,
                "step": step,
                "val_nats": val_nats,
                "leaves": {
                    path: [list(leaf.shape), str(leaf.dtype), crc32s[path]]
                    for path, leaf in leaves.items()
                },
            }
        )
        val = metadata.finite_val(described)
        if val is not None:
            self._vals[step] = val
        self._empty_trash()
        try:
            started = self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(unflatten_dict(leaves, sep="/")),
                    meta=ocp.args.JsonSave(described),
                ),
            )
        except (OSError, ValueError) as error:
            raise RunError(f"step {step} could not be saved: {error}") from error
        if not started:
            raise RunError(
                f"step {step} was not saved: {self._dir} already has step {self.steps()[-1]}"
            )

    def check(self) -> None:
        """Raises RunError if a save in the background has failed."""
        # check_for_errors finds nothing, or takes the error from Orbax's own thread, which then
        # deletes old steps as if the new one were there.
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when every save has been committed; raises RunError if one failed."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # Whatever went wrong in Orbax's thread.
            free_bytes = shutil.disk_usage(self._dir).free
            raise RunError(
                f"a checkpoint could not be written: {error}; {free_bytes:,} bytes are free"
            ) from error

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint, verified.

        Raises:
          Damaged: if it is.
          RunError: if a newer gptjax wrote it.
        """
        folder = self._dir / str(step)
        try:
            if folder.is_symlink():
                raise ValueError("the folder is a symbolic link")
            if (folder / "meta" / "metadata").stat().st_size > metadata.LARGEST_BYTES:
                raise ValueError("is too large to be a description")
            restored = self._manager.restore(
                step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
            )
            meta = metadata.checked(restored["meta"], step=step)
        except Exception as error:  # Orbax raises anything from KeyError to UnicodeDecodeError.
            raise self._damaged(step, "meta", error) from error
        if metadata.is_newer(meta):
            raise RunError(
                f"checkpoint {folder} was written by gptjax {meta.get('gptjax')}; "
                "it needs that version or a later one"
            )
        return meta

    def restore(self, step: int) -> Checkpoint:
        """The checkpoint of `step`, every array checked, on the host whatever wrote it.

        Raises:
          Damaged: if anything in it is missing, changed or not what its config calls for.
          RunError: if a newer gptjax wrote it.
        """
        meta = self.meta(step)
        # A description, true or not, must not make us build or allocate what cannot fit.
        mesh.check_memory(metadata.model_config(meta), jax.local_devices(backend="cpu")[0])
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
        vals = self._vals_on_disk()
        return min(vals, key=lambda step: vals[step]) if vals else None

    def _vals_on_disk(self) -> dict[int, float]:
        """The finite val losses of the readable checkpoints, by step."""
        vals = {}
        for step in self.steps():
            try:
                val_nats = metadata.finite_val(self.meta(step))
            except RunError:
                continue
            if val_nats is not None:
                vals[step] = val_nats
        return vals

    def set_aside(self, step: int) -> Path:
        """Renames a damaged checkpoint, so that it is neither listed nor in the way; its new name.

        Only for who holds the run's lock.
        """
        folder = self._dir / str(step)
        names = (folder.with_name(f"{step}.corrupt{suffix}") for suffix in ("", *range(1, 1000)))
        aside = next(name for name in names if not os.path.lexists(name))
        os.rename(folder, aside)
        return aside

    def _damaged(self, step: int, part: str, error: object) -> Damaged:
        reason = f"{part}: {' '.join(str(error).split())[:200]}"
        return Damaged(
            f"checkpoint {self._dir / str(step)} is damaged: {reason}; "
            f"use another step of {self.steps()} or delete that folder",
            reason,
        )

    def _check_space(self, step: int, needed_bytes: int) -> None:
        free_bytes = shutil.disk_usage(self._dir).free
        if free_bytes < needed_bytes:
            raise RunError(
                f"step {step} could not be saved: it needs {needed_bytes:,} bytes, and "
                f"{free_bytes:,} are free in {self._dir}; make room, then the same command goes on"
            )

    def _empty_trash(self) -> None:
        trash = self._dir / "trash"
        if trash.is_symlink():  # Orbax would move old steps to where it leads.
            trash.unlink()
        # The folder itself stays: Orbax's thread may be about to move a step into it.
        for deleted in trash.glob("*"):
            shutil.rmtree(deleted, ignore_errors=True)


class _NewestAndBest(preservation_policy.PreservationPolicy):
    """Preserves the newest `keep` checkpoints and the one with the lowest of `vals`.

    Orbax's own ranking, best_fn, forgets the newest checkpoint for a better one (google/orbax#526),
    takes NaN for the best value, and loses the best when its small file of metrics is damaged.
    `vals` holds the finite losses by step and is kept by the owner.
    """

    def __init__(self, keep: int, vals: Mapping[int, float]):
        self._keep, self._vals = keep, vals

    def should_preserve(
        self,
        checkpoints: Sequence[Any],
        *,
        context: preservation_policy.PreservationContext,
    ) -> Sequence[bool]:
        del context
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        known = [step for step in steps if step in self._vals]
        kept = {*steps[-self._keep :], *sorted(known, key=self._vals.__getitem__)[:1]}
        return [checkpoint.step in kept for checkpoint in checkpoints]


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
    return jax.eval_shape(lambda: initial_state(metadata.model_config(meta), optimizer(config), 0))


def _report_unraisable(unraisable: Any) -> None:
    """Leaves out what TensorStore says when it fails after Orbax has closed its event loop.

    The failure itself is raised; only the late calls of its callbacks would be printed.
    """
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)


def _finite_crc32(path: str, leaf: np.ndarray) -> int:
    if not np.isfinite(leaf).all():
        raise NotFinite(f"{path} is not finite")
    return _crc32(leaf)


def _crc32(leaf: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
