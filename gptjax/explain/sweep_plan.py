"""Which members of a sweep there is time for, and how long they may be: pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gptjax.explain.ladder_plan import rounded_down
from gptjax.explain.ladder_steps import shortened
from gptjax.run.progress import duration
from gptjax.system.errors import UserError

# Of the longest member; three lengths are the fewest that show a curve.
SHARES = (0.25, 0.5, 1.0)

# Shorter runs tell about their beginning alone.
_LEAST_UPDATES = 40

# The budget's part that is planned with: updates slow down when a machine is used otherwise.
_PLANNED = 0.9


@dataclasses.dataclass(frozen=True)
class MemberCost:
    """What a member takes, measured with others of its size.

    Attributes:
      update_seconds: an update.
      run_seconds: what each run takes besides: its start, its evaluation, its checkpoint.
      alone_seconds: an update of a run that has the device for itself; 0: the same.
    """

    update_seconds: float
    run_seconds: float
    alone_seconds: float = 0.0

    def seconds(self, n_updates: int) -> float:
        """Of a whole run."""
        return n_updates * self.update_seconds + self.run_seconds


def left_seconds(budget: float, spent: float) -> float:
    """What is planned with of a budget of which some is spent."""
    return _PLANNED * (budget - spent)


def lengths(cost: MemberCost, seconds: float) -> tuple[int, ...]:
    """Updates of the members of a size whose longest is to take so long."""
    longest = rounded_down(seconds / cost.update_seconds)
    return tuple(max(1, round(share * longest)) for share in SHARES)


def longest_seconds(
    costs: Sequence[MemberCost], *, budget: float, spent: float, run_seconds: float
) -> float:
    """How long the longest of three lengths may take, where every one of `costs` has all three.

    As long as the run that the sweep is for, if there is time.

    Raises:
      UserError: if there is no time for runs that tell anything.
    """
    besides = len(SHARES) * sum(cost.run_seconds for cost in costs)
    each = len(costs) * sum(SHARES)
    found = min((left_seconds(budget, spent) - besides) / each, run_seconds)
    slowest = max(cost.update_seconds for cost in costs)
    least = max(run_seconds / 10, _LEAST_UPDATES / SHARES[0] * slowest)
    if found < least:
        needed = (least * each + besides) / _PLANNED + spent
        raise UserError(
            "--budget",
            duration(budget),
            f"{len(costs) * len(SHARES)} members, the longest at least {duration(least)}, take "
            f"{duration(needed)}",
            f"Give --budget={math.ceil(needed / 60 * 1.1)}m or more, or a shorter --run_time.",
        )
    return found


def resized(values: Mapping[str, Any], n_updates: int) -> dict[str, Any]:
    """A recipe with another number of updates: its warmup and its decay in proportion."""
    changed = shortened(values, n_updates / values["train.max_iters"])
    return {**changed, "train.max_iters": n_updates}


def fitting(
    seconds: Sequence[float], turns: Sequence[int], *, budget: float, spent: float
) -> list[int]:
    """The places of the members that there is time for, in their order.

    The first turn of all before the second, and of each the shortest first. Once one does not fit,
    none behind it is taken: what is left out are the longest of the last turn.
    """
    order = sorted(range(len(seconds)), key=lambda i: (turns[i], seconds[i]))
    found, left = [], left_seconds(budget, spent)
    for index in order:
        left -= seconds[index]
        if left < 0:
            break
        found.append(index)
    return found
