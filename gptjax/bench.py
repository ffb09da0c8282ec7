"""How fast: updates, whole runs, sampling and start-up, alone or in turns with nanoGPT."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import statistics
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import ml_collections

from gptjax.device import devices, memory
from gptjax.explain.drawing import pyplot_for
from gptjax.speed import growth, profile, scaling, whole_runs
from gptjax.speed.comparison import Setup, Side, comparison, print_comparison, slowdowns
from gptjax.speed.nanogpt import NanoGPT, Stepping
from gptjax.speed.process import busy_cores, gpu_bytes_used, peak_bytes
from gptjax.speed.stepper import Stepper
from gptjax.system import cache, files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError


def bench(
    config: ml_collections.ConfigDict,
    peer_config: ml_collections.ConfigDict,
    given: list[str],
    *,
    what: str,
    pairs: int,
    busy: int,
    nanogpt: str | None,
    nanogpt_python: str,
    nanogpt_compile: bool,
    target: float,
    json: str | None,
    plot: str | None,
) -> None:
    """Prints how fast our config is and, with a nanoGPT checkout, how fast that one's is.

    `given` are the command line's arguments that gave `config`; `target`, if not 0, is a val whose
    first time is reported of whole runs; `plot` a file for a picture of growth or scaling.

    Raises:
      UserError: for whatever train.py would refuse, or a checkout that cannot do the same.
    """
    if pairs < 1:
        raise UserError("--pairs", pairs, "must be ≥ 1")
    if not 0 <= busy <= 1024 or (busy and what != "step"):
        raise UserError("--busy", busy, "must be from 0 to 1024, and is for --what step")
    files.check_folder_of("--json", json)
    files.check_picture("--plot", plot)
    if plot:
        pyplot_for("--plot", plot)
    cache.keep_compiled_programs()
    if what == "profile":
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {profile.WITHOUT_GRAPHS}"
    bytes_used, other = gpu_bytes_used(), None
    if nanogpt:
        # Of a GPU's memory this process takes only what it needs: there are others to come.
        found, _ = devices.available_devices(config.mesh.cpu_devices, gpu_memory=0.0)
        device = "cpu" if found[0].platform == "cpu" else "cuda"
        other = NanoGPT(nanogpt, nanogpt_python, is_compiled=nanogpt_compile, device=device)
        other.check(peer_config)
    setup = Setup(config, peer_config, given, other, pairs)
    if what == "step":
        stepper = Stepper(config)
        figures = time_updates(setup, stepper, bytes_used_before=bytes_used, n_busy=busy)
        print_updates(figures)
        if not other and jax.default_backend() == "cpu":
            figures["op_groups"] = profile.profile(stepper.program, stepper.n_updates)
            profile.print_table(figures["op_groups"])
    elif what == "profile":
        stepper = Stepper(config)
        figures = {"op_groups": profile.profile(stepper.program, stepper.n_updates)}
        profile.print_table(figures["op_groups"])
    elif what == "run":
        figures = whole_runs.time_runs(setup, target=target)
        whole_runs.print_runs(figures)
    elif what == "sample":
        figures = whole_runs.time_sampling(setup)
        whole_runs.print_sampling(figures)
    elif what == "start":
        figures = whole_runs.time_starts(setup)
        print_comparison(figures)
    else:
        kind: Any = growth if what == "growth" else scaling
        points = measure_points(kind, config, pairs=pairs)
        kind.print_table(points)
        if plot:
            kind.plot(points, plot)
        figures = {"points": [dataclasses.asdict(point) for point in points]}
    if json:
        results = {"what": what, "arguments": given, **figures, "machine": machine()}
        files.write_atomically(Path(json), files.pretty_json(results))


def time_updates(
    setup: Setup, stepper: Stepper, *, bytes_used_before: int, n_busy: int = 0
) -> dict[str, Any]:
    """The time of an update, in turns with nanoGPT's, and that beside so many busy cores.

    `bytes_used_before` are those of a GPU's memory before this process took any.
    """
    is_on_gpu = jax.default_backend() != "cpu"
    bytes_used = gpu_bytes_used() if is_on_gpu else 0
    # Milliseconds of both sides beside so many busy cores.
    times: dict[int, tuple[list[float], list[float]]] = {n: ([], []) for n in sorted({0, n_busy})}
    with contextlib.ExitStack() as stack:
        other: Stepping | None = None
        if setup.nanogpt:
            other = stack.enter_context(setup.nanogpt.stepping(setup.peer_config))
        for _ in setup.turns("timings"):
            for n_cores, (ours, theirs) in times.items():
                with busy_cores(n_cores):
                    ours.append(1e3 * stepper.time_updates())
                    if other:
                        # Disturbed it may take a second for each.
                        n_updates = max(1, stepper.n_updates // (5 if n_cores else 1))
                        theirs.append(1e3 * other.time_updates(n_updates))
        their_bytes = other.peak_bytes() if other else 0
        if is_on_gpu and other:
            # Both as nvidia-smi sees them, with all that CUDA takes for itself.
            our_bytes = max(0, bytes_used - bytes_used_before)
            their_bytes = max(0, gpu_bytes_used() - bytes_used)
        elif is_on_gpu:
            our_bytes = memory.peak_memory_bytes(jax.devices()[0])
        else:
            our_bytes = peak_bytes(os.getpid())
    ours, theirs = times[0]
    sides = [Side("gptjax", ours, our_bytes)]
    if other:
        sides.append(Side("nanoGPT", theirs, their_bytes))
    figures = comparison(sides, "ms an update")
    if n_busy:
        busy = [Side(side.name, times[n_busy][i]) for i, side in enumerate(sides)]
        figures["busy"] = comparison(busy, f"ms beside {n_busy} busy")
        figures["slowdown"] = slowdowns(sides, busy)
    seconds = statistics.median(ours) / 1e3
    figures |= {
        "n_updates_per_burst": stepper.n_updates,
        "tokens_per_s": stepper.program.n_tokens / seconds,
        "mfu": stepper.mfu(seconds),
        "peak": dataclasses.asdict(stepper.program.peak),
    }
    return figures


def print_updates(figures: dict[str, Any]) -> None:
    """Prints what `time_updates` returned."""
    print_comparison(figures)
    if "busy" in figures:
        print_comparison(figures["busy"])
        for name, slower in figures["slowdown"].items():
            print(f"{name}: {slower:.2f} times its quiet time beside other work")
    peak = figures["peak"]
    print(
        f"gptjax: {figures['tokens_per_s']:,.0f} tokens/s, MFU {100 * figures['mfu']:.1f} % of "
        f"{peak['flops_per_s'] / 1e9:.0f} GFLOP/s ({peak['source']})"
    )


def measure_points(kind: Any, config: ml_collections.ConfigDict, *, pairs: int) -> list[Any]:
    """What `growth` or `scaling` measures; says each point on stderr as it is measured."""
    points = []
    for point in kind.measure(config, n_pairs=pairs):
        points.append(point)
        print(f"{point.name}: {1e3 * point.seconds:.1f} ms", file=sys.stderr)
    return points


def machine() -> dict[str, Any]:
    """What the figures hold for."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        **devices.machine(jax.devices()),
        "processor": cache.processor(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


if __name__ == "__main__":
    run_script(__file__)
