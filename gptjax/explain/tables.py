"""What a comparison shows beside its verdict: differences, losses, time, what is missing. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gptjax.device.cards import A100_PEAK
from gptjax.explain import curves
from gptjax.explain.differences import GROUPS
from gptjax.explain.page import Table
from gptjax.explain.pair import Pair
from gptjax.explain.series import AXES, FACTS, Series
from gptjax.explain.verdict import FORMS, count, duration

UNKNOWN = "not known"

_PEAK = "peak_flops_per_s"

# Numbers that say how large an experiment is; told even where they are equal.
_SIZES = ("parameters", "tokens_per_update", "flops_per_update")

_WORDS = {
    "parameters": "parameters",
    "tokens_per_update": "tokens an update",
    "flops_per_update": "FLOPs an update",
    "model.block_size": "context",
    "train.max_iters": "updates planned",
    "optim.name": "optimizer",
    "corpus_sha256": "text",
    "n_devices": "devices",
    "host_cores": "cores",
}


def differences(pair: Pair) -> tuple[Table, str]:
    """What differs, the largest ratio first, and a line of what is equal."""
    rows: list[tuple[float, list[str]]] = []
    recipes = [each.value("recipe") for each in (pair.a, pair.b)]
    if any(recipes):
        rows.append((math.inf, ["recipe", *(each or "–" for each in recipes), ""]))
    for name in _SIZES:
        rows += _row(name, pair.a.value(name), pair.b.value(name))
    for axis, words in (("updates", "updates made"), ("tokens", "tokens"), ("flops", "FLOPs")):
        if totals := pair.totals(axis):
            rows += _row(words, *totals)
    epochs = [_epochs(each) for each in (pair.a, pair.b)]
    rows += _row("passes over the text", *epochs)
    # A whole split or a few random batches: losses of one thing, with unlike errors.
    estimates = [each.value("loss_estimate") for each in (pair.a, pair.b)]
    if all(estimates):
        rows += _row("losses are estimated by", *estimates)
    for each in pair.settings.differing:
        for name in each.a:
            sides = [each.a[name], each.b[name]]
            if name == "corpus_sha256":
                sides = [
                    f"{run.value('corpus', '')} {sha256[:8]}".strip()
                    for run, sha256 in zip((pair.a, pair.b), sides, strict=True)
                ]
            rows += _row(name, *sides)
    rows.sort(key=lambda row: -row[0])
    table = Table("What differs", ["", pair.a.label, pair.b.label, "ratio"], [r for _, r in rows])
    names = ", ".join(_WORDS.get(each, each.rpartition(".")[2]) for each in pair.settings.equal)
    return table, f"Equal: {names}." if names else "Nothing is known to be equal."


def _row(name: str, a: Any, b: Any) -> Iterator[tuple[float, list[str]]]:
    """A row with how much it is about; nothing where both are equal or neither is known."""
    if a == b:
        return
    words, size = _WORDS.get(name, name), 0.0
    cells, ratio = [UNKNOWN if each is None else str(each) for each in (a, b)], ""
    is_count = name != "seed" and all(each is None or _is_size(each) for each in (a, b))
    if is_count:
        cells = [UNKNOWN if each is None else count(each) for each in (a, b)]
    if is_count and None not in (a, b):
        size, ratio = abs(math.log(b / a)), FORMS["ratio"](b / a)
    yield size, [words, *cells, ratio]


def _is_size(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value < math.inf


def _epochs(series: Series) -> float | None:
    x_E, last, n_tokens = series.x_E("tokens"), series.last, series.value("train_tokens")
    return None if x_E is None or last is None or not n_tokens else float(x_E[last]) / n_tokens


def losses(pair: Pair) -> Table:
    """Losses of both at their best, their end, and at equal updates, tokens, FLOPs, seconds."""
    rows = []
    for words, index in (("best val", "best"), ("last val", "last")):
        sides = []
        for each in (pair.a, pair.b):
            i = getattr(each, index)
            if i is None:
                sides.append((UNKNOWN, math.nan))
                continue
            update = count(float(each.evaluations.update_E[i]))
            found = curves.reading(each, i)
            sides.append((f"{_loss(found.val, found.sem)} at {update}", found.val))
        rows.append([words, sides[0][0], sides[1][0], _gap(sides[0][1], sides[1][1])])
    trains = [_last_train(each) for each in (pair.a, pair.b)]
    rows.append(["last train", *(_loss(each, math.nan) for each in trains), _gap(*trains)])
    for axis in AXES:
        meeting = curves.meet(pair.a, pair.b, axis)
        if meeting is None:
            continue
        if math.isnan(meeting.x):
            rows.append([f"val at equal {axis}".replace("flops", "FLOPs"), "–", "–", "do not meet"])
            continue
        place = duration(meeting.x) if axis == "seconds" else f"{count(meeting.x)} {axis}"
        cells = [_loss(each.val, each.sem) for each in (meeting.a, meeting.b)]
        place = place.replace(" flops", " FLOPs")
        rows.append([f"val at {place}", *cells, _gap(meeting.a.val, meeting.b.val)])
    if pair.at_context is not None:
        label, found = pair.at_context
        cells = [
            _loss(found.val, found.sem) if each.label == label else "–" for each in (pair.a, pair.b)
        ]
        rows.append(["best, at the shorter context", *cells, ""])
    return Table("Losses, nats per token", ["", pair.a.label, pair.b.label, "b − a"], rows)


def _last_train(series: Series) -> float:
    return math.nan if series.last is None else float(series.evaluations.train_E[series.last])


def _loss(val: float, sem: float) -> str:
    if not math.isfinite(val):
        return UNKNOWN
    return f"{val:.4f}" + (f" ± {sem:.4f}" if math.isfinite(sem) else "")


def _gap(a: float, b: float) -> str:
    return f"{b - a:+.4f}" if math.isfinite(a) and math.isfinite(b) else ""


def times(runs: Sequence[Series]) -> Table:
    """Where the time of runs went, and what of their devices they used."""

    def row(words: str, cell: Callable[[Series], str]) -> list[str]:
        return [words, *(cell(each) for each in runs)]

    def known(value: float, form: Callable[[float], str]) -> str:
        return form(value) if value is not None and math.isfinite(value) else UNKNOWN

    percent: Callable[[float], str] = FORMS["percent"]
    rows = [
        row("an update, median", lambda s: known(s.times.update_ms / 1e3, duration)),
        row("an update, 95 %", lambda s: known(s.times.update_ms_high / 1e3, duration)),
        row("tokens a second", lambda s: known(_tokens_per_s(s), count)),
        row("an evaluation", lambda s: known(s.times.evaluation_seconds, duration)),
        row("evaluations' share", lambda s: known(s.times.evaluation_share, percent)),
        row("device", lambda s: str(s.value("device", UNKNOWN))),
        row("its peak", lambda s: known(s.value(_PEAK, math.nan), FORMS["rate"])),
        row(
            "MFU on its peak",
            lambda s: known(_mfu(s, s.value(_PEAK)), FORMS["percent"]),
        ),
        row("MFU on an A100's", lambda s: known(_mfu(s, A100_PEAK), FORMS["percent"])),
    ]
    for kind in dict.fromkeys(kind for each in runs for kind in each.times.ledger):
        seconds = [each.times.ledger.get(kind, math.nan) for each in runs]
        rows.append([f"ledger: {kind}", *(known(value, duration) for value in seconds)])
    return Table("Time", ["", *(each.label for each in runs)], rows)


def _tokens_per_s(series: Series) -> float:
    each = series.value("tokens_per_update")
    return 1e3 * each / series.times.update_ms if each else math.nan


def _mfu(series: Series, peak: float | None) -> float:
    """Over the median update; a log whose FLOPs are not known has shown its own.

    NaN above 1: then the peak is too low, or is not the one of where most updates were made.
    """
    share = _share(series, peak)
    return share if share <= 1 else math.nan


def _share(series: Series, peak: float | None) -> float:
    flops, shown = series.value("flops_per_update"), series.value("shown_mfu")
    if not peak:
        return math.nan
    if flops and math.isfinite(series.times.update_ms):
        return 1e3 * flops / series.times.update_ms / peak
    return shown * A100_PEAK / peak if shown else math.nan


def not_known(runs: Sequence[Series]) -> list[str]:
    """What is missing of each run, and what the reader must know of how it was read."""
    wanted = [name for group in GROUPS.values() for name in group if name in _WANTED]
    said = []
    for each in runs:
        missing = [name for name in (*wanted, _PEAK) if name not in each.facts]
        if missing:
            names = ", ".join(FACTS.get(name, name).partition(",")[0] for name in missing)
            how = f" (--peak {each.label}=TFLOPS tells it)" if missing[-1] == _PEAK else ""
            said.append(f"{each.label}: {names}{how}.")
        said += [f"{each.label}: {note}." for note in each.notes]
    return said


_WANTED = frozenset(
    "corpus model.n_layer model.n_embd model.block_size model.dropout train.batch_size "
    "train.max_iters optim.learning_rate seed device".split()
)
