"""What a sweep found, in a table and in sentences; the number first."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from gptjax.config.family import Family
from gptjax.explain.loss_law import MOST_TIMES, Law
from gptjax.explain.sweep_findings import RATE, Cell, Choice, Findings
from gptjax.explain.sweep_plan import resized
from gptjax.run.progress import count, duration

# Text that is read more often than that teaches less each time.
# Source: Muennighoff et al. 2023, Scaling Data-Constrained Language Models.
_MANY_EPOCHS = 4

# The config that a family without a file is a part of.
_LAPTOP_CONFIG = "configs/shakespeare_char_fast.py"


def print_table(found: Findings) -> None:
    """Prints every setting at every length, the best of each size and length marked."""
    table = Table("setting")
    for title in ("parameters", "updates", "FLOPs", "val"):
        table.add_column(title, justify="right")
    size = None
    for cell in found.cells:
        run = cell.first
        if size not in (None, run.n_params):
            table.add_section()
        size = run.n_params
        val = f"{cell.val_nats:.4f}" + (" *" if cell in found.best else "  ")
        flops = f"{run.flops:.2e}"
        numbers = (count(run.n_params), f"{run.n_updates:,}", flops, val)
        table.add_row(run.setting or "base", *numbers)
    Console(highlight=False).print(table)


def sentences(
    found: Findings, *, run_seconds: float, unit: str, n_train_tokens: int, n_left_out: int
) -> list[str]:
    """What is to be said, what to take first.

    Args:
      unit: what a token is.
      n_train_tokens: of the text.
      n_left_out: members that there was no time for.
    """
    said = []
    if found.choices:
        said += _of_the_choice(found, run_seconds, unit)
        said += _of_the_rate(found, found.choices[0].cell)
        said += _of_the_unsure(found)
        epochs = found.choices[0].n_tokens / n_train_tokens
        if epochs > _MANY_EPOCHS:
            said.append(
                f"{epochs:.0f} times is the text read in that run: beyond {_MANY_EPOCHS} times it "
                "teaches less than the law says."
            )
    else:
        said.append(f"Nothing is said of a run of {duration(run_seconds)}: {found.why_no_choice}.")
    said += _of_the_law(found.law) if found.law else [f"No law is fitted: {found.why_no_law}."]
    if found.failed:
        names = "; ".join(f"{run.setting}: {run.failed}" for run in found.failed[:3])
        said.append(f"{len(found.failed)} runs could not go on ({names}).")
    if n_left_out:
        said.append(f"{n_left_out} members were left out: there was no time for them.")
    return said


def _of_the_choice(found: Findings, run_seconds: float, unit: str) -> list[str]:
    choice, *others = found.choices
    run, time = choice.cell.first, duration(run_seconds)
    name = run.setting or "the base"
    what = f"{name} ({count(run.n_params)} parameters), {choice.n_updates:,} updates"
    if choice.predicted is None:
        words = (
            f"{choice.cell.val_nats:.4f} nats/{unit} after {run.n_updates:,} updates is the best "
            f"of the longest runs: {name}; for {time}, {choice.n_updates:,} updates, nothing "
            "better is known, but a larger size may be."
        )
        return [words]
    source = "the law says" if found.law else "curves through the runs say"
    words = (
        f"{_loss(choice)} nats/{unit} is what {source} for a run of {time} with {what}: "
        f"the best of {len(found.choices)} sizes"
    )
    if others:
        second = others[0]
        words += f", before {second.cell.first.setting} with {_loss(second)}"
        words += f". It comes first in {choice.share:.0%} of the fits to points drawn anew"
    said = [words + "."]
    sizes = sorted(each.cell.first.n_params for each in found.choices)
    if len(sizes) > 1 and run.n_params in (sizes[0], sizes[-1]):
        end = "smallest" if run.n_params == sizes[0] else "largest"
        said.append(f"It is the {end} of the sizes tried: a {end[:-3]}er one may be better still.")
    return said


def _of_the_unsure(found: Findings) -> list[str]:
    if not found.unsure:
        return []
    names = ", ".join(f"{each.cell.first.setting}: {_loss(each)}" for each in found.unsure)
    return [
        f"{len(found.unsure)} sizes are left out, since too little is known of so long a run of "
        f"theirs ({names}): longer runs of theirs would tell."
    ]


def _loss(choice: Choice) -> str:
    assert choice.predicted is not None
    return f"{choice.predicted.value:.4f} ± {choice.predicted.error:.4f}"


def _of_the_rate(found: Findings, cell: Cell) -> list[str]:
    """Which learning rate is best at that size, and whether it stands at the edge of the list."""
    ranked = found.same_size(cell)
    rates = sorted({each.first.values[RATE] for each in ranked})
    if len(rates) < 2:
        return []
    rate = cell.first.values[RATE]
    second = next(each for each in ranked if each.first.values[RATE] != rate)
    words = (
        f"{second.val_nats - cell.val_nats:.4f} nats is learning rate {rate:g} better at this "
        f"size, after {cell.first.n_updates:,} updates, than the next, "
        f"{second.first.values[RATE]:g}"
    )
    if len(cell.runs) < 2:
        words += "; of one seed each, which alone makes 0.01 or 0.02"
    if rate in (rates[0], rates[-1]):
        way = "lower" if rate == rates[0] else "higher"
        words += f". It is the {way}st of those tried: one that is {way} may be better still"
    return [words.replace("lowerst", "lowest").replace("higherst", "highest") + "."]


def _of_the_law(law: Law) -> list[str]:
    frontier, most = law.frontier, law.points.most_flops
    a, b = law.scales
    told = (
        f"{law.floor} + {a:.3g}/N^{law.of_params.value:.2f} + {b:.3g}/D^{law.of_tokens.value:.2f} "
        f"nats is the law of parameters N and tokens D: exponents {law.of_params} and "
        f"{law.of_tokens}, fitted to {len(law.points)} points, which lie "
        f"{100 * law.residual:.1f} % from it."
    )
    furthest = MOST_TIMES * most
    ten = 10**frontier.of_params.value
    grown = (
        f"{ten:.1f} times as many parameters is what ten times the compute is best spent on, and "
        f"on {10 / ten**frontier.growth:.1f} times the tokens; the loss above "
        f"{law.floor.value:.2f} falls as C^-{frontier.exponent.value:.3f} ± "
        f"{frontier.exponent.error:.2g}."
    )
    loss, size = frontier.loss(furthest), frontier.n_params(furthest)
    reach = (
        f"{loss.value:.3f} ± {loss.error:.3f} nats at {count(size.value)} parameters is the lowest "
        f"for {furthest:.1e} FLOPs, ten times the largest run here; beyond that the law says "
        "nothing."
    )
    return [told, grown, reach]


def train_command(
    file: str | None, overrides: Mapping[str, str], family: Family, choice: Choice
) -> str:
    """The command that trains what a sweep chose."""
    values = choice.cell.first.values
    chosen = {knob: values[knob] for axis in family.axes for knob in axis.choices[0]}
    chosen["train.max_iters"] = choice.n_updates
    if not family.has_lengths:
        wanted = resized(values, choice.n_updates)
        changed = ("optim.warmup_iters", "optim.lr_decay_iters")
        chosen |= {name: wanted[name] for name in changed if wanted[name] != family.base[name]}
    if not file:
        chosen["data.source"] = family.base["data.source"]
    given = {**overrides, **chosen, "out_dir": "out/best_of_sweep"}
    words = [f"--config.{name}={value}" for name, value in given.items()]
    command = ["python", "scripts/train.py", "--config", file or _LAPTOP_CONFIG, *words]
    return shlex.join(command)


def to_json(found: Findings) -> dict[str, Any]:
    """All numbers."""
    law, cells = found.law, []
    for cell in found.cells:
        run = cell.first
        cells.append(
            {
                "setting": run.setting,
                "n_params": run.n_params,
                "n_updates": run.n_updates,
                "n_tokens": run.n_tokens,
                "flops": run.flops,
                "update_seconds": run.update_seconds,
                "vals": [each.val_nats for each in cell.runs],
                "is_best": cell in found.best,
            }
        )
    return {
        "cells": cells,
        "failed": [{"setting": run.setting, "reason": run.failed} for run in found.failed],
        "law": _law_to_json(law) if law else None,
        "why_no_law": found.why_no_law,
        "choices": [_choice_to_json(each) for each in found.choices],
        "why_no_choice": found.why_no_choice,
        "unsure": [_choice_to_json(each) for each in found.unsure],
    }


def _law_to_json(law: Law) -> dict[str, Any]:
    a, b = law.scales
    frontier = law.frontier
    bars: Mapping[str, Any] = {
        "E": law.floor,
        "a": law.of_params,
        "b": law.of_tokens,
        "frontier_exponent": frontier.exponent,
        "frontier_params_exponent": frontier.of_params,
    }
    found = {name: {"value": bar.value, "error": bar.error} for name, bar in bars.items()}
    return {**found, "A": a, "B": b, "residual": law.residual}


def _choice_to_json(choice: Choice) -> dict[str, Any]:
    predicted = choice.predicted
    return {
        "setting": choice.cell.first.setting,
        "n_updates": choice.n_updates,
        "n_tokens": choice.n_tokens,
        "flops": choice.flops,
        "val": predicted.value if predicted else None,
        "val_error": predicted.error if predicted else None,
        "share_best": None if math.isnan(choice.share) else choice.share,
    }
