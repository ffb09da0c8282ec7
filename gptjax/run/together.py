"""A run of several processes: what they must have in common, and what the first alone writes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.experimental import multihost_utils

from gptjax.config.config import flat
from gptjax.run import directory, runlog
from gptjax.run.inputs import Inputs
from gptjax.run.progress import Notice
from gptjax.run.records import versions
from gptjax.run.runlog import RunLog
from gptjax.run.template import crc32
from gptjax.system import cache
from gptjax.system.errors import UserError
from gptjax.system.hosts import Hosts
from gptjax.update.step import TrainState

# A clock that is off by more is worth a line, seconds: it says when a run was started.
_CLOCKS_APART = 60.0


def agree(hosts: Hosts, facts: Mapping[str, Any]) -> None:
    """Raises UserError, on all processes, when one has another value of a fact than the first."""

    def difference(all_facts: list[dict[str, Any]]) -> list[Any]:
        for name, value in all_facts[0].items():
            for index, others in enumerate(all_facts):
                if others.get(name) != value:
                    return [name, value, index, others.get(name)]
        return []

    if found := hosts.decide(dict(facts), difference):
        name, value, index, other = found
        raise UserError(
            name,
            f"{value} for {hosts.who(0)}, {other} for {hosts.who(index)}",
            "all processes of a run must have the same",
        )


def agree_at_start(hosts: Hosts, config: ml_collections.ConfigDict) -> None:
    """Raises UserError when the processes are not of one config, one program and one kind."""
    if hosts.count > 1:
        code = {"gptjax's source": cache.written_digest()[:12]}
        agree(hosts, {**flat(config), **versions(), **code})


def agree_on_inputs(hosts: Hosts, inputs: Inputs) -> None:
    """Raises UserError when they have read different texts or have other devices."""
    if hosts.count == 1:
        return
    tokenizer = json.dumps(inputs.tokenizer.to_json()).encode()
    devices = jax.local_devices()
    facts = {
        "sha256 of the text": inputs.corpus.sha256,
        "sha256 of the validation split": inputs.val_sha256,
        "tokenizer": hashlib.sha256(tokenizer).hexdigest()[:12],
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }
    agree(hosts, facts)


def agree_on_weights(hosts: Hosts, state: TrainState) -> None:
    """Raises UserError when they start from different weights, as different processors may make."""
    if hosts.count > 1:
        parts = [shard.data for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards]
        sums = [crc32(part) for part in parts] if _is_copied(state) else []
        agree(hosts, {"crc32 of the weights": hashlib.sha256(str(sums).encode()).hexdigest()[:12]})


def _is_copied(state: TrainState) -> bool:
    return all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state))


@contextlib.contextmanager
def locked(hosts: Hosts, run_dir: Path) -> Iterator[Callable[[], None]]:
    """As directory.locked by the first process; the others look whether they see its lock.

    Raises:
      UserError: if the directory is in use, or not one and the same for all.
    """
    if hosts.leads:
        with directory.locked(run_dir) as check_lock:
            _check_shared(hosts, run_dir)
            yield check_lock
    else:
        _check_shared(hosts, run_dir)
        yield lambda: None


def _check_shared(hosts: Hosts, run_dir: Path) -> None:
    if hosts.count == 1:
        return
    written = hosts.decide(directory.lock_text(run_dir), lambda texts: texts[0])
    seen = hosts.gather(directory.sees_lock(run_dir, written))
    if not all(seen):
        raise UserError(
            "out_dir",
            run_dir,
            f"{hosts.who(seen.index(False))} does not see what {hosts.who(0)} writes there",
            "All processes need one directory that they share.",
        )


def clock_notices(hosts: Hosts) -> list[Notice]:
    """A warning for each process whose clock is far from the first's."""
    clocks = hosts.gather(time.time())
    return [
        Notice(f"the clock of {hosts.who(index)} is {clock - clocks[0]:+.0f} s off", "warning")
        for index, clock in enumerate(clocks)
        if abs(clock - clocks[0]) > _CLOCKS_APART
    ]


def connect(hosts: Hosts) -> None:
    """Connects the devices of all processes, once all are ready: Gloo waits 30 s at most."""
    if hosts.count > 1:
        hosts.gather(None)
        multihost_utils.sync_global_devices("connected")


def next_call(said: list[list[int]]) -> list[int]:
    """As many updates as the first process wants; the signal that any of them has got."""
    return [said[0][0], next((number for _, number in said if number), 0)]


def shares(hosts: Hosts, own_seconds: float) -> dict[str, float]:
    """What each process took for its share of a work, by its name."""
    return {hosts.who(index): each for index, each in enumerate(hosts.gather(own_seconds))}


def begin_log(
    hosts: Hosts, config: ml_collections.ConfigDict, resumed_step: int | None, tell: Any
) -> RunLog:
    """The run's log, which only the first process writes; all know what is in it."""
    log = runlog.begin(config, resumed_step, tell=tell) if hosts.leads else NoLog()
    log.evaluated = set(hosts.decide(sorted(log.evaluated), lambda steps: steps[0]))
    return log


class NoLog(RunLog):
    """In place of RunLog where another process writes it."""

    def __init__(self) -> None:
        self.evaluated: set[int] = set()
        self.n_damaged = 0

    def __enter__(self) -> NoLog:
        return self

    def __exit__(self, *exception: object) -> None:
        """There is nothing to close."""

    def append(self, kind: str, **values: Any) -> None:
        """The first process writes the record."""
