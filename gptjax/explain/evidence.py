"""What follows from the numbers of two runs: findings, the most important first. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from gptjax.explain import curves
from gptjax.explain.causes import DEVICE_BOUND, at_equal, causes, same_settings
from gptjax.explain.finding import Finding
from gptjax.explain.pair import Pair
from gptjax.explain.recipes import card_of
from gptjax.explain.series import Series
from gptjax.explain.symptoms import symptoms

# An update that takes so much longer with the same settings on the same device is worth a word.
_SLOWER = 1.4

# Half of the last digit that losses are shown with.
_ROUNDED = 0.00005

_AXES = ("updates", "tokens", "flops")


def findings(pair: Pair) -> list[Finding]:
    """All that can be said of two runs."""
    found = list(_about_both(pair))
    found += [*symptoms(pair.a), *symptoms(pair.b)]
    found = [_placed(each, found) for each in found]
    return sorted(found, key=lambda each: (each.rank, -each.size))


def _placed(finding: Finding, found: list[Finding]) -> Finding:
    """The finding, where it is to be told among the others.

    Where the losses are the same, what differs is time: it is told in the same breath. Overfitting
    that makes more than half of a gap is told before the setting that led to it.
    """
    if found[0].kind in _SAME:
        is_of_time = finding.topic == "times" or finding.kind.startswith("slower")
        if finding is found[0] or is_of_time:
            return dataclasses.replace(finding, topic="same", rank=0 if finding is found[0] else 1)
    if (
        finding.kind == "overfitted"
        and found[0].kind in _ALONE
        and finding.size > found[0].size / 2
    ):
        return dataclasses.replace(finding, rank=1)
    return finding


# Findings that the losses are the same; that one setting alone is different.
_SAME = frozenset({"identical", "same_recipe", "only_machine"})
_ALONE = frozenset({"only_one", "only_one_noise"})


def headline(pair: Pair) -> Finding:
    """Where both ended."""
    if pair.a.last is None or pair.b.last is None:
        lacking = pair.a if pair.a.last is None else pair.b
        return Finding("no_loss", dict(run=lacking.label))
    at_a, at_b = pair.ends
    noise = pair.noise(at_a, at_b)
    kind = "ends" if noise.sd else "ends_noise_unknown"
    if abs(at_a.val - at_b.val) < _ROUNDED:
        kind = "ends_equal"
    return Finding(kind, pair.labels | pair.gap(at_a, at_b))


def headline_alone(series: Series) -> Finding:
    """Where one run ended."""
    last = series.last
    if last is None:
        return Finding("no_loss_alone", dict(run=series.label))
    evaluations = series.evaluations
    values = dict(run=series.label, val=float(evaluations.val_E[last]))
    values |= dict(train=float(evaluations.train_E[last]), update=float(evaluations.update_E[last]))
    return Finding("ends_alone", values)


def _about_both(pair: Pair) -> Iterator[Finding]:
    a, b, settings = pair.a, pair.b, pair.settings
    if difference := settings.of("corpus"):
        parts = tuple(_bits_per_byte(pair))
        is_one_text = {"corpus_sha256", "corpus"} & set(settings.equal)
        if is_one_text and difference.a.keys() <= {"data.tokenizer", "vocab_size"}:
            values = pair.labels | dict(a_tokens=_tokens(a), b_tokens=_tokens(b))
            yield Finding("other_tokens", values, math.inf, rank=0, parts=parts)
            return
        values = pair.labels | dict(a_text=a.value("corpus", "?"), b_text=b.value("corpus", "?"))
        yield Finding("other_text", values, math.inf, rank=0, parts=parts)
        return
    if a.last is None or b.last is None:
        return
    if pair.causes:
        told = causes(pair)
        yield told
        if told.kind == "experiments":
            yield from _gaps(pair)
        yield from _contexts(pair)
        if told.kind == "experiments":
            paths = dict(a_path=_config_or_run(a), b_path=_config_or_run(b))
            yield Finding("cannot_share", pair.labels | paths, rank=8)
    else:
        yield same_settings(pair)
    yield from _hardware(pair)
    yield from _speed(pair)


def _config_or_run(series: Series) -> str:
    """What a ladder is told to start from: the config of a known recipe, or what was read."""
    card = card_of(series)
    return card.config if card and card.config else series.path


def _tokens(series: Series) -> str:
    """What a run reads a text as: "gpt2, 50257 symbols"."""
    known = [series.value("data.tokenizer"), f"{series.value('vocab_size', '?')} symbols"]
    return ", ".join(filter(None, known))


def _bits_per_byte(pair: Pair) -> Iterator[Finding]:
    """Both ends in the unit that unlike tokenizers share, if both are known."""
    each = [series.value("val_bytes_per_token") for series in (pair.a, pair.b)]
    if all(each) and pair.a.last is not None and pair.b.last is not None:
        bits = [end.val / math.log(2) / n for end, n in zip(pair.ends, each, strict=True)]
        yield Finding("bits_per_byte", pair.labels | dict(a_bits=bits[0], b_bits=bits[1]))


def _gaps(pair: Pair) -> Iterator[Finding]:
    """The gap best against best and at equal updates, tokens, FLOPs; where curves do not meet."""
    (end_a, end_b), (best_a, best_b) = pair.ends, pair.bests
    if best_a.val < end_a.val or best_b.val < end_b.val:
        gap = pair.gap(best_a, best_b)
        yield Finding(
            "best_gap", pair.labels | gap, abs(best_b.val - best_a.val), rank=4, topic="gaps"
        )
    missed = {}
    for axis in _AXES:
        meeting = curves.meet(pair.a, pair.b, axis)
        if meeting is None:
            continue
        if math.isnan(meeting.x):
            missed[axis] = meeting
        elif not _is_at_both_ends(pair, axis, meeting.x) and not _is_as_updates(pair, axis):
            yield from at_equal(pair, axis)
    kinds = {axis: f"no_meeting_{axis}" for axis in missed}
    if {"tokens", "flops"} <= missed.keys():
        kinds = kinds | {"tokens": "no_meeting"}
        del kinds["flops"]
    for axis, kind in kinds.items():
        each = missed[axis]
        earlier = pair.b.label if each.later == pair.a.label else pair.a.label
        values = dict(later=each.later, earlier=earlier, first=each.first, last=each.last)
        yield Finding(kind, values, rank=5, topic="no meeting")


def _is_as_updates(pair: Pair, axis: str) -> bool:
    """Whether equal tokens, or FLOPs, are just equal updates."""
    name = {"tokens": "tokens_per_update", "flops": "flops_per_update"}.get(axis)
    return name is not None and pair.a.value(name) == pair.b.value(name)


def _is_at_both_ends(pair: Pair, axis: str, x: float) -> bool:
    totals = pair.totals(axis)
    return totals is not None and totals[0] == totals[1] == x


def _contexts(pair: Pair) -> Iterator[Finding]:
    """Losses at unlike contexts are unlike quantities."""
    context = pair.settings.of("context")
    if context is None:
        return
    sizes = {
        pair.a.label: context.a["model.block_size"],
        pair.b.label: context.b["model.block_size"],
    }
    longer = max(sizes, key=sizes.__getitem__)
    values = pair.labels | dict(
        a_context=sizes[pair.a.label],
        b_context=sizes[pair.b.label],
        longer=longer,
        shorter_context=min(sizes.values()),
    )
    if pair.at_context is None:
        yield Finding("contexts", values, rank=5)
        return
    series = pair.a if longer == pair.a.label else pair.b
    own = curves.reading(series, series.best or 0).val
    there = pair.at_context[1].val
    values |= dict(own=own, there=there, gap=abs(there - own))
    yield Finding("contexts_measured", values, abs(there - own), rank=4)


def _hardware(pair: Pair) -> Iterator[Finding]:
    """What devices and precision can have to do with it: less than a bound that is named."""
    at_a, at_b = pair.ends
    gap = abs(at_b.val - at_a.val)
    devices = [each.value("device") for each in (pair.a, pair.b)]
    are_equal = devices[0] is not None and devices[0] == devices[1]
    if gap <= DEVICE_BOUND or (are_equal and pair.settings.of("precision") is None):
        return
    values: dict[str, Any] = pair.labels | dict(gap=gap, bound=DEVICE_BOUND)
    ends = []
    for series, card, reading in ((pair.a, pair.card_a, at_a), (pair.b, pair.card_b, at_b)):
        if card is not None and (distance := card.distance(reading.val)) <= DEVICE_BOUND:
            kind = "item_to_the_digit" if distance < _ROUNDED else "item_near"
            ends.append(Finding(kind, dict(run=series.label, recipe=card.name, distance=distance)))
    if len(ends) == 2:
        yield Finding("hardware_recipes", values, rank=6, parts=tuple(ends))
    elif {each.group for each in pair.causes} - {"precision"}:
        yield Finding("hardware_bound", values, rank=6)


def _speed(pair: Pair) -> Iterator[Finding]:
    """The same work that took longer: no cause of a loss, but worth a word."""
    a_ms, b_ms = pair.a.times.update_ms, pair.b.times.update_ms
    if not pair.is_same_recipe or not a_ms > 0 or not b_ms > 0:
        return
    slower, faster = (pair.a, pair.b) if a_ms > b_ms else (pair.b, pair.a)
    ratio = slower.times.update_ms / faster.times.update_ms
    if ratio > _SLOWER:
        values = dict(
            slower=slower.label,
            faster=faster.label,
            slow=slower.times.update_ms / 1e3,
            fast=faster.times.update_ms / 1e3,
            ratio=ratio,
        )
        kind = "slower_elsewhere" if pair.settings.of("device") else "slower"
        yield Finding(kind, values, rank=3)
