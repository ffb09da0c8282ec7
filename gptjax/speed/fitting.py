"""The smallest change of a config that makes its update fit, found by compiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from gptjax.config.config import set_knob
from gptjax.run.footprint import Footprint

# What a config needs, or None if it does not go with the devices.
Needed = Callable[[ml_collections.ConfigDict], Footprint]


@dataclasses.dataclass(frozen=True)
class Change:
    """Knobs that make an update fit, and what it needs then."""

    knobs: Mapping[str, Any]
    footprint: Footprint

    def in_words(self) -> str:
        """As they are given on a command line."""
        return " ".join(f"--config.{name}={_word(value)}" for name, value in self.knobs.items())


def smallest_change(
    config: ml_collections.ConfigDict,
    now: Footprint,
    needed: Needed,
    *,
    available: int,
    n_devices: int,
) -> Change | None:
    """The change that costs least of those that fit into `available` bytes; None if none does.

    Smaller micro-batches cost next to nothing, to compute blocks twice a third more arithmetic,
    to split the state over more devices what they have to send.
    """

    def fitting(knobs: Mapping[str, Any]) -> Change | None:
        found = needed(changed(config, knobs))
        return Change(knobs, found) if found.total <= available else None

    sizes = micro_batches_below(now.micro_batch)
    remat = {} if config.model.remat else {"model.remat": True}
    if now.state + now.gradients + now.data <= available:
        found = _largest(config, sizes, {}, fitting)
        if not found and remat:
            found = fitting(remat) or _largest(config, sizes, remat, fitting)
        if found:
            return found
    least = {**remat, "train.tokens_at_once": config.model.block_size}
    for others in ({}, least):
        for n_fsdp in splits_above(config, n_devices):
            mesh = {"mesh.data": n_devices // n_fsdp, "mesh.fsdp": n_fsdp}
            if found := fitting({**mesh, **others}):
                return found
    return None


def _largest(
    config: ml_collections.ConfigDict,
    sizes: Sequence[int],
    others: Mapping[str, Any],
    fitting: Callable[[Mapping[str, Any]], Change | None],
) -> Change | None:
    """The change to the largest of these micro-batches that fits: by halving, the smallest first.

    What all of them need is the same, and the rest grows with them.
    """
    best: Change | None = None
    first, last = 0, len(sizes) - 1
    middle = last
    while first <= last:
        tokens = sizes[middle] * config.model.block_size
        found = fitting({**others, "train.tokens_at_once": tokens})
        if found:
            best, last = found, middle - 1
        else:
            first = middle + 1
        middle = (first + last) // 2
    return best


def micro_batches_below(n_sequences: int) -> list[int]:
    """Divisors of a micro-batch's sequences, the largest first, itself left out."""
    return [n for n in range(n_sequences // 2, 0, -1) if n_sequences % n == 0]


def splits_above(config: ml_collections.ConfigDict, n_devices: int) -> list[int]:
    """Over how many devices a state can be split, if over more than now."""
    return [n for n in range(config.mesh.fsdp + 1, n_devices + 1) if n_devices % n == 0]


def changed(
    config: ml_collections.ConfigDict, knobs: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """A copy with other values of some knobs."""
    config = config.copy_and_resolve_references()
    for name, value in knobs.items():
        set_knob(config, name, value)
    return config


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
