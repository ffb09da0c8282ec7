"""What a plan found, in sentences: the first line, what may be wrong, what figures mean."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gptjax.device.place import Place
from gptjax.run.footprint import Footprint
from gptjax.run.progress import count
from gptjax.speed.fitting import Change
from gptjax.speed.outlook import ASSUMED_MFU, CHINCHILLA
from gptjax.speed.pace import Pace
from gptjax.speed.plan_record import Plan
from gptjax.speed.quantities import flops_words, long_duration, size

# On a quiet machine turns of the same updates are within a tenth of each other.
_STEADY = 1.3


def headline(plan: Plan) -> str:
    """Time, money, memory and disk in a line."""
    words = f"{long_duration(plan.times.total)} on {plan.where.n_devices} x {plan.where.name}"
    if plan.dollars:
        words += f", {plan.dollars:,.2f} dollars"
    if plan.measured and plan.where.platform == "cpu":
        words += f", {size(plan.measured.peak_bytes)} of memory"
    elif plan.simulated:
        words += f", {size(plan.simulated.footprint.total)} of each one's memory"
    return words + f", {size(plan.disk_bytes)} of disk"


def sentences(plan: Plan) -> Iterator[str]:
    """What the figures mean, and what of them is assumed."""
    counts = plan.counts
    best = CHINCHILLA * counts.n_params
    n_updates = math.ceil(best / counts.update_tokens)
    yield (
        f"A model of this size is best for its compute after about {count(best)} tokens "
        f"({CHINCHILLA} a parameter), {n_updates:,} updates; this run sees {count(counts.tokens)}."
    )
    if plan.data.n_tokens["train"] == 0:
        yield f"Assumed: {plan.data.source}. Its length, epochs and memory are not known."
    if not plan.measured:
        yield (
            f"Nothing was timed: an update is {flops_words(counts.update_flops)}, "
            f"{plan.where.n_devices} x {plan.where.name} could do "
            f"{plan.where.flops_per_s / 1e12:,.4g} TFLOP/s ({plan.where.peak_source}), of which "
            f"{100 * ASSUMED_MFU:.0f} % are assumed to be used. Half or twice the time is possible."
        )
    if plan.where.platform == "gpu" and not plan.where.is_here:
        yield (
            "Memory is that of a program for a CPU in the card's place, with XLA's attention: more "
            "than a card needs, up to several times as much in bfloat16 with cuDNN's attention."
        )
    if plan.simulated and plan.simulated.traffic:
        yield (
            "What is sent is by XLA's CPU compiler, passed on in a ring; a GPU's may add up and "
            "cut in one, which sends half of an all-reduce. Its time is in no figure above."
        )


def will_not_fit(found: Footprint, where: Place, change: Change | None) -> str:
    """The warning, with what fits."""
    is_here = where.is_here or where.platform == "cpu"
    words = (
        f"{'will' if is_here else 'may'} not fit: an update needs {size(found.total)} of each "
        f"device, which has {size(where.memory_bytes)} ({where.memory_source}). "
    )
    if change is None:
        return words + "No smaller micro-batch fits: lower n_layer or n_embd, or use more devices"
    return words + (
        f"The smallest change that fits, found by compiling: {change.in_words()}, "
        f"{size(change.footprint.total)}"
    )


def unsteady(measured: Pace) -> list[str]:
    """The warning that other work disturbed what was timed, if it did."""
    fastest, slowest = min(measured.update_seconds), max(measured.update_seconds)
    if slowest <= _STEADY * fastest:
        return []
    times = f"{1e3 * fastest:.3g} to {1e3 * slowest:.3g} ms"
    return [f"an update took {times}: something else is at work here, and times are rough"]


def spread(measured: Pace) -> str:
    """How many updates were timed, and how far they are apart."""
    ms = [1e3 * seconds for seconds in measured.update_seconds]
    n = "an update" if measured.n_updates == 1 else f"{measured.n_updates} updates"
    return (
        f"median of {len(ms)} times {n}, {min(ms):.3g} to {max(ms):.3g} ms; MFU "
        f"{100 * measured.mfu:.0f} % of {measured.peak_flops_per_s / 1e9:,.0f} GFLOP/s"
    )
