"""Checkpoints of a run of several processes: the first writes, or all do if the state is split.

Of a split state each process writes its own part, all into one directory. None ever holds more than
a few whole arrays of it. The first does what one process alone would do: it describes, commits,
reads back and deletes.
"""

from __future__ import annotations

import concurrent.futures
import functools
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict

from gptjax.device.devices import n_cores
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.silence import orbax_in_silence
from gptjax.run.template import NotFinite, crc32, state_leaves
from gptjax.system.errors import RunError
from gptjax.system.files import plain_path
from gptjax.system.hosts import Hosts
from gptjax.update.step import TrainState

# Each reads one array at a time, all of it.
_MOST_THREADS = 4


def is_split(state: TrainState) -> bool:
    """Whether a process lacks parts of the state."""
    return not all(
        leaf.is_fully_addressable or leaf.is_fully_replicated for leaf in jax.tree.leaves(state)
    )


def open_checkpoints(hosts: Hosts, run_dir: Path, state: TrainState, *, keep: int) -> Checkpoints:
    """The checkpoints of a run whose state lies over devices as this one."""
    if not is_split(state):
        return Checkpoints(run_dir, keep=keep) if hosts.leads else NoCheckpoints()
    return SplitCheckpoints(run_dir, hosts, keep=keep) if hosts.leads else Parts(run_dir, hosts)


class SplitCheckpoints(Checkpoints):
    """As Checkpoints, of a split state, for the first process; `save` ends when all is written."""

    def __init__(self, run_dir: Path, hosts: Hosts, *, keep: int):
        super().__init__(run_dir, keep=keep)
        self._hosts = hosts

    def _taken(self, state: TrainState) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        leaves = state_leaves(state)
        return leaves, described(leaves, self._hosts)

    def _write(self, step: int, leaves: Mapping[str, Any], meta: Mapping[str, Any]) -> bool:
        if step in self.steps():
            return False
        _write(Path(self._manager.directory), step, leaves, meta, self._hosts)
        self._manager.reload()
        return True


class NoCheckpoints(Checkpoints):
    """In place of Checkpoints where another process writes them."""

    def __init__(self) -> None:
        """There is nothing to open."""

    def __enter__(self) -> NoCheckpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        """There is nothing to wait for."""

    def save(self, state: TrainState, meta: Mapping[str, Any], *, val_nats: float | None) -> None:
        """The first process has the whole state, and saves it."""

    def check(self) -> None:
        """The first process checks."""

    def wait(self) -> None:
        """The first process waits."""


class Parts(NoCheckpoints):
    """What a process other than the first writes of the checkpoints of a split state."""

    def __init__(self, run_dir: Path, hosts: Hosts):
        self._run_dir, self._hosts = run_dir.resolve(), hosts

    def save(self, state: TrainState, meta: Mapping[str, Any], *, val_nats: float | None) -> None:
        """Writes what this process has of the state; raises as the first process does."""
        leaves, step = state_leaves(state), int(state.step)
        described(leaves, self._hosts)
        try:
            with plain_path(self._run_dir) as plain:
                _write(plain / "checkpoints", step, leaves, {}, self._hosts)
        except (OSError, ValueError) as error:
            raise RunError(f"step {step} could not be saved: {error}") from error


def described(leaves: Mapping[str, jax.Array], hosts: Hosts) -> dict[str, list[Any]]:
    """Shape, dtype and crc32 of arrays by path, as metadata holds them; all must call this.

    A crc32 is linear: that of arrays of which one alone is not 0 at each place is, but for those of
    zeros, the exclusive or of theirs. So each process adds that of its own part among zeros.

    Raises:
      NotFinite: if one holds NaN or an infinity, on all processes.
    """
    with concurrent.futures.ThreadPoolExecutor(min(_MOST_THREADS, n_cores())) as pool:
        sums = hosts.gather(list(pool.map(own_sum, leaves.values())))
    found = {}
    for (path, leaf), parts in zip(leaves.items(), zip(*sums, strict=True), strict=True):
        if any(part == "not finite" for part in parts):
            raise NotFinite(f"{path} is not finite")
        zeros = crc32(np.zeros(leaf.shape, leaf.dtype)) if hosts.leads else 0
        digest = summed([part for part in parts if part is not None], zeros)
        found[path] = [list(leaf.shape), str(leaf.dtype), digest]
    return found


def own_sum(leaf: jax.Array) -> int | str | None:
    """The crc32 of an array that is 0 but where it is this process's to write.

    None if nothing is; "not finite" if NaN or an infinity is.
    """
    own = [shard for shard in leaf.addressable_shards if shard.replica_id == 0]
    if not own:
        return None
    among_zeros = np.zeros(leaf.shape, leaf.dtype)
    for shard in own:
        among_zeros[shard.index] = shard.data
    return crc32(among_zeros) if np.isfinite(among_zeros).all() else "not finite"


def summed(parts: Iterable[int], zeros: int) -> int:
    """The crc32 of the sum of arrays that do not overlap; `zeros` is that of as many zeros."""
    parts = list(parts)
    return functools.reduce(operator.xor, parts, 0 if len(parts) % 2 else zeros)


def _write(
    folder: Path, step: int, leaves: Mapping[str, Any], meta: Mapping[str, Any], hosts: Hosts
) -> None:
    """Writes a checkpoint into `folder`, all processes together; `meta` is the first's."""
    orbax = orbax_in_silence()
    options = orbax.options.MultiprocessingOptions(
        primary_host=0,
        active_processes=set(range(hosts.count)),
        barrier_sync_key_prefix=f"step{step}",
    )
    handler = orbax.CompositeCheckpointHandler(
        composite_options=orbax.CompositeOptions(multiprocessing_options=options),
        state=orbax.StandardCheckpointHandler(multiprocessing_options=options),
        meta=orbax.JsonCheckpointHandler(multiprocessing_options=options),
    )
    items = orbax.args.Composite(
        state=orbax.args.StandardSave(unflatten_dict(leaves, sep="/")),
        meta=orbax.args.JsonSave(meta),
    )
    with orbax.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(folder / str(step), args=items)
