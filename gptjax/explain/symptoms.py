"""What one run tells by itself: overfitting, what cannot be, times that mislead. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from gptjax.device.cards import A100_PEAK
from gptjax.explain.curves import points
from gptjax.explain.finding import Finding, Noise
from gptjax.explain.recipes import card_of
from gptjax.explain.series import Series

# Loss before training is ln V plus what small random logits add; nanoGPT's recipes give 0.00 to
# 0.11. Further off, targets or loss are not what they should be.
_START_BELOW, _START_ABOVE = 0.05, 0.20

# An update's 95 % by its median, above which something else ran beside it: alone it is below 1.5.
_BUSY = 2.5

# Train above val by so much is no matter of which text was held back.
_TRAIN_ABOVE_VAL = 0.05

# Train this far below val at a single evaluation: the text is known by heart.
_BY_HEART = 0.3


def symptoms(series: Series) -> Iterator[Finding]:
    """The findings about one run."""
    yield from _broken(series)
    yield from _off_card(series)
    yield from _unfinished(series)
    yield from _overfitting(series)
    yield from _times(series)
    yield from _mfu(series)
    recipe = series.facts.get("recipe")
    if recipe is not None and recipe.how == "its digits":
        values = dict(run=series.label, recipe=recipe.value)
        yield Finding("settings_by_digits", values, rank=6)


def _broken(series: Series) -> Iterator[Finding]:
    """What cannot be if all is right."""
    evaluations, label = series.evaluations, series.label
    is_bad = ~np.isfinite(evaluations.val_E)
    if is_bad.any():
        update = float(evaluations.update_E[np.argmax(is_bad)])
        yield Finding("not_a_number", dict(run=label, update=update), math.inf, rank=1)
    vocab_size, is_new = series.value("vocab_size"), series.value("parent") is None
    is_new = is_new and not _is_told(series)  # Who is told of counts need not guess.
    if vocab_size and is_new and len(evaluations) and evaluations.update_E[0] == 0:
        start, uniform = float(evaluations.val_E[0]), math.log(vocab_size)
        if math.isfinite(start) and not -_START_BELOW <= start - uniform <= _START_ABOVE:
            values = dict(run=label, start=start, uniform=uniform, vocab_size=vocab_size)
            yield Finding("start_off", values, abs(start - uniform), rank=1)
    last = series.last
    if last is None:
        return
    train, val = float(evaluations.train_E[last]), float(evaluations.val_E[last])
    sems = (evaluations.train_sem_E[last], evaluations.val_sem_E[last])
    noise = Noise.of(estimate=sems, seed=())
    if train - val > _TRAIN_ABOVE_VAL and noise.is_passed_by(train - val):
        values = dict(run=label, train=train, val=val, gap=train - val)
        yield Finding("train_above_val", values, train - val, rank=1)
    floor = series.value("floor_nats")
    if floor is not None and noise.is_passed_by(floor - val) and val < floor - 0.001:
        values = dict(run=label, val=val, floor=floor, gap=floor - val)
        yield Finding("below_floor", values, floor - val, rank=1)


def _is_told(series: Series) -> bool:
    """Whether the model was told what followed in its training text: of train, its own as well."""
    return bool(series.value("model.followers"))


def _off_card(series: Series) -> Iterator[Finding]:
    """A run of a known recipe that is not where runs of that recipe are."""
    card, found = card_of(series), points(series, "updates")
    if card is None or found is None:
        return
    for update, val in zip(*found[:2], strict=True):
        gap = float(val - card.val_at(update))
        if abs(gap) > card.val_band:  # Neither is one that is not known, NaN.
            values = dict(
                run=series.label,
                recipe=card.name,
                update=float(update),
                val=float(val),
                wanted=card.val_at(update),
                gap=abs(gap),
                direction="above" if gap > 0 else "below",
                band=card.val_band,
            )
            yield Finding("off_card", values, abs(gap), rank=1)
            return


def _unfinished(series: Series) -> Iterator[Finding]:
    """A last loss that is not the end of what was planned."""
    last, planned = series.last, series.value("train.max_iters")
    if last is None or not planned:
        return
    made = float(series.evaluations.update_E[last])
    if made < planned:
        values = dict(run=series.label, made=made, planned=planned)
        yield Finding("unfinished", values, math.inf, rank=3)


def _overfitting(series: Series) -> Iterator[Finding]:
    """val rose from its best by more than noise while train fell: seen, not inferred."""
    evaluations, best, last = series.evaluations, series.best, series.last
    if best is None or last is None:
        return
    val, train = evaluations.val_E, evaluations.train_E
    label = series.label
    if best == last:
        is_single = np.isfinite(val[evaluations.update_E > 0]).sum() == 1
        gap = float(val[last] - train[last])
        if is_single and gap > _BY_HEART and not _is_told(series):
            values = dict(run=label, val=float(val[last]), train=float(train[last]), gap=gap)
            yield Finding("one_evaluation", values, gap, rank=3)
        return
    rise, fall = float(val[last] - val[best]), float(train[best] - train[last])
    noise = Noise.of(estimate=(evaluations.val_sem_E[best], evaluations.val_sem_E[last]), seed=())
    # Where the estimate's error is not known a rise must be plain.
    is_plain = noise.is_passed_by(rise) and (not noise.unknown or rise > 0.03)
    if is_plain and fall > 0:
        values = dict(
            run=label,
            end=float(val[last]),
            best=float(val[best]),
            best_update=float(evaluations.update_E[best]),
            rise=rise,
            train_best=float(train[best]),
            train_end=float(train[last]),
        )
        yield Finding("overfitted", values, rise, rank=3)


def _times(series: Series) -> Iterator[Finding]:
    """Iterations that hold an evaluation, and a machine that did something else as well."""
    times, label = series.times, series.label
    if times.iteration_ms > 2 * times.update_ms:
        values = dict(
            run=label,
            iteration=times.iteration_ms / 1e3,
            evaluation=times.evaluation_seconds,
            update=times.update_ms / 1e3,
            share=times.evaluation_share,
        )
        has_share = math.isfinite(times.evaluation_share)
        kind = "evaluation_inside" if has_share else "evaluation_inside_only"
        yield Finding(kind, values, rank=7, topic="times")
    if times.n_updates >= 20 and times.update_ms_high > _BUSY * times.update_ms:
        values = dict(
            run=label,
            low=times.update_ms_low / 1e3,
            high=times.update_ms_high / 1e3,
            median=times.update_ms / 1e3,
        )
        yield Finding("busy", values, rank=7, topic="times")


def _mfu(series: Series) -> Iterator[Finding]:
    """A nanoGPT log's "mfu", which is over an A100's peak, over the device's own.

    Nothing above 100 %: then that peak, which --peak told, is none.
    """
    shown, peak = series.value("shown_mfu"), series.value("peak_flops_per_s")
    if not shown or not peak or shown * A100_PEAK > peak:
        return
    values = dict(
        run=series.label,
        shown=shown,
        reference="an A100",
        achieved=shown * A100_PEAK,
        own=shown * A100_PEAK / peak,
        peak=peak,
        device=series.value("device", "the device"),
        source=series.value("peak_source", ""),
    )
    yield Finding("mfu", values, rank=7, topic="times")
