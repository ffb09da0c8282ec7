"""Two programs' measurements, compared by the ratios of pairs.

Measured in turns, A B A B …, so that a machine that slows down for a minute slows both. A ratio
above 1 says that the first, gptjax, is faster.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from rich.console import Console
from rich.table import Table

from gptjax.run.progress import counted
from gptjax.speed.nanogpt import NanoGPT
from gptjax.speed.process import script


@dataclasses.dataclass(frozen=True)
class Setup:
    """What is measured, and with whom it is compared.

    Attributes:
      config, peer_config: of our side and of nanoGPT's.
      given: the command line's arguments that gave `config`.
      nanogpt: the checkout, None to measure alone.
      pairs: how many times each side is measured.
    """

    config: ml_collections.ConfigDict
    peer_config: ml_collections.ConfigDict
    given: list[str]
    nanogpt: NanoGPT | None
    pairs: int

    def turns(self, what: str) -> Iterable[int]:
        """A number for each pair; says on stderr how many are done and what is left."""
        return counted(range(self.pairs), self.pairs, what, every=0.0)

    def training(self, folder: str | Path, *more: str) -> list[str]:
        """The command that trains our config in a folder."""
        return script("train", *self.given, f"--config.out_dir={folder}/gptjax", *more)


@dataclasses.dataclass(frozen=True)
class Side:
    """One program's measurements of one quantity, smaller is better; peak resident bytes."""

    name: str
    values: list[float]
    peak_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The values with their median, as JSON has them."""
        return {**dataclasses.asdict(self), "median": statistics.median(self.values)}


def comparison(sides: Sequence[Side], unit: str) -> dict[str, Any]:
    """The sides' measurements, and the ratios of the others to the first, pair by pair."""
    ratios = {}
    for side in sides[1:]:
        pairs = [b / a for a, b in zip(sides[0].values, side.values, strict=True)]
        ratios[side.name] = {"median": statistics.median(pairs), "all": pairs}
    found: dict[str, Any] = {"unit": unit, "sides": [side.to_json() for side in sides]}
    return found | ({"ratios": ratios} if ratios else {})


def slowdowns(quiet: Sequence[Side], busy: Sequence[Side]) -> dict[str, float]:
    """How many times as long each side takes where it is disturbed, median of the pairs."""
    return {
        one.name: statistics.median(b / a for a, b in zip(one.values, other.values, strict=True))
        for one, other in zip(quiet, busy, strict=True)
    }


def print_comparison(found: dict[str, Any]) -> None:
    """Prints a table of what `comparison` returned."""
    table = Table("", found["unit"], "lowest", "highest", "peak memory", "ratio of pairs")
    for side in found["sides"]:
        of_pairs = ""
        if ratios := found.get("ratios", {}).get(side["name"]):
            lowest, highest = min(ratios["all"]), max(ratios["all"])
            of_pairs = f"{ratios['median']:.2f}x ({lowest:.2f} to {highest:.2f})"
        table.add_row(
            side["name"],
            f"{side['median']:.4g}",
            f"{min(side['values']):.4g}",
            f"{max(side['values']):.4g}",
            f"{side['peak_bytes'] / 2**20:.0f} MiB" if side["peak_bytes"] else "",
            of_pairs,
        )
    Console(highlight=False).print(table)
