"""A finding: one thing that follows from runs' numbers, with those numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

# Two numbers differ when they are further apart than so many standard deviations of noise.
BEYOND = 2.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """What follows from the numbers of one run or two.

    Attributes:
      kind: which sentence tells it, by name.
      values: what the sentence names, by name: numbers in SI units or nats, labels, words.
      size: how much of a loss it is about, nats; decides what is told first among its rank.
      rank: 0 to 9; a smaller one is told first whatever the sizes.
      parts: findings that are told in the same sentence.
      topic: findings of one topic are told together; "" for none.
    """

    kind: str
    values: Mapping[str, Any]
    size: float = 0.0
    rank: int = 5
    parts: tuple[Finding, ...] = ()
    topic: str = ""


@dataclasses.dataclass(frozen=True)
class Noise:
    """The standard deviation that chance alone gives a difference, and what is not known of it.

    Attributes:
      sd: root of the sum of the squares of what is known, nats.
      unknown: kinds whose size is not known: `estimate`, `seed`.
    """

    sd: float
    unknown: tuple[str, ...] = ()

    def is_passed_by(self, difference: float) -> bool:
        """Whether a difference is beyond noise."""
        return abs(difference) > BEYOND * self.sd

    @classmethod
    def of(cls, *, estimate: Iterable[float], seed: Iterable[float]) -> Noise:
        """From standard deviations by kind, NaN where not known; none: a kind does not apply."""
        known, unknown = [], []
        for kind, values in (("estimate", list(estimate)), ("seed", list(seed))):
            known += [value for value in values if math.isfinite(value)]
            if not all(map(math.isfinite, values)):
                unknown.append(kind)
        return cls(math.hypot(*known) if known else 0.0, tuple(unknown))
