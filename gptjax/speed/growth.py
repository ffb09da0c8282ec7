"""How the cost of an update grows with width, depth, context, batch and vocabulary."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path

import ml_collections
import numpy as np
from rich.console import Console
from rich.table import Table

from gptjax.config.config import set_knob, validate
from gptjax.explain.drawing import pyplot_for
from gptjax.speed.stepper import Stepper
from gptjax.system.files import temporary_folder

# What one axis at a time is multiplied by.
_FACTORS = (1, 2, 4)

# Heads grow with the width, so that each stays as wide.
_KNOBS = {
    "width": ("model.n_embd", "model.n_head"),
    "depth": ("model.n_layer",),
    "context": ("model.block_size",),
    "batch": ("train.batch_size",),
}

# Symbols of the smallest text of the vocabulary's axis: characters from U+4E00 on, drawn evenly.
_VOCABULARY, _TEXT_LENGTH = 64, 200_000


@dataclasses.dataclass(frozen=True)
class Point:
    """An update's cost at one place of one axis.

    Attributes:
      axis, size: what was changed, and to what.
      seconds: of an update, median over pairs.
      slowdown: times the base config's seconds, measured in turns.
      flops, flops_growth: of an update, as XLA counts them, and times the base config's.
      mfu: share of the measured peak.
      memory_bytes: what the compiled update needs: state, text and temporary arrays.
    """

    axis: str
    size: int
    seconds: float
    slowdown: float
    flops: float
    flops_growth: float
    mfu: float
    memory_bytes: int

    @property
    def name(self) -> str:
        """`width 256`."""
        return f"{self.axis} {self.size}"


def measure(config: ml_collections.ConfigDict, *, n_pairs: int) -> Iterator[Point]:
    """Yields the points of all axes, each measured in turns with its axis' base."""
    with temporary_folder() as folder:
        for axis in (*_KNOBS, "vocabulary"):
            base = Stepper(_scaled(config, axis, 1, folder))
            for factor in _FACTORS:
                changed = _scaled(config, axis, factor, folder)
                yield _point(axis, _size(changed, axis, factor), Stepper(changed), base, n_pairs)


def _point(axis: str, size: int, stepper: Stepper, base: Stepper, n_pairs: int) -> Point:
    pairs = [(base.time_updates(), stepper.time_updates()) for _ in range(n_pairs)]
    seconds = statistics.median(after for _, after in pairs)
    flops = stepper.program.flops
    return Point(
        axis=axis,
        size=size,
        seconds=seconds,
        slowdown=statistics.median(after / before for before, after in pairs),
        flops=flops,
        flops_growth=flops / base.program.flops,
        mfu=stepper.mfu(seconds),
        memory_bytes=stepper.program.memory_bytes(),
    )


def _scaled(config, axis: str, factor: int, folder: Path) -> ml_collections.ConfigDict:
    config = config.copy_and_resolve_references()
    for name in _KNOBS.get(axis, ()):
        section, _, key = name.partition(".")
        set_knob(config, name, config[section][key] * factor)
    if axis == "vocabulary":
        set_knob(config, "data.source", f"text:{_text(folder, _VOCABULARY * factor)}")
    validate(config)
    return config


def _size(config: ml_collections.ConfigDict, axis: str, factor: int) -> int:
    if axis == "vocabulary":
        return _VOCABULARY * factor
    section, _, key = _KNOBS[axis][0].partition(".")
    return config[section][key]


def _text(folder: Path, n_symbols: int) -> Path:
    """A file of random text with so many different characters."""
    path = folder / f"{n_symbols}.txt"
    ids = np.random.default_rng(0).integers(0, n_symbols, _TEXT_LENGTH)
    ids[:n_symbols] = np.arange(n_symbols)
    path.write_text("".join(chr(0x4E00 + i) for i in ids), encoding="utf-8")
    return path


def print_table(points: list[Point]) -> None:
    """Prints the points, a row each."""
    columns = ("size", "ms an update", "times base", "GFLOP", "times base", "MFU", "memory")
    table = Table("", *columns)
    for point in points:
        table.add_row(
            point.axis,
            str(point.size),
            f"{1e3 * point.seconds:.1f}",
            f"{point.slowdown:.2f}",
            f"{point.flops / 1e9:.2f}",
            f"{point.flops_growth:.2f}",
            f"{100 * point.mfu:.0f} %",
            f"{point.memory_bytes / 2**20:.0f} MiB",
        )
    Console(highlight=False).print(table)


def plot(points: list[Point], path: str) -> None:
    """Draws seconds over each axis' size, beside what the FLOPs alone would have them be.

    Raises:
      UserError: if matplotlib is not installed.
    """
    pyplot = pyplot_for("--plot", path)
    axes = list(dict.fromkeys(point.axis for point in points))
    figure, panels = pyplot.subplots(
        1, len(axes), figsize=(3 * len(axes), 3), sharey=True, squeeze=False
    )
    for axis, panel in zip(axes, panels[0], strict=True):
        own = [point for point in points if point.axis == axis]
        sizes = [point.size for point in own]
        panel.loglog(sizes, [p.slowdown for p in own], "o-", label="time of an update")
        panel.loglog(sizes, [p.flops_growth for p in own], "--", label="its FLOPs")
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel(axis)
    panels[0][0].set_ylabel("times the base config's")
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
