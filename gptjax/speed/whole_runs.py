"""Whole processes, timed from outside: runs, sampling, start-up; alone and in turns with nanoGPT.

What is measured comes back ready for JSON; what prints it stands beside it.
"""

from __future__ import annotations

import statistics
from typing import Any

from gptjax.speed.comparison import Setup, Side, comparison, print_comparison
from gptjax.speed.process import Finished, run, script
from gptjax.system.files import temporary_folder

# The recipe's start, without a warmup that would not fit.
_ONE_UPDATE = ("--config.train.max_iters=1", "--config.optim.warmup_iters=0")
_LEAST_EVALUATION = ("--config.eval.max_tokens=1000",)

_TOKENS_PER_SAMPLE = 500  # nanoGPT's default


def time_runs(setup: Setup, *, target: float) -> dict[str, Any]:
    """Whole runs, ours with one seed after another; `target`, if not 0, is a val to be reached."""
    ours: list[Finished] = []
    theirs: list[Finished] = []
    for turn in setup.turns("runs"):
        with temporary_folder() as folder:
            seed = f"--config.seed={setup.config.seed + turn}"
            ours.append(run(setup.training(folder, seed)))
            if setup.nanogpt:
                theirs.append(setup.nanogpt.train(setup.peer_config, f"{folder}/nanogpt"))
    results = comparison(_sides(ours, theirs), "s, whole process")
    results["runs"] = {}
    for name, runs in (("gptjax", ours), ("nanoGPT", theirs)):
        if runs:
            results["runs"][name] = {
                "val": [each.evaluations()[-1][2] for each in runs],
                "best": [min(val for _, _, val in each.evaluations()) for each in runs],
            }
        if runs and target:
            reached = [_seconds_to(each, target) for each in runs]
            results["runs"][name] |= {"target": target, "seconds_to_target": reached}
    return results


def print_runs(figures: dict[str, Any]) -> None:
    """Prints what `time_runs` returned."""
    print_comparison(figures)
    for name, runs in figures["runs"].items():
        vals = runs["val"]
        print(f"{name}: val {statistics.fmean(vals):.4f} at the end, mean of {vals}")
        if "target" in runs:
            print(f"{name}: val ≤ {runs['target']} after {runs['seconds_to_target']} s")


def time_sampling(setup: Setup) -> dict[str, Any]:
    """Whole processes, and what is left of them without the time of one that writes little.

    Ours twice: as nanoGPT does it, and with a window that moves by half of itself.
    """
    strides = (1, max(1, setup.config.model.block_size // 2))
    ours: dict[int, list[Finished]] = {stride: [] for stride in strides}
    theirs: list[Finished] = []
    starts: dict[object, list[float]] = {name: [] for name in (*strides, "nanoGPT")}
    with temporary_folder() as folder:
        run(setup.training(folder, *_ONE_UPDATE, *_LEAST_EVALUATION))
        if setup.nanogpt:
            setup.nanogpt.train_once(setup.peer_config, f"{folder}/nanogpt")
        for _ in setup.turns("samples"):
            for stride in strides:
                command = script("sample", f"--out_dir={folder}/gptjax", f"--stride={stride}")
                ours[stride].append(run(command))
                starts[stride].append(run([*command, "--max_new_tokens=1"]).seconds)
            if setup.nanogpt:
                settings = {"out_dir": f"{folder}/nanogpt", "dtype": setup.config.model.dtype}
                theirs.append(setup.nanogpt.sample(**settings, n_tokens=_TOKENS_PER_SAMPLE))
                start = setup.nanogpt.sample(**settings, n_tokens=1)
                starts["nanoGPT"].append(start.seconds)
    results = {}
    for stride in strides:
        whole = _sides(ours[stride], theirs)
        alone = [
            Side(side.name, [a - b for a, b in zip(side.values, start, strict=True)])
            for side, start in zip(whole, (starts[stride], starts["nanoGPT"]), strict=False)
        ]
        results[f"stride_{stride}"] = {
            "whole": comparison(whole, "s, 10 x 500 characters"),
            "without_start_up": comparison(alone, "s, start-up taken off"),
        }
    return results


def print_sampling(figures: dict[str, Any]) -> None:
    """Prints what `time_sampling` returned."""
    for name, found in figures.items():
        print(f"--stride {name.removeprefix('stride_')}")
        for each in found.values():
            print_comparison(each)


def time_starts(setup: Setup) -> dict[str, Any]:
    """From a process' start to its first update, with what XLA has compiled before and without."""
    cold: list[Finished] = []
    warm: list[Finished] = []
    theirs: list[Finished] = []
    helps = []
    for _ in setup.turns("starts"):
        with temporary_folder() as folder:
            environment = {"GPTJAX_CACHE_DIR": f"{folder}/cache"}
            for runs in (cold, warm):
                command = setup.training(f"{folder}/{len(runs)}{runs is warm}", *_ONE_UPDATE)
                runs.append(run(command, environment=environment))
            if setup.nanogpt:
                theirs.append(setup.nanogpt.train_once(setup.peer_config, f"{folder}/nanogpt"))
        helps.append(run(script("train", "--help")).seconds)

    def first_update(each: Finished) -> float:
        return each.first(r"^(step 1/|iter 0:)")

    sides = [
        Side("gptjax, warm", [first_update(each) for each in warm]),
        Side("gptjax, cold", [first_update(each) for each in cold]),
        Side("gptjax --help", helps),
    ]
    if theirs:
        sides.insert(1, Side("nanoGPT", [first_update(each) for each in theirs]))
    return comparison(sides, "s to the first update")


def _seconds_to(run: Finished, target: float) -> float | None:
    return next((seconds for seconds, _, val in run.evaluations() if val <= target), None)


def _sides(ours: list[Finished], theirs: list[Finished]) -> list[Side]:
    return [
        Side(name, [run.seconds for run in runs], max(run.peak_bytes for run in runs))
        for name, runs in (("gptjax", ours), ("nanoGPT", theirs))
        if runs
    ]
