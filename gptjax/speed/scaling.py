"""How fast updates are over more and more devices, with a whole state on each, and one split."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator

import ml_collections
from rich.console import Console
from rich.table import Table

from gptjax.config.config import set_knob
from gptjax.device.devices import available_devices
from gptjax.explain.drawing import pyplot_for
from gptjax.speed.stepper import Stepper
from gptjax.system.errors import UserError

# How the state lies, in a picture's words.
_WAYS = {False: "the state on each", True: "the state split"}


@dataclasses.dataclass(frozen=True)
class Point:
    """The same update, made by some of the devices.

    Attributes:
      n_devices: how many.
      is_split: whether the state is split over them (mesh.fsdp), or on each (mesh.data).
      seconds: of an update, median over pairs.
      speedup: times one device's speed, measured in turns.
      tokens_per_s: of all of them.
      mfu: share of their measured peak.
      memory_bytes: what the compiled update needs on each: state, text and temporary arrays.
    """

    n_devices: int
    is_split: bool
    seconds: float
    speedup: float
    tokens_per_s: float
    mfu: float
    memory_bytes: int

    @property
    def name(self) -> str:
        """`4 devices, the state split`."""
        one = self.n_devices == 1
        return "1 device" if one else f"{self.n_devices} devices, {_WAYS[self.is_split]}"


def measure(config: ml_collections.ConfigDict, *, n_pairs: int) -> Iterator[Point]:
    """Yields the points of 1, 2, 4, … devices, as far as a micro-batch splits evenly over them.

    Raises:
      UserError: if that is one device alone.
    """
    found, _ = available_devices(config.mesh.cpu_devices, config.mesh.gpu_memory)
    micro_batch = config.train.batch_size // config.train.grad_accum_steps
    counts = fitting_counts(len(found), micro_batch)
    if len(counts) == 1:
        raise UserError(
            "--what scaling",
            f"{len(found)} devices",
            f"needs several, and a micro-batch ({micro_batch}) that splits over them",
            "Set --config.mesh.cpu_devices=4." if found[0].platform == "cpu" else "",
        )
    one = Stepper(_over(config, 1, 1))
    for n_devices in counts:
        yield _point(n_devices, False, one, config, n_pairs)
        if n_devices > 1:
            yield _point(n_devices, True, one, config, n_pairs)


def fitting_counts(n_found: int, micro_batch: int) -> list[int]:
    """1, 2, 4, … and all devices, those of them that a micro-batch splits evenly over."""
    powers = {2**power for power in range(n_found.bit_length())}
    return sorted(n for n in powers | {n_found} if n <= n_found and micro_batch % n == 0)


def _point(
    n_devices: int,
    is_split: bool,
    one: Stepper,
    config: ml_collections.ConfigDict,
    n_pairs: int,
) -> Point:
    mesh = (1, n_devices) if is_split else (n_devices, 1)
    stepper = one if n_devices == 1 else Stepper(_over(config, *mesh))
    pairs = [(one.time_updates(), stepper.time_updates()) for _ in range(n_pairs)]
    seconds = statistics.median(after for _, after in pairs)
    return Point(
        n_devices=n_devices,
        is_split=is_split,
        seconds=seconds,
        speedup=statistics.median(before / after for before, after in pairs),
        tokens_per_s=stepper.program.n_tokens / seconds,
        mfu=stepper.mfu(seconds),
        memory_bytes=stepper.program.memory_bytes(),
    )


def _over(config: ml_collections.ConfigDict, data: int, fsdp: int) -> ml_collections.ConfigDict:
    config = config.copy_and_resolve_references()
    set_knob(config, "mesh.data", data)
    set_knob(config, "mesh.fsdp", fsdp)
    return config


def print_table(points: list[Point]) -> None:
    """Prints the points, a row each."""
    columns = ("", "ms an update", "tokens/s", "times one", "MFU", "memory of each")
    table = Table("devices", *columns)
    for point in points:
        table.add_row(
            str(point.n_devices),
            _WAYS[point.is_split] if point.n_devices > 1 else "",
            f"{1e3 * point.seconds:.1f}",
            f"{point.tokens_per_s:,.0f}",
            f"{point.speedup:.2f}",
            f"{100 * point.mfu:.0f} %",
            f"{point.memory_bytes / 2**20:.0f} MiB",
        )
    Console(highlight=False).print(table)


def plot(points: list[Point], path: str) -> None:
    """Draws speed over devices, beside what as many times the speed of one would be.

    Raises:
      UserError: if matplotlib is not installed.
    """
    pyplot = pyplot_for("--plot", path)
    figure, panel = pyplot.subplots(figsize=(5, 4))
    counts = sorted({point.n_devices for point in points})
    one = next(point for point in points if point.n_devices == 1)
    for is_split, words in _WAYS.items():
        own = [one, *(p for p in points if p.is_split is is_split and p.n_devices > 1)]
        sizes, speeds = [p.n_devices for p in own], [p.tokens_per_s for p in own]
        panel.loglog(sizes, speeds, "s--" if is_split else "o-", label=words)
    ideal = [n * one.tokens_per_s for n in counts]
    panel.loglog(counts, ideal, ":", color="grey", label="times as fast as one")
    panel.set_xticks(counts, [str(n) for n in counts])
    panel.minorticks_off()
    panel.set_xlabel("devices")
    panel.set_ylabel("tokens per second")
    panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
