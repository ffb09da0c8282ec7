"""What a ladder found, in a table and in sentences; the number first, the horizon in each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gptjax.explain.ladder_steps import Step
from gptjax.explain.shares import Estimate, Shares, rounded

# Steps that get a sentence of their own; the others share one. Eight sentences at most.
_MOST_OWN = 2

_DIGITS = 4


@dataclasses.dataclass(frozen=True)
class Horizon:
    """How long the short runs are: updates of both ends, and of their whole runs."""

    updates: tuple[int, int]
    whole: tuple[int, int]

    @property
    def at(self) -> str:
        """`at 280 updates`, or `at 112 → 280 updates` where the whole runs differ in length."""
        return f"at {_both(self.updates)} updates"

    @property
    def is_whole(self) -> bool:
        """Whether these are no short runs but the whole ones."""
        return self.updates == self.whole

    @property
    def words(self) -> str:
        """The same, with what part of the runs that is."""
        if self.is_whole:
            return f"{self.at} (the whole of both runs)"
        part = max(n / all_ for n, all_ in zip(self.updates, self.whole, strict=True))
        return f"{self.at} ({100 * part:.2g} % of each whole run)"


@dataclasses.dataclass(frozen=True)
class Reading:
    """The shares at a horizon."""

    horizon: Horizon
    shares: Shares

    @property
    def rounded(self) -> list[float]:
        """The shares as they are printed: they sum to the printed gap."""
        return rounded([share.mean for share in self.shares.shares], digits=_DIGITS)

    def share(self, i: int) -> str:
        """A step's share with its error bar."""
        return str(dataclasses.replace(self.shares.shares[i], mean=self.rounded[i]))

    def to_json(self, steps: Sequence[Step]) -> dict[str, Any]:
        """All numbers."""
        shares = self.shares
        return {
            "updates": list(self.horizon.updates),
            "whole": list(self.horizon.whole),
            "ends": [_json_of(end) for end in shares.ends],
            "gap": _json_of(shares.gap),
            "steps": [
                {
                    "name": step.name,
                    "share": _json_of(shares.shares[i]),
                    "interaction": _json_of(shares.interactions[i]),
                    "by_order": shares.difference_OS[:, i].tolist(),
                }
                for i, step in enumerate(steps)
            ],
        }


def _json_of(value: Estimate) -> dict[str, Any]:
    error = None if math.isnan(value.error) else value.error
    return {"mean": value.mean, "error": error, "is_beyond_noise": value.is_beyond_noise}


def _both(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,} → {pair[1]:,}"


def print_table(reading: Reading, steps: Sequence[Step]) -> None:
    """Prints each step with its share and interaction, and their sum."""
    table = Table("setting", "from → to", title=reading.horizon.words)
    table.add_column("share", justify="right")
    table.add_column("interaction", justify="right")
    for i, step in enumerate(steps):
        words = reading.share(i) + _noise(reading.shares.shares[i])
        interaction = reading.shares.interactions[i]
        together = f"{interaction}".removeprefix("+") + _noise(interaction)
        table.add_row(step.name, step.words, words, together if len(steps) > 1 else "")
    table.add_section()
    gap = reading.shares.gap
    table.add_row("the gap", "", f"{gap}{_noise(gap)}", "")
    Console(highlight=False).print(table)


def _noise(value: Estimate) -> str:
    return "" if value.is_beyond_noise or value.n_seeds < 2 else ", noise"


def sentences(
    readings: Sequence[Reading], steps: Sequence[Step], labels: tuple[str, str], *, unit: str
) -> list[str]:
    """What is to be said, the most important first; of the last reading, and how it came to it."""
    reading = readings[-1]
    found = [_of_the_gap(reading, labels, unit)]
    if reading.shares.gap.n_seeds < 2:
        listed = ", ".join(f"{reading.share(i)} {step.name}" for i, step in enumerate(steps))
        found.append(
            f"{listed}, {reading.horizon.at}, of one seed: without an error bar nothing is told "
            "from noise (--seeds 3)."
        )
    else:
        found += _of_steps(reading, steps) + _of_interaction(reading, steps)
        if len(readings) > 1:
            found += _of_change(readings[0], reading, steps)
    if not reading.horizon.is_whole:
        found.append(_of_length(reading, steps))
    return found


def _of_the_gap(reading: Reading, labels: tuple[str, str], unit: str) -> str:
    gap, (a, b) = reading.shares.gap, reading.shares.ends
    verdict = "is the gap" if gap.is_beyond_noise or gap.n_seeds < 2 else "is within noise: the gap"
    return (
        f"{gap} nats/{unit} {verdict} {reading.horizon.words}, from val {a.mean:.4f} with the "
        f"settings of {labels[0]} to {b.mean:.4f} with those of {labels[1]}."
    )


def _of_steps(reading: Reading, steps: Sequence[Step]) -> list[str]:
    """Steps beyond noise, the largest first; then those within."""
    shares, at = reading.shares.shares, reading.horizon.at
    by_size = sorted(range(len(steps)), key=lambda i: -abs(shares[i].mean))
    beyond = [i for i in by_size if shares[i].is_beyond_noise]
    found = [
        f"{reading.share(i)} {at} comes from {steps[i].name}: {steps[i].brief}."
        for i in beyond[:_MOST_OWN]
    ]
    if others := beyond[_MOST_OWN:]:
        listed = ", ".join(f"{reading.share(i)} from {steps[i].name}" for i in others)
        found.append(f"{listed}, {at} as well.")
    if within := [i for i in by_size if i not in beyond]:
        listed = ", ".join(f"{reading.share(i)} from {steps[i].name}" for i in within)
        found.append(f"{listed}: no difference beyond noise {at}.")
    return found


def _of_interaction(reading: Reading, steps: Sequence[Step]) -> list[str]:
    """The largest interaction beyond noise."""
    found = reading.shares.interactions
    beyond = [i for i in range(len(steps)) if found[i].is_beyond_noise]
    if not beyond:
        return []
    i = max(beyond, key=lambda i: found[i].mean)
    low, high = reading.shares.difference_OS[:, i].min(), reading.shares.difference_OS[:, i].max()
    return [
        f"{str(found[i]).removeprefix('+')} {reading.horizon.at} is interaction: {steps[i].name} "
        f"makes {low:+.4f} or {high:+.4f}, by what is switched before it."
    ]


def _of_change(early: Reading, late: Reading, steps: Sequence[Step]) -> list[str]:
    """Shares that moved beyond noise between two horizons."""
    moved = []
    for i, step in enumerate(steps):
        was, now = early.shares.shares[i], late.shares.shares[i]
        # The two have seeds in common, which makes their difference less noisy than this.
        error = math.hypot(was.error, now.error)
        if Estimate(now.mean - was.mean, error, now.n_seeds).is_beyond_noise:
            moved.append(f"{was.mean:+.4f} → {now.mean:+.4f} {step.name}")
    if not moved:
        return [f"No share {early.horizon.at} differs from that {late.horizon.at} beyond noise."]
    return [f"{', '.join(moved)}: shares that moved: {early.horizon.at}, and {late.horizon.at}."]


def _of_length(reading: Reading, steps: Sequence[Step]) -> str:
    words = f"Shares {reading.horizon.at} are not those at {_both(reading.horizon.whole)}"
    if any(step.name == "dropout" for step in steps):
        words += ": dropout costs a short run; what it is worth shows when a long one overfits"
    return words + "."
