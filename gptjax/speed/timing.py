"""What updates took on some of the CPUs or in another type: better, or noise."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from gptjax.device.cores import list_of

# Fewer turns say nothing.
_LEAST_TURNS = 3

# Another variant is better if its updates take less than that part of the time, in the middle of
# its turns, and less time at all in every turn but one.
_BETTER_BELOW = 0.95


@dataclasses.dataclass(frozen=True)
class Variant:
    """The CPUs that updates are made on, () for all there are, and the type they compute in."""

    cpus: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a variant's updates took.

    Attributes:
      ms: of each turn, milliseconds an update.
      ratios: of each turn, to that of the first variant just before it.
      skipped: why there is none of it, or "".
    """

    variant: Variant
    ms: tuple[float, ...] = ()
    ratios: tuple[float, ...] = ()
    skipped: str = ""

    @property
    def update_ms(self) -> float:
        """The middle of the turns."""
        return statistics.median(self.ms)

    @property
    def ratio(self) -> float:
        """The middle of the ratios."""
        return statistics.median(self.ratios)

    @property
    def is_better(self) -> bool:
        """Whether it beats the first variant by more than noise."""
        if len(self.ratios) < _LEAST_TURNS:
            return False
        return self.ratio < _BETTER_BELOW and sorted(self.ratios)[-2] < 1

    def in_words(self) -> str:
        """A line for people."""
        n = len(self.variant.cpus)
        name = f"CPUs {list_of(self.variant.cpus)} ({n})" if n else "all CPUs"
        name += f", {self.variant.dtype}"
        if self.skipped:
            return name
        words = f"{name}: {self.update_ms:.3g} ms ({min(self.ms):.3g} to {max(self.ms):.3g})"
        return words + (f", {self.ratio:.2f}x the time on all" if self.ratios else "")

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return dataclasses.asdict(self)


def best(timings: Sequence[Timing]) -> Timing:
    """The fastest of those that beat the first, else the first."""
    better = [timing for timing in timings[1:] if timing.is_better]
    return min(better, key=lambda timing: timing.ratio, default=timings[0])
