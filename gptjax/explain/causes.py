"""What the settings of two runs say of their gap: one cause, several, or none. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gptjax.explain import curves
from gptjax.explain.differences import GROUPS, MACHINE, Difference
from gptjax.explain.finding import Finding
from gptjax.explain.pair import Pair

# How far apart one recipe's vals end on unlike devices, precisions and compilers, nats: seven
# published runs of nanoGPT's default recipe end on 1.7028 to 1.7120.
DEVICE_BOUND = 0.01

# Names in a row that are still read.
_FEW = 5

# Two token counts that were meant to be equal.
_SAME = 0.02


def same_settings(pair: Pair) -> Finding:
    """Two runs of one recipe: the same bits, rounding, noise, or something is wrong."""
    a, b = pair.a, pair.b
    at_a, at_b = pair.ends
    gap, noise = abs(at_b.val - at_a.val), pair.noise(at_a, at_b)
    largest = curves.largest_difference(a, b)
    common = np.intersect1d(a.evaluations.update_E, b.evaluations.update_E)
    values = pair.labels | pair.gap(at_a, at_b) | dict(n=len(common), bound=DEVICE_BOUND)
    if not pair.is_same_recipe:
        return Finding("settings_unknown", values | _missing(pair), gap, rank=2)
    if largest == 0.0 and a.program == b.program == "gptjax":
        return Finding("identical", values, rank=0)
    largest = gap if largest is None else max(gap, largest)
    if largest <= DEVICE_BOUND:
        machines = [each for each in pair.settings.differing if each.group in MACHINE]
        if machines:
            values |= _sides(*machines, are_named=True)
            values |= dict(groups=" and ".join(each.group for each in machines))
            return Finding("only_machine", values, gap, rank=0)
        return Finding("same_recipe", values, gap, rank=0)
    # A seed of one program is another seed in another program.
    is_one_seed = a.program == b.program and None not in (a.value("seed"), b.value("seed"))
    if gap <= DEVICE_BOUND or (not is_one_seed and not noise.is_passed_by(gap)):
        return Finding("same_recipe_noise", values, gap, rank=0)
    if a.program != b.program:
        is_known = "seed" not in noise.unknown
        kind = "suspected_bug_of_a_program" if is_known else "other_random_numbers"
        return Finding(kind, values, math.inf if is_known else gap, rank=0)
    # With the seed the same, only what is not recorded, or a bug, takes them apart.
    parting = curves.first_parting(a, b, DEVICE_BOUND)
    starts = [each.evaluations.val_E[each.evaluations.update_E == 0] for each in (a, b)]
    if not all(map(len, starts)):
        return Finding("suspected_bug_only", values, math.inf, rank=0)
    values |= dict(parting=parting or 0.0, a_path=a.path)
    values |= dict(a_start=float(starts[0][0]), b_start=float(starts[1][0]))
    can_replay = a.program == "gptjax"
    kind = "suspected_bug" if can_replay else "suspected_bug_in_a_log"
    return Finding(kind, values, math.inf, rank=0)


def _missing(pair: Pair) -> dict[str, Any]:
    """Who does not say which settings, the first few by name."""
    unknown = pair.settings.unknown
    labels = dict.fromkeys(label for lacking in unknown.values() for label in lacking)
    return dict(run=" and ".join(labels), names=_some(unknown))


def causes(pair: Pair) -> Finding:
    """The settings that differ: one alone is the cause of what is beyond noise, several are not."""
    different, (at_a, at_b) = pair.causes, pair.ends
    gap, noise = abs(at_b.val - at_a.val), pair.noise(at_a, at_b)
    values: dict[str, Any] = pair.labels | pair.gap(at_a, at_b)
    is_all_known = not any(name.startswith(_EXPERIMENT) for name in pair.settings.unknown)
    values["only"] = "Only" if is_all_known else "As far as known only"
    groups = {each.group for each in different}
    tokens = pair.totals("tokens")
    if groups == {"batch", "length"} and tokens and abs(tokens[1] / tokens[0] - 1) < _SAME:
        values |= _sides(pair.settings.of("batch")) | dict(tokens=tokens[1])
        kind = "batch_at_equal_tokens" + ("" if noise.is_passed_by(gap) else "_noise")
        return Finding(kind, values, gap, rank=2, parts=tuple(at_equal(pair, "updates")))
    if len(different) > 1:
        return _experiments(pair, values)
    (cause,) = different
    values |= _sides(cause) | dict(group=cause.group)
    parts: list[Finding] = []
    if cause.group == "batch":
        parts = [*at_equal(pair, "updates"), *at_equal(pair, "tokens")]
    if cause.group in ("length", "context"):
        parts = list(at_equal(pair, "updates"))
    if cause.group == "seed":
        return Finding("only_seed", values, gap, rank=2)
    kind = "only_one" if noise.is_passed_by(gap) else "only_one_noise"
    if cause.group == "precision" and gap <= DEVICE_BOUND:
        kind, values["bound"] = "only_precision", DEVICE_BOUND
    return Finding(kind, values, gap, rank=2, parts=tuple(parts))


_EXPERIMENT = ("model.", "train.", "optim.", "corpus")


def at_equal(pair: Pair, axis: str) -> Iterator[Finding]:
    """Both losses at the largest place on an axis that both have, if there is one."""
    meeting = curves.meet(pair.a, pair.b, axis)
    if meeting is None or math.isnan(meeting.x):
        return
    values = pair.labels | pair.gap(meeting.a, meeting.b) | dict(x=meeting.x)
    is_beyond = pair.noise(meeting.a, meeting.b).is_passed_by(meeting.b.val - meeting.a.val)
    kind = f"at_{axis}" if is_beyond else f"at_{axis}_noise"
    yield Finding(kind, values, abs(meeting.b.val - meeting.a.val), rank=4, topic="gaps")


def _experiments(pair: Pair, values: dict[str, Any]) -> Finding:
    """Settings that changed together, the largest change first."""
    changes = []
    params = (pair.a.value("parameters"), pair.b.value("parameters"))
    per_update = (pair.a.value("tokens_per_update"), pair.b.value("tokens_per_update"))
    for each in pair.causes:
        if each.group == "model size" and all(params):
            changes.append(_change("parameters", *params))
        elif each.group == "batch" and all(per_update):
            changes.append(_change("tokens_an_update", *per_update))
        else:
            changes += _changed(each)
    changes.sort(key=lambda change: -change.size)
    parts = list(changes)
    for axis in ("tokens", "flops"):
        if (totals := pair.totals(axis)) and all(totals):
            parts.append(
                Finding(f"total_{axis}", dict(b=pair.b.label, ratio=totals[1] / totals[0]))
            )
    return Finding("experiments", values, math.inf, rank=2, parts=tuple(parts))


# Groups whose one value is a number that a ratio says something of.
_COUNTED = {"context": "model.block_size", "batch": "train.batch_size", "length": "train.max_iters"}


def _changed(difference: Difference) -> Iterator[Finding]:
    """A ratio, if there is one; and a value that changed, or the names of several."""
    counted, group = _COUNTED.get(difference.group, ""), difference.group
    names = [name for name in difference.a if name != counted]
    if counted in difference.a:
        yield _change(group, difference.a[counted], difference.b[counted])
        group = "schedule" if group == "length" else group
    if len(difference.a) == 1 and names:
        yield Finding("item", _sides(difference) | dict(group=group))
    elif names:
        yield Finding("item_names", dict(group=group, names=_some(names)))


def _some(names: Iterable[str]) -> str:
    """Names of settings, the first few of them."""
    words = [name.rpartition(".")[2] for name in names]
    return ", ".join(
        words if len(words) <= _FEW else [*words[:_FEW], f"and {len(words) - _FEW} more"]
    )


def _change(kind: str, a: float, b: float) -> Finding:
    return Finding(f"item_{kind}", dict(a=a, b=b, ratio=b / a), abs(math.log(b / a)))


def _sides(*differences: Difference | None, are_named: bool = False) -> dict[str, Any]:
    """The values of differences as words: one value as it is, several with their names."""
    sides: dict[str, Any] = {}
    for side in ("a", "b"):
        known = {n: v for each in differences if each for n, v in getattr(each, side).items()}
        words = [f"{name.rpartition('.')[2]} {value}" for name, value in known.items()]
        is_one = len(known) == 1 and not are_named and not _is_riddle(*known.items())
        sides[f"{side}_value"] = next(iter(known.values())) if is_one else ", ".join(words)
    return sides


def _is_riddle(known: tuple[str, Any]) -> bool:
    """Whether a value says nothing without its setting's name: "architecture 8"."""
    name, value = known
    named = {*GROUPS["architecture"], *GROUPS["optimizer"]}
    return name in named and not isinstance(value, str)
