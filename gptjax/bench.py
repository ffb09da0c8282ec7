"""How fast: updates, whole runs, sampling and start-up, alone or in turns with nanoGPT.

Two programs are compared by the ratios of pairs: A B A B …, so that a machine that slows down for
a minute slows both. A ratio above 1 says that gptjax is faster.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich.console import Console
from rich.table import Table

from gptjax.device import mesh
from gptjax.run import runlog
from gptjax.speed import process, profile, scaling
from gptjax.speed.process import NanoGPT
from gptjax.speed.stepper import Stepper
from gptjax.system import cache
from gptjax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Side:
    """One program's measurements of one quantity, smaller is better; peak resident bytes."""

    name: str
    values: list[float]
    peak_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """The values with their median, as JSON has them."""
        return {**dataclasses.asdict(self), "median": statistics.median(self.values)}


def bench(
    config: ml_collections.ConfigDict,
    peer_config: ml_collections.ConfigDict,
    given: list[str],
    *,
    what: str,
    pairs: int,
    nanogpt: str | None,
    nanogpt_python: str,
    nanogpt_compile: bool,
    target: float,
    json: str | None,
    plot: str | None,
) -> None:
    """Prints how fast our config is and, with a nanoGPT checkout, how fast that one's is.

    `given` are the command line's arguments that gave `config`.

    Raises:
      UserError: for whatever train.py would refuse, or a checkout that cannot do the same.
    """
    if pairs < 1:
        raise UserError("--pairs", pairs, "must be ≥ 1")
    for flag, path in (("--json", json), ("--plot", plot)):
        if path and not Path(path).absolute().parent.is_dir():
            raise UserError(flag, path, "its folder does not exist")
    cache.keep_compiled_programs()
    if what == "profile":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {profile.WITHOUT_GRAPHS}"
    bytes_used, other = process.gpu_bytes_used(), None
    if nanogpt:
        device = "cpu" if _platform(config) == "cpu" else "cuda"
        other = NanoGPT(nanogpt, nanogpt_python, is_compiled=nanogpt_compile, device=device)
        other.check(peer_config)
    bench = Bench(config, peer_config, given, other, pairs, target, plot, bytes_used)
    results = {"what": what, "arguments": given, **bench.measure(what), "machine": _machine()}
    if json:
        runlog.write_atomically(Path(json), runlog.pretty_json(results))


def _platform(config: ml_collections.ConfigDict) -> str:
    """What JAX computes on; this process takes of a GPU's memory only what it needs from here on.

    There are others to come, whose own settings of that are left as they were.
    """
    before = dict(os.environ)
    devices, _ = mesh.available_devices(config.mesh.cpu_devices, gpu_memory=0.0)
    os.environ.clear()
    os.environ.update(before)
    return devices[0].platform


@dataclasses.dataclass(frozen=True)
class Bench:
    """What is measured, and with whom it is compared; runs of ours have one seed after another.

    Attributes:
      config, peer_config: of our side and of nanoGPT's.
      given: the command line's arguments that gave `config`.
      nanogpt: the checkout, None to measure alone.
      pairs: how many times each side is measured.
      target: val, nats per token, whose first time is reported of whole runs; 0 for none.
      plot: file for a picture of how cost grows, None for none.
      bytes_used: of the GPU's memory before this process took any.
    """

    config: ml_collections.ConfigDict
    peer_config: ml_collections.ConfigDict
    given: list[str]
    nanogpt: NanoGPT | None
    pairs: int
    target: float
    plot: str | None
    bytes_used: int

    def measure(self, what: str) -> dict[str, Any]:
        """Prints tables of the measurements and returns them, ready for JSON."""
        measurements = {
            "step": self._step,
            "profile": self._profile,
            "run": self._run,
            "sample": self._sample,
            "start": self._start,
            "scale": self._scale,
        }
        return measurements[what]()

    def _step(self) -> dict[str, Any]:
        stepper = Stepper(self.config)
        used_before = process.gpu_bytes_used() if self._is_on_gpu else 0
        ours: list[float] = []
        theirs: list[float] = []
        with contextlib.ExitStack() as stack:
            other = None
            if self.nanogpt:
                other = stack.enter_context(self.nanogpt.stepping(self.peer_config))
            for _ in self._turns("bursts"):
                ours.append(1e3 * stepper.burst())
                if other:
                    theirs.append(1e3 * other.burst(stepper.n_updates))
            if self._is_on_gpu and other:
                # Both as nvidia-smi sees them, with all that CUDA takes for itself.
                sides = [Side("gptjax", ours, max(0, used_before - self.bytes_used))]
                their_bytes = max(0, process.gpu_bytes_used() - used_before)
            elif self._is_on_gpu:
                sides = [Side("gptjax", ours, mesh.peak_memory_bytes(jax.devices()[0]))]
            else:
                sides = [Side("gptjax", ours, process.peak_bytes(os.getpid()))]
                their_bytes = other.peak_bytes() if other else 0
            if other:
                sides.append(Side("nanoGPT", theirs, their_bytes))
        results = _reported(sides, "ms an update")
        seconds, peak = statistics.median(ours) / 1e3, stepper.program.peak
        results |= {
            "n_updates_per_burst": stepper.n_updates,
            "tokens_per_s": stepper.program.n_tokens / seconds,
            "mfu": stepper.mfu(seconds),
            "peak": dataclasses.asdict(peak),
        }
        print(
            f"gptjax: {results['tokens_per_s']:,.0f} tokens/s, MFU {100 * results['mfu']:.1f} % of "
            f"{peak.flops_per_s / 1e9:.0f} GFLOP/s ({peak.source})"
        )
        if not self.nanogpt and not self._is_on_gpu:
            results["op_groups"] = profile.profile(stepper.program, stepper.n_updates)
            profile.print_table(results["op_groups"])
        return results

    def _profile(self) -> dict[str, Any]:
        stepper = Stepper(self.config)
        groups = profile.profile(stepper.program, stepper.n_updates)
        profile.print_table(groups)
        return {"op_groups": groups}

    @property
    def _is_on_gpu(self) -> bool:
        return jax.default_backend() != "cpu"

    def _run(self) -> dict[str, Any]:
        ours: list[process.Finished] = []
        theirs: list[process.Finished] = []
        for turn in self._turns("runs"):
            with tempfile.TemporaryDirectory() as folder:
                seed = f"--config.seed={self.config.seed + turn}"
                ours.append(process.run(self._training(folder, seed)))
                if self.nanogpt:
                    theirs.append(self.nanogpt.train(self.peer_config, f"{folder}/nanogpt"))
        sides = _sides(ours, theirs)
        results = _reported(sides, "s, whole process")
        results["runs"] = {}
        for side, runs in zip(sides, (ours, theirs), strict=False):
            vals = [run.evaluations()[-1][2] for run in runs]
            print(f"{side.name}: val {statistics.fmean(vals):.4f} at the end, mean of {vals}")
            best = [min(val for _, _, val in run.evaluations()) for run in runs]
            results["runs"][side.name] = {"val": vals, "best": best}
            if self.target:
                reached = [_seconds_to(run, self.target) for run in runs]
                print(f"{side.name}: val ≤ {self.target} after {reached} s")
                results["runs"][side.name]["seconds_to_target"] = reached
        return results

    def _turns(self, what: str) -> Iterator[int]:
        """One number per pair; says on stderr how many are done and what is left."""
        start = time.perf_counter()
        for turn in range(self.pairs):
            if turn:
                left = (time.perf_counter() - start) / turn * (self.pairs - turn)
                print(f"{turn} of {self.pairs} {what}, left {left:.0f} s", file=sys.stderr)
            yield turn

    def _training(self, folder: str, *more: str) -> list[str]:
        return process.script("train", *self.given, f"--config.out_dir={folder}/gptjax", *more)

    def _sample(self) -> dict[str, Any]:
        """Whole processes, and what is left of them without the time of one that writes little.

        Ours twice: as nanoGPT does it, and with a window that moves by half of itself.
        """
        strides = (1, max(1, self.config.model.block_size // 2))
        ours: dict[int, list[process.Finished]] = {stride: [] for stride in strides}
        theirs: list[process.Finished] = []
        starts: dict[object, list[float]] = {name: [] for name in (*strides, "nanoGPT")}
        with tempfile.TemporaryDirectory() as folder:
            process.run(self._training(folder, *_ONE_UPDATE, *_LEAST_EVALUATION))
            if self.nanogpt:
                self.nanogpt.train_once(self.peer_config, f"{folder}/nanogpt")
            for _ in self._turns("samples"):
                for stride in strides:
                    command = process.script("sample", f"--out_dir={folder}/gptjax")
                    command.append(f"--stride={stride}")
                    ours[stride].append(process.run(command))
                    starts[stride].append(process.run([*command, "--max_new_tokens=1"]).seconds)
                if self.nanogpt:
                    settings = {"out_dir": f"{folder}/nanogpt", "dtype": self.config.model.dtype}
                    theirs.append(self.nanogpt.sample(**settings, n_tokens=500))
                    start = self.nanogpt.sample(**settings, n_tokens=1)
                    starts["nanoGPT"].append(start.seconds)
        results = {}
        for stride in strides:
            whole = _sides(ours[stride], theirs)
            alone = [
                Side(side.name, [a - b for a, b in zip(side.values, start, strict=True)])
                for side, start in zip(whole, (starts[stride], starts["nanoGPT"]), strict=False)
            ]
            print(f"--stride {stride}")
            results[f"stride_{stride}"] = {
                "whole": _reported(whole, "s, 10 x 500 characters"),
                "without_start_up": _reported(alone, "s, start-up taken off"),
            }
        return results

    def _start(self) -> dict[str, Any]:
        cold: list[process.Finished] = []
        warm: list[process.Finished] = []
        theirs: list[process.Finished] = []
        helps = []
        for _ in self._turns("starts"):
            with tempfile.TemporaryDirectory() as folder:
                environment = {"GPTJAX_CACHE_DIR": f"{folder}/cache"}
                for runs in (cold, warm):
                    command = self._training(f"{folder}/{len(runs)}{runs is warm}", *_ONE_UPDATE)
                    runs.append(process.run(command, environment=environment))
                if self.nanogpt:
                    theirs.append(self.nanogpt.train_once(self.peer_config, f"{folder}/nanogpt"))
            helps.append(process.run(process.script("train", "--help")).seconds)

        def first_update(run: process.Finished) -> float:
            return run.first(r"^(step 1/|iter 0:)")

        sides = [
            Side("gptjax, warm", [first_update(run) for run in warm]),
            Side("gptjax, cold", [first_update(run) for run in cold]),
            Side("gptjax --help", helps),
        ]
        if theirs:
            sides.insert(1, Side("nanoGPT", [first_update(run) for run in theirs]))
        return _reported(sides, "s to the first update")

    def _scale(self) -> dict[str, Any]:
        points = []
        for point in scaling.measure(self.config, n_bursts=self.pairs):
            points.append(point)
            print(f"{point.axis} {point.size}: {1e3 * point.seconds:.1f} ms", file=sys.stderr)
        scaling.print_table(points)
        if self.plot:
            scaling.plot(points, self.plot)
        return {"points": [dataclasses.asdict(point) for point in points]}


# The recipe's start, without a warmup that would not fit.
_ONE_UPDATE = ("--config.train.max_iters=1", "--config.optim.warmup_iters=0")
_LEAST_EVALUATION = ("--config.eval.max_tokens=1000",)


def _seconds_to(run: process.Finished, target: float) -> float | None:
    return next((seconds for seconds, _, val in run.evaluations() if val <= target), None)


def _sides(ours: list[process.Finished], theirs: list[process.Finished]) -> list[Side]:
    return [
        Side(name, [run.seconds for run in runs], max(run.peak_bytes for run in runs))
        for name, runs in (("gptjax", ours), ("nanoGPT", theirs))
        if runs
    ]


def _reported(sides: Sequence[Side], unit: str) -> dict[str, Any]:
    """Prints a table of the sides; the second one's ratios to the first are of pairs."""
    table = Table("", unit, "lowest", "highest", "peak memory", "ratio of pairs")
    results: dict[str, Any] = {"unit": unit, "sides": [side.to_json() for side in sides]}
    for side in sides:
        ratios = [b / a for a, b in zip(sides[0].values, side.values, strict=True)]
        of_pairs = ""
        if side is not sides[0]:
            median = statistics.median(ratios)
            of_pairs = f"{median:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
            results.setdefault("ratios", {})[side.name] = {"median": median, "all": ratios}
        table.add_row(
            side.name,
            f"{statistics.median(side.values):.4g}",
            f"{min(side.values):.4g}",
            f"{max(side.values):.4g}",
            f"{side.peak_bytes / 2**20:.0f} MiB" if side.peak_bytes else "",
            of_pairs,
        )
    Console(highlight=False).print(table)
    return results


def _machine() -> dict[str, Any]:
    """What the figures hold for."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        **mesh.machine(jax.devices()),
        "processor": cache.processor(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }
