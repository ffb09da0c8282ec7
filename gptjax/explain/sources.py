"""Runs as they are named on a command line: a directory or a file, or LABEL=PATH."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.device.cards import table_peak
from gptjax.explain.gptjax_run import read_run
from gptjax.explain.nanogpt_log import read_log
from gptjax.explain.recipes import with_recipe
from gptjax.explain.series import Fact, Series
from gptjax.system.errors import UserError


def read_all(
    arguments: Sequence[str], *, device: Sequence[str], peak: Sequence[str]
) -> list[Series]:
    """The runs that arguments name, under labels that tell them apart.

    `device`, LABEL=NAME, and `peak`, LABEL=TFLOPS, tell what a log does not.

    Raises:
      UserError: for a run that cannot be read, or a label that no run has.
    """
    return _told(_distinct([read_series(each) for each in arguments]), device, peak)


def read_series(argument: str) -> Series:
    """The run that an argument names: a run directory of gptjax, a nanoGPT log, or - for stdin.

    Raises:
      UserError: if there is nothing to be read there.
    """
    # A folder may have an = in its name.
    label, equals, rest = argument.partition("=")
    if not equals or Path(argument).exists():
        label, rest = "", argument
    path = Path(rest).expanduser()
    if rest == "-":
        return read_log(path, label or "stdin")
    label = label or path.resolve().name
    if path.is_file() and path.name == "metrics.jsonl":
        path, label = path.parent, path.resolve().parent.name
    if path.is_dir():
        return with_recipe(read_run(path, label))
    if not path.exists():
        raise UserError("run", path, "does not exist", "Give a run directory or a nanoGPT log.")
    return read_log(path, label)


def _distinct(runs: list[Series]) -> list[Series]:
    """The runs, with labels that tell them apart."""
    n_seen: dict[str, int] = {}
    distinct = []
    for run in runs:
        n_seen[run.label] = n_seen.get(run.label, 0) + 1
        number = n_seen[run.label]
        label = run.label if number == 1 else f"{run.label} ({number})"
        distinct.append(dataclasses.replace(run, label=label))
    return distinct


def _told(runs: list[Series], device: Sequence[str], peak: Sequence[str]) -> list[Series]:
    """The runs, with the facts that the command line tells of them."""
    facts: dict[str, dict[str, Fact]] = {run.label: {} for run in runs}
    for label, name in _by_label("--device", device, facts):
        facts[label]["device"] = Fact(name, "--device")
        # nanoGPT's dtype on a card that has it, and what its own figure is over.
        known = table_peak(name, "bfloat16")
        if known is not None:
            facts[label]["peak_flops_per_s"] = Fact(known, f"{name}'s peak for bfloat16, dense")
    for label, words in _by_label("--peak", peak, facts):
        try:
            rate = float(words)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf:
            raise UserError("--peak", repr(words), "must be LABEL=TFLOPS", "Try --peak gpu=80.")
        facts[label]["peak_flops_per_s"] = Fact(1e12 * rate, "--peak")
    return [dataclasses.replace(run, facts={**run.facts, **facts[run.label]}) for run in runs]


def _by_label(flag: str, given: Sequence[str], labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for each in given:
        label, equals, value = each.partition("=")
        if not equals or label not in labels or not value:
            rule = f"must be LABEL=VALUE with a label of {', '.join(labels)}"
            raise UserError(flag, repr(each), rule)
        pairs.append((label, value))
    return pairs
