"""What is to be seen in each picture of runs, with its numbers, for those who do not see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gptjax.explain.plots import column, floors, tick
from gptjax.explain.series import AXES, Series
from gptjax.explain.time_plots import median_ms, ms_shown, seconds_shown


def losses(series: Sequence[Series], over: str, marks: Mapping[str, float]) -> str:
    """Of the losses over one of AXES."""
    said = [f"Loss in nats per token over {AXES[over]}."]
    said += [_losses_of(each, over) for each in series]
    lines = {**marks, **floors(series)}
    said += [f"A line across: {label}, {loss:.4f}." for label, loss in lines.items()]
    return " ".join(said)


def _losses_of(each: Series, over: str) -> str:
    evaluations, x_E, best, last = each.evaluations, each.x_E(over), each.best, each.last
    assert x_E is not None and best is not None and last is not None
    val_E, sem_E, train_E = evaluations.val_E, evaluations.val_sem_E, evaluations.train_E
    first = int(np.flatnonzero(np.isfinite(val_E))[0])

    def at(index: int) -> str:
        return f"{val_E[index]:.4f} at update {evaluations.update_E[index]:,.0f}"

    verb = "falls" if val_E[best] < val_E[first] else "rises"
    if first == best == last:
        words = f"Val of {each.label} is known once: {at(last)}"
    elif best == last:
        words = f"Val of {each.label} {verb} from {at(first)} to {at(last)}, its last and best"
    elif best == first:
        words = f"Val of {each.label} rises from {at(first)}, its best, to {at(last)}"
    else:
        words = (
            f"Val of {each.label} {verb} from {at(first)} to {at(best)}, its best, "
            f"and ends at {at(last)}"
        )
    if np.isfinite(sem_E[last]):
        words += f", standard error {sem_E[last]:.4f}"
    if over != "updates":
        words += f"; the end is at {tick(over, x_E[last])} {AXES[over].split()[0]}"
    if np.isfinite(train_E[last]):
        words += f"; train ends at {train_E[last]:.4f}"
    return words + "."


def updates(series: Sequence[Series], what: str) -> str:
    """Of the learning rates (`lr`) or gradient norms (`grad_norm`)."""
    said = [f"{'Learning rate' if what == 'lr' else 'Gradient norm before clipping'} over updates."]
    for each in series:
        y_U = column(each, what)
        is_known = np.isfinite(y_U)
        update, y = each.updates.update_U[is_known], y_U[is_known]
        top = int(np.argmax(y))
        words = (
            f"{each.label} starts at {y[0]:.3g}, is highest at update {update[top]:,.0f} with "
            f"{y[top]:.3g}, and ends at {y[-1]:.3g} at update {update[-1]:,.0f}"
        )
        if what == "grad_norm":
            words += f"; its median is {np.median(y):.3g}"
        said.append(words + ".")
    return " ".join(said)


def ledger(series: Sequence[Series]) -> str:
    """Of the bars of time by kind of work."""
    said = ["Time by kind of work, a bar a run."]
    for each in series:
        total = sum(each.times.ledger.values())
        parts = sorted(each.times.ledger.items(), key=lambda item: -item[1])
        words = ", ".join(
            f"{kind} {seconds_shown(seconds)} ({100 * seconds / total:.0f} %)"
            for kind, seconds in parts
            if seconds > 0
        )
        said.append(f"{each.label} took {seconds_shown(total)}: {words}.")
    return " ".join(said)


def update_times(series: Sequence[Series]) -> str:
    """Of what updates and evaluations took."""
    said = ["What an update took, a row a run, and what an evaluation took beside it."]
    for each in series:
        times = each.times
        words = f"An update of {each.label} took {ms_shown(median_ms(each))} in the median"
        if np.isfinite([times.update_ms_low, times.update_ms_high]).all():
            low, high = ms_shown(times.update_ms_low), ms_shown(times.update_ms_high)
            words += f", 5 to 95 % {low} to {high}"
        if times.evaluation_seconds > 0:
            words += f"; an evaluation took {seconds_shown(times.evaluation_seconds)}"
        said.append(words + ".")
    return " ".join(said)
