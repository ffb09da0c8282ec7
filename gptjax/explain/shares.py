"""A gap between two experiments, divided among the steps between them: pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from gptjax.explain.ladder_steps import rungs

# Student's t: of so many seeds, less one, how many standard errors a mean is off in one case of
# twenty. Of more seeds it is smaller still: the last is used.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds, with its standard error: NaN for a single seed."""

    mean: float
    error: float
    n_seeds: int

    @property
    def is_beyond_noise(self) -> bool:
        """Whether seeds alone would give this in less than one case of twenty."""
        if self.n_seeds < 2:
            return False
        return abs(self.mean) > _T[min(self.n_seeds - 1, len(_T)) - 1] * self.error

    def __str__(self) -> str:
        return f"{self.mean:+.4f}" + ("" if math.isnan(self.error) else f" ± {self.error:.4f}")


def estimate(values_R: np.ndarray) -> Estimate:
    """Of one value a seed."""
    n = len(values_R)
    error = float(values_R.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return Estimate(float(values_R.mean()), error, n)


@dataclasses.dataclass(frozen=True)
class Shares:
    """How a gap is made up; nats per token, the second end less the first.

    Attributes:
      ends: val of both.
      gap: their difference.
      shares: of each step, the mean of its differences over the orders; they sum to the gap.
      interactions: of each step, how far apart the highest and the lowest of these differences are.
      difference_OS: of each order and step, the mean over seeds.
    """

    ends: tuple[Estimate, Estimate]
    gap: Estimate
    shares: tuple[Estimate, ...]
    interactions: tuple[Estimate, ...]
    difference_OS: np.ndarray


def shares(losses: Mapping[frozenset[int], np.ndarray], orders: Sequence[Sequence[int]]) -> Shares:
    """The shares of steps, from val of every rung of the orders: an array with a value a seed.

    The seeds are the same for every rung, so that what a seed does to all of them cancels. The mean
    over all orders is Shapley's value (Shapley 1953, A Value for n-Person Games); over some of them
    it is an estimate of that which sums to the gap as well.
    """
    first_R, last_R = losses[frozenset()], losses[frozenset(orders[0])]
    difference_ORS = np.empty((len(orders), len(first_R), len(orders[0])))
    for difference_RS, order in zip(difference_ORS, orders, strict=True):
        steps_up = [losses[switched] for switched in rungs(order)]
        for place, i in enumerate(order):
            difference_RS[:, i] = steps_up[place + 1] - steps_up[place]
    difference_OS = difference_ORS.mean(axis=1)
    high_S, low_S = difference_OS.argmax(axis=0), difference_OS.argmin(axis=0)
    return Shares(
        ends=(estimate(first_R), estimate(last_R)),
        gap=estimate(last_R - first_R),
        shares=tuple(map(estimate, difference_ORS.mean(axis=0).T)),
        interactions=tuple(
            estimate(difference_ORS[high, :, i] - difference_ORS[low, :, i])
            for i, (high, low) in enumerate(zip(high_S, low_S, strict=True))
        ),
        difference_OS=difference_OS,
    )


def rounded(values: Sequence[float], *, digits: int) -> list[float]:
    """The values rounded such that they sum to their rounded sum.

    Those whose rounding is off the most are rounded the other way.
    """
    unit = 10.0**-digits
    found = [round(value, digits) for value in values]
    off = round((round(math.fsum(values), digits) - math.fsum(found)) / unit)
    side = math.copysign(1, off)
    by_loss = sorted(range(len(values)), key=lambda i: -side * (values[i] - found[i]))
    for i in by_loss[: abs(off)]:
        found[i] = round(found[i] + side * unit, digits)
    return found
