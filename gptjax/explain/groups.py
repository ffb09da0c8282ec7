"""Runs that differ in the seed alone, taken together: their mean curve and their spread. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from gptjax.explain.differences import compare_settings
from gptjax.explain.series import Evaluations, Series


@dataclasses.dataclass(frozen=True)
class Group:
    """One run, or several that differ in the seed alone.

    Attributes:
      members: the runs.
      series: the run, or the members' mean: losses at equal updates, their errors those of a mean.
      deviation: standard deviation over seeds of the last val, nats; NaN for one run.
      spread: what the seed leaves open of the series' last val, nats: the deviation over the root
        of the number of members; NaN for one run.
    """

    members: tuple[Series, ...]
    series: Series
    deviation: float = math.nan

    @property
    def spread(self) -> float:
        return self.deviation / math.sqrt(len(self.members))


def grouped(runs: Sequence[Series]) -> list[Group]:
    """The runs in groups, in the order of their first members; never all in one.

    Two runs that differ in the seed alone are compared, not taken together, if they are all.
    """
    found: list[list[Series]] = []
    for run in runs:
        for group in found:
            if _is_same_but_for_the_seed(group[0], run):
                group.append(run)
                break
        else:
            found.append([run])
    if len(found) == 1:
        found = [[run] for run in runs]
    return [_group(members) for members in found]


def _is_same_but_for_the_seed(a: Series, b: Series) -> bool:
    settings = compare_settings(a, b)
    is_known = not any(name.startswith(("model.", "train.", "optim.")) for name in settings.unknown)
    has_settings = any(name.startswith("model.") for name in settings.equal)
    updates = (a.evaluations.update_E, b.evaluations.update_E)
    return (
        [each.group for each in settings.causes] == ["seed"]
        and is_known
        and has_settings
        and np.array_equal(*updates)
    )


def _group(members: Sequence[Series]) -> Group:
    first = members[0]
    if len(members) == 1:
        return Group((first,), first)
    evaluations = [each.evaluations for each in members]
    train_ME = np.array([each.train_E for each in evaluations])
    val_ME = np.array([each.val_E for each in evaluations])
    mean = Evaluations(
        update_E=first.evaluations.update_E,
        train_E=train_ME.mean(0),
        val_E=val_ME.mean(0),
        train_sem_E=_sem_of_mean([each.train_sem_E for each in evaluations]),
        val_sem_E=_sem_of_mean([each.val_sem_E for each in evaluations]),
        seconds_E=np.array([each.seconds_E for each in evaluations]).mean(0),
    )
    seeds = ", ".join(str(each.value("seed")) for each in members)
    note = f"the mean of {len(members)} runs with the seeds {seeds}"
    series = dataclasses.replace(
        first,
        label=f"{first.label} and {len(members) - 1} more",
        evaluations=mean,
        notes=(*first.notes, note),
    )
    return Group(tuple(members), series, float(val_ME[:, -1].std(ddof=1)))


def _sem_of_mean(sems: list[np.ndarray]) -> np.ndarray:
    """Of the estimate: all members are evaluated on the same windows, so it does not shrink."""
    return np.array(sems).mean(0)
