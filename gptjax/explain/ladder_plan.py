"""How long short runs may be, and how many seeds there are time for: pure."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence

from gptjax.run.progress import duration
from gptjax.system.errors import UserError

# Seeds where there is time for them, the fewest that have an error bar, and the most.
_SEEDS, _FEWEST_SEEDS, _MOST_SEEDS = 3, 2, 10

# Shorter runs than that tell about the warmup.
_LEAST_UPDATES = 50


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a rung takes.

    Attributes:
      n_updates: of the whole run.
      update_seconds: an update.
      run_seconds: what each run takes besides: its start and its evaluation.
      compile_seconds: once for all its runs.
    """

    n_updates: int
    update_seconds: float
    run_seconds: float
    compile_seconds: float

    def seconds(self, share: float) -> float:
        """Of a run as long as a share of the whole one."""
        return share * self.n_updates * self.update_seconds + self.run_seconds


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a ladder runs.

    Attributes:
      shares: of the whole runs; the last is the horizon, one before it half of that.
      n_seeds: of every rung.
      seconds: what all of it takes, about.
    """

    shares: tuple[float, ...]
    n_seeds: int
    seconds: float


def budget_seconds(text: str, *, flag: str = "--budget") -> float:
    """Seconds of `10m`, `90s`, `1h30m` or `600`.

    Raises:
      UserError: if it is none of these, or no time at all.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text)
    hours, minutes, seconds = (int(part or 0) for part in (found.groups() if found else "000"))
    total = 3600 * hours + 60 * minutes + seconds
    if not total:
        raise UserError(flag, repr(text), "must be a time", "Try 10m, 90s or 1h30m.")
    return float(total)


def plan(costs: Sequence[Cost], *, budget: float, n_seeds: int) -> Plan:
    """The longest runs that a budget in seconds allows; `n_seeds` 0: as it allows.

    Three seeds and, to see where the shares are heading, the half horizon as well; where there is
    no time for that, the full one alone, then two seeds. Whole runs that leave time get more seeds.

    Raises:
      UserError: if there is no time for any of it.
    """
    counts = [n_seeds] if n_seeds else [_SEEDS, _FEWEST_SEEDS]
    choices = [(counts[0], 2), *((n, 1) for n in counts)]
    shortest = min(cost.n_updates for cost in costs)
    for n, n_horizons in choices:
        least = min(_LEAST_UPDATES, max(1, shortest // n_horizons)) * n_horizons
        share = _longest(costs, budget, n, n_horizons)
        n_updates = shortest if share >= 1 else rounded_down(share * shortest)
        if n_updates < least:
            continue
        share = n_updates / shortest
        while not n_seeds and share == 1 and n < _MOST_SEEDS:
            if _total(costs, share, n + 1, n_horizons) > budget:
                break
            n += 1
        shares = (share / 2, share)[2 - n_horizons :]
        return Plan(shares, n, _total(costs, share, n, n_horizons))
    n, n_horizons = choices[-1]
    least = min(_LEAST_UPDATES, shortest)
    needed = _total(costs, least / shortest, n, n_horizons)
    raise UserError(
        "--budget",
        duration(budget),
        f"{n} seeds of {len(costs)} configs, {least} updates each, take {duration(needed)}",
        f"Give --budget={math.ceil(needed / 60 * 1.1)}m or more, or smaller experiments.",
    )


def seconds_left(expected: Sequence[float], index: int, part: float, *, passed: float) -> float:
    """Of runs that were expected to take so many seconds each: what is still to come.

    `index` runs and a part of the next are made, in `passed` seconds: by how much these are off,
    the others are taken to be. Of the first run's beginning, which compiles, nothing is learnt.
    """
    done = sum(expected[:index]) + part * expected[index]
    left = sum(expected) - done
    return left * passed / done if index else left


def _total(costs: Sequence[Cost], share: float, n_seeds: int, n_horizons: int) -> float:
    """Seconds of all runs, those of half the length among them where there are two horizons."""
    shares = (share, share / 2)[:n_horizons]
    compiling = sum(cost.compile_seconds for cost in costs)
    return compiling + n_seeds * sum(cost.seconds(each) for each in shares for cost in costs)


def _longest(costs: Sequence[Cost], budget: float, n_seeds: int, n_horizons: int) -> float:
    """The share that takes the whole budget; seconds grow evenly with it."""
    fixed = _total(costs, 0, n_seeds, n_horizons)
    return (budget - fixed) / (_total(costs, 1, n_seeds, n_horizons) - fixed)


def rounded_down(value: float) -> int:
    """The next number below with two digits, and an even one, that has a half: 287.3 gives 280."""
    whole = max(0, int(value))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // (2 * unit) * 2 * unit
