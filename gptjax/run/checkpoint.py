"""Checkpoints that are whole, checked and self-contained, kept by Orbax.

`checkpoints/N/` holds two items: `state`, every array of the TrainState, and `meta`, JSON with all
that is needed to use them (config, tokenizer, corpus, best value, ledger) and a crc32 of each
array. Orbax notices a missing or shortened file but loads a flipped bit without a word; the crc32
is what catches it. It guards against accidents, not against tampering.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from gptjax.device.memory import check_memory
from gptjax.run import metadata, retention
from gptjax.run.manager import manager
from gptjax.run.rescue import rescue
from gptjax.run.silence import orbax_in_silence
from gptjax.run.template import Unreadable, crc32, describe, fault, state_leaves, template
from gptjax.system.errors import RunError
from gptjax.system.files import plain_path
from gptjax.update.step import TrainState


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, verified, in host memory."""

    step: int
    meta: dict[str, Any]
    state: TrainState


class Checkpoints:
    """The checkpoints of one run directory; use it as a context manager.

    Leaving the context waits for the last save, so that no way out loses it.
    """

    def __init__(self, run_dir: Path, *, keep: int = 1, read_only: bool = False):
        # Orbax takes a relative path and fails at the first save.
        self._dir = run_dir.resolve() / "checkpoints"
        self._keep, self._read_only = keep, read_only
        # What is being written: its step and the names of its arrays.
        self._pending: tuple[int, set[str]] | None = None
        self._vals: dict[int, float] = {}
        self._orbax = orbax_in_silence()
        if not read_only:
            self._dir.mkdir(parents=True, exist_ok=True)
        self._links = contextlib.ExitStack()
        plain = self._links.enter_context(plain_path(self._dir.parent))
        self._manager = manager(self._orbax, plain / "checkpoints", read_only=read_only)
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
            self._links.close()
        if not self._read_only:  # A reader must not reach into the trash of a running run.
            retention.empty_trash(self._dir)

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
        leaves, of_leaves = self._taken(state)
        described = metadata.described(meta, step=step, val_nats=val_nats, leaves=of_leaves)
        retention.check_room(self._dir, step, sum(leaf.nbytes for leaf in leaves.values()))
        val = metadata.finite_val(described)
        if val is not None:
            self._vals[step] = val
        retention.empty_trash(self._dir)
        try:
            started = self._write(step, leaves, described)
        except (OSError, ValueError) as error:
            raise RunError(f"step {step} could not be saved: {error}") from error
        if not started:
            raise RunError(
                f"step {step} was not saved: {self._dir} already has step {self.steps()[-1]}"
            )
        self._pending = step, set(leaves)

    def _taken(self, state: TrainState) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """The state's arrays by path, as they are to be written; and described."""
        # On a CPU these are the state's own memory, which the next update overwrites; Orbax copies
        # numpy arrays before its save returns (its NumpyHandler's deepcopy_host_arrays).
        leaves = {path: np.asarray(leaf) for path, leaf in state_leaves(state).items()}
        return leaves, describe(leaves)

    def _write(self, step: int, leaves: Mapping[str, Any], described: Mapping[str, Any]) -> bool:
        """Whether it is being written now: not if there is one of this step."""
        items = self._orbax.args.Composite(
            state=self._orbax.args.StandardSave(unflatten_dict(leaves, sep="/")),
            meta=self._orbax.args.JsonSave(described),
        )
        return self._manager.save(step, args=items)

    def check(self) -> None:
        """Raises RunError if a save in the background has failed."""
        # check_for_errors finds nothing, or takes the error from Orbax's own thread, which then
        # deletes old steps as if the new one were there.
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Returns when every save is committed and reads back; raises RunError if one failed.

        Only then do the checkpoints go that are neither the newest nor the best.
        """
        pending, self._pending = self._pending, None
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # Whatever went wrong in Orbax's thread.
            free_bytes = shutil.disk_usage(self._dir).free
            raise RunError(
                f"a checkpoint could not be written: {error}; {free_bytes:,} bytes are free"
            ) from error
        if pending:
            self._verify(*pending)
            for old in retention.superfluous(self.steps(), keep=self._keep, vals=self._vals):
                self._manager.delete(old)

    def _verify(self, step: int, names: set[str]) -> None:
        """Raises RunError unless a reader finds the checkpoint, its description and its arrays."""
        try:
            self.meta(step)
            retention.check_listed(Path(self._manager.directory) / str(step) / "state", names)
        except Exception as error:  # TensorStore, too, raises what it likes.
            raise RunError(
                f"step {step} was saved but cannot be read back, so those before it were kept: "
                f"{error}"
            ) from error

    def meta(self, step: int) -> dict[str, Any]:
        """The JSON part of a checkpoint, verified.

        Raises:
          Damaged: if it is.
          Unreadable: if its files may not be read.
          RunError: if a newer gptjax wrote it.
        """
        folder = self._dir / str(step)
        try:
            if folder.is_symlink():
                raise ValueError("the folder is a symbolic link")
            if (folder / "meta" / "metadata").stat().st_size > metadata.LARGEST_BYTES:
                raise ValueError("is too large to be metadata")
            restored = self._manager.restore(
                step, args=self._orbax.args.Composite(meta=self._orbax.args.JsonRestore())
            )
            meta = metadata.validated(restored["meta"], step=step)
        except Exception as error:  # Orbax raises anything from KeyError to UnicodeDecodeError.
            raise self._fault(step, "meta", error) from error
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
        # Metadata, true or not, must not make us build or allocate what cannot fit.
        check_memory(metadata.model_config(meta), jax.local_devices(backend="cpu")[0])
        wanted = template(meta)
        leaves = state_leaves(wanted)
        found = {path: [list(leaf.shape), str(leaf.dtype)] for path, leaf in leaves.items()}
        if found != {path: [shape, dtype] for path, (shape, dtype, _) in meta["leaves"].items()}:
            raise self._fault(step, "state", "other arrays than its config calls for")
        empty = {path: np.empty(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}
        target = self._orbax.args.StandardRestore(unflatten_dict(empty, sep="/"))
        rescue(self._dir / str(step))
        try:
            restored = self._manager.restore(step, args=self._orbax.args.Composite(state=target))[
                "state"
            ]
        except Exception as error:  # As above: missing files, broken JSON, DATA_LOSS, …
            raise self._fault(step, "state", error) from error
        arrays = {path: np.asarray(leaf) for path, leaf in flatten_dict(restored, sep="/").items()}
        for path, (_, _, digest) in meta["leaves"].items():
            if crc32(arrays[path]) != digest:
                raise self._fault(step, path, "crc32 differs")
        state = jax.tree.unflatten(jax.tree.structure(wanted), [arrays[path] for path in leaves])
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
            except Unreadable:  # Another one would silently be taken for the best.
                raise
            except RunError:
                continue
            if val_nats is not None:
                vals[step] = val_nats
        return vals

    def set_aside(self, step: int) -> Path:
        """Renames a damaged checkpoint, so that it is neither listed nor in the way; its new name.

        Only for who holds the run's lock.
        """
        return retention.set_aside(self._dir / str(step))

    def _fault(self, step: int, part: str, error: object) -> RunError:
        return fault(self._dir / str(step), part, error, steps=self.steps())
