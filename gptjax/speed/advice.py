"""Which settings suit a machine, and why: from what was measured of it, to words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from gptjax.device.cores import list_of
from gptjax.run.progress import duration
from gptjax.speed.timing import Timing, best

# The recipe that the others' times are reckoned from, and its update, ms, when they took the
# seconds below, from the command to the last line. Source: README.md, its run and its picture.
LAPTOP = "configs/shakespeare_char.py"
_LAPTOP_MS = 40.4

# Recipes for a CPU, the best val first: file, seconds, val. Source: docs/recipes.md.
_RECIPES = (
    ("configs/shakespeare_char_best.py", 706, "1.44"),
    ("configs/shakespeare_char_fast.py", 136, "1.56"),
    (LAPTOP, 99, "1.90"),
)
_FOR_GPU = "configs/shakespeare_char_gpu.py"

# train.py warns of runs that are longer.
_LONG_SECONDS = 15 * 60

# No taskset, no flags.
NONE = "none"

# Of the products' rates: below that the whole update cannot gain what is worth a change.
WORTH_TRYING = 1.2


@dataclasses.dataclass(frozen=True)
class Setting:
    """What to set, to what, and why."""

    name: str
    value: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Measured:
    """What the advice rests on.

    Attributes:
      platform: "cpu" or "gpu".
      config, dtype, max_iters: the recipe's file and two of its knobs.
      timings: of its updates; empty if none was made.
      rates: FLOP/s of matrix products by type.
      dispatch_us: microseconds of a call.
      xla_flags: what the environment sets.
      is_busy: whether other work was running, so that times are not to be trusted.
    """

    platform: str
    config: str
    dtype: str
    max_iters: int
    timings: Sequence[Timing]
    rates: Mapping[str, float]
    dispatch_us: float
    xla_flags: str
    is_busy: bool

    @property
    def of_cpus(self) -> list[Timing]:
        """All CPUs and then fewer, in the recipe's own type."""
        return [each for each in self.timings if each.variant.dtype == self.dtype]

    @property
    def of_dtypes(self) -> list[Timing]:
        """All CPUs, in the recipe's own type and then in the other."""
        return [each for each in self.timings if each.variant.cpus == self.timings[0].variant.cpus]


def other_dtype(dtype: str) -> str:
    """What a type is measured beside."""
    return "float32" if dtype == "bfloat16" else "bfloat16"


def is_worth_trying(dtype: str, rates: Mapping[str, float]) -> bool:
    """Whether products in a type are that much faster than in the other that updates may be."""
    return rates[dtype] > WORTH_TRYING * rates[other_dtype(dtype)]


def settings(measured: Measured) -> list[Setting]:
    """What to set on this machine: the recipe, cores, type, calls and flags."""
    return [
        _recipe(measured),
        _cores(measured),
        _dtype(measured),
        Setting(
            "updates_per_dispatch",
            "0",
            "the default, about a second of updates a call; "
            f"a call by itself takes {measured.dispatch_us:.1f} µs",
        ),
        _flags(measured),
    ]


def to_json(measured: Measured) -> dict[str, Any]:
    """The line to train with and every setting, as JSON has it."""
    chosen = [dataclasses.asdict(setting) for setting in settings(measured)]
    return {"command": command(measured), "settings": chosen}


def command(measured: Measured) -> str:
    """The line to train with."""
    recipe, cores, dtype, *_ = settings(measured)
    taskset = f"taskset {cores.value} " if cores.value != NONE else ""
    own = "bfloat16" if recipe.value == _FOR_GPU else measured.dtype
    knob = f" --config.model.dtype={dtype.value}" if dtype.value != own else ""
    return f"{taskset}python scripts/train.py --config {recipe.value}{knob}"


def _recipe(measured: Measured) -> Setting:
    if measured.platform != "cpu":
        return Setting("config", _FOR_GPU, "the recipe made for a GPU")
    timed = [each for each in measured.timings if each.ms]
    if not timed and measured.config != LAPTOP:
        return Setting("config", measured.config, "as given; its updates were not timed")
    if not timed:
        name, seconds, val = _RECIPES[1]
        reason = f"val {val}; {duration(seconds)} on two cores, not timed here"
        return Setting("config", name, reason)
    update_ms = (timed[0] if measured.is_busy else best(timed)).update_ms
    if measured.config != LAPTOP:
        whole = duration(measured.max_iters * update_ms / 1e3)
        reason = f"as given: {measured.max_iters:,} updates take {whole}, evaluations not counted"
        return Setting("config", measured.config, reason)
    times = update_ms / _LAPTOP_MS
    fitting = [recipe for recipe in _RECIPES if recipe[1] * times <= _LONG_SECONDS]
    name, seconds, val = fitting[0] if fitting else _RECIPES[-1]
    reason = f"val {val} in about {duration(seconds * times)}, reckoned from {update_ms:.3g} ms "
    return Setting("config", name, reason + "an update of the laptop recipe")


def _cores(measured: Measured) -> Setting:
    if measured.platform != "cpu":
        return Setting("taskset", NONE, "updates are made on the GPU")
    timed = measured.of_cpus
    if not timed or not timed[0].ms:
        return Setting("taskset", NONE, "not measured")
    others = [each for each in timed if each.ratios]
    if not others:
        reason = "there is one CPU" if len(timed) == 1 else "fewer CPUs were not measured"
        return Setting("taskset", NONE, reason)
    chosen = best(timed)
    if chosen is timed[0]:
        closest = min(others, key=lambda each: each.ratio)
        reason = f"an update takes {closest.ratio:.2f}x the time on {_cpus(closest)}"
        if closest.ratio < 1:
            reason += ", which is within noise"
        return Setting("taskset", NONE, reason)
    if measured.is_busy:
        reason = f"{_cpus(chosen)} did better than all, but other work was running: try again later"
        return Setting("taskset", NONE, reason)
    reason = f"there an update takes {chosen.ratio:.2f}x the time that it takes on all CPUs"
    return Setting("taskset", f"-c {list_of(chosen.variant.cpus)}", reason)


def _cpus(timing: Timing) -> str:
    n_cpus = len(timing.variant.cpus)
    return f"{n_cpus} CPU{'s' * (n_cpus != 1)}"


def _dtype(measured: Measured) -> Setting:
    own, other = measured.dtype, other_dtype(measured.dtype)
    for timing in measured.of_dtypes:
        if timing.variant.dtype == other and timing.ratios:
            reason = f"updates in {other} take {timing.ratio:.2f}x the time of {own}"
            is_better = timing.is_better and not measured.is_busy
            return Setting("dtype", other if is_better else own, reason)
    speed = measured.rates["bfloat16"] / measured.rates["float32"]
    reason = f"bfloat16's matrix products run at {speed:.2g}x the rate of float32's"
    if speed < WORTH_TRYING:
        return Setting("dtype", "float32", reason)
    is_known = measured.platform != "cpu" or own == "bfloat16"
    reason += "" if is_known else ", but updates were not timed"
    return Setting("dtype", "bfloat16" if is_known else own, reason)


def _flags(measured: Measured) -> Setting:
    reason = "none that was tried makes updates faster (BENCHMARKS.md)"
    if measured.xla_flags:
        reason = f"XLA_FLAGS is set now; {reason}"
    return Setting("XLA_FLAGS", NONE, reason)
