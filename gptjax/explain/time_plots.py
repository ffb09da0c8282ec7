"""Where the time of runs went: by kind of work, and update by update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptjax.explain import palette
from gptjax.explain.drawing import shown
from gptjax.explain.labels import Drawn
from gptjax.explain.series import Series
from gptjax.run.ledger import KINDS

# Inches that a run's row takes, and that all else does.
ROW, REST = 0.6, 0.95
# Runs whose times differ by more than this are drawn as shares of each one's own.
_TIMES_APART = 4.0
# A picture's bar of less than this part of the width has no room for its seconds.
_NARROWEST = 0.09
# Kinds of work that are named beside each other.
_KINDS_A_LINE = 4


def draws_ledger(each: Series) -> bool:
    """Whether a run's time is known by kind of work."""
    return sum(each.times.ledger.values()) > 0


def are_shares(series: Sequence[Series]) -> bool:
    """Whether times of runs are too unlike to be compared in seconds."""
    totals = [sum(each.times.ledger.values()) for each in series]
    return max(totals) > _TIMES_APART * min(totals)


def ledger(panel: Any, runs: Mapping[int, Series]) -> Drawn:
    """Draws a bar a run, of its seconds by kind of work, or of their shares."""
    series = list(runs.values())
    totals = [sum(each.times.ledger.values()) for each in series]
    shares = are_shares(series)
    widest = 100.0 if shares else max(totals)
    kinds = [kind for kind in KINDS if any(each.times.ledger.get(kind, 0) > 0 for each in series)]
    others = {kind for each in series for kind in each.times.ledger} - set(KINDS)
    for order, kind in enumerate([*kinds, *sorted(others)]):
        colours = (*palette.RUNS, palette.OTHER)
        colour = colours[order % len(colours)].light
        for row, (each, total) in enumerate(zip(series, totals, strict=True)):
            scale = 100 / total if shares else 1.0
            seconds = each.times.ledger.get(kind, 0.0)
            before = sum(each.times.ledger.get(k, 0.0) for k in [*kinds, *sorted(others)][:order])
            panel.barh(
                row,
                seconds * scale,
                left=before * scale,
                height=0.5,
                color=colour,
                edgecolor=palette.PAPER.light,
                hatch=palette.HATCHES[order % len(palette.HATCHES)],
                label=shown(kind) if row == 0 else None,
            )
            if seconds * scale > _NARROWEST * widest:
                _write(panel, (before + seconds / 2) * scale, row, seconds_shown(seconds))
    for row, (each, total) in enumerate(zip(series, totals, strict=True)):
        words = f"{shown(each.label)}: {seconds_shown(total)}"
        panel.text(0, row - 0.3, words, va="bottom")
    n_lines = -(-(len(kinds) + len(others)) // _KINDS_A_LINE)
    _rows(panel, len(series), above=0.36 * n_lines)
    panel.set_xlim(0, widest)
    panel.set_xlabel("% of the run's time" if shares else "seconds")
    panel.legend(
        loc="upper left",
        ncols=_KINDS_A_LINE,
        frameon=False,
        fontsize=9,
        borderpad=0,
        columnspacing=1,
        handlelength=1.3,
        borderaxespad=0,
    )
    return Drawn()


def _write(panel: Any, x: float, row: float, words: str) -> None:
    ground = dict(facecolor=palette.PAPER.light, edgecolor="none", boxstyle="square,pad=0.15")
    panel.text(x, row, words, ha="center", va="center", fontsize=8.5, bbox=ground)


def _rows(panel: Any, n_rows: int, above: float = 0.0) -> None:
    """A row a run, the first on top, each with room for words above it, and `above` over all."""
    panel.set_ylim(n_rows - 0.6, -0.75 - above)
    panel.set_yticks([])
    panel.grid(axis="y", visible=False)
    panel.spines["left"].set_visible(False)


def seconds_shown(seconds: float) -> str:
    """Seconds in the unit in which they are read."""
    if seconds < 0.1:
        return f"{1e3 * seconds:.3g} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def draws_times(each: Series) -> bool:
    """Whether it is known what an update takes."""
    return bool(np.isfinite(each.updates.ms_U).any() or np.isfinite(each.times.update_ms))


def median_ms(each: Series) -> float:
    """An update's median: of the ledger, else of the logged updates."""
    if np.isfinite(each.times.update_ms):
        return each.times.update_ms
    return float(np.nanmedian(each.updates.ms_U))


def update_times(panel: Any, runs: Mapping[int, Series]) -> Drawn:
    """Draws a row a run: what its updates took, counted, and what an evaluation did beside them.

    Where single updates are not known the row is a bar from 5 to 95 %. A line is the median.
    """
    places = [place for each in runs.values() for place in _places_ms(each)]
    # Of updates that take all the same time a bar is left that is still seen.
    narrowest = max(np.log(max(places) / min(places)) / 90, 0.01)
    for row, (index, each) in enumerate(runs.items()):
        colour, times = palette.run_style(index)["color"], each.times
        ms_U = _logged_ms(each)
        words = f"{shown(each.label)}: update {ms_shown(median_ms(each))}"
        if len(ms_U) > 1:
            heights, edges = _histogram(np.log(ms_U), narrowest)
            tops = row + 0.3 - 0.5 * heights / heights.max()
            panel.stairs(
                tops, np.exp(edges), baseline=row + 0.3, fill=True, color=colour, alpha=0.75
            )
        elif np.isfinite([times.update_ms_low, times.update_ms_high]).all():
            low, high = times.update_ms_low, times.update_ms_high
            panel.barh(row + 0.05, high - low, left=low, height=0.3, color=colour, alpha=0.6)
            words += ", bar: 5 to 95 %"
        panel.plot([median_ms(each)] * 2, [row - 0.25, row + 0.3], color=palette.INK.light, lw=1)
        if times.evaluation_seconds > 0:
            evaluation_ms = 1e3 * times.evaluation_seconds
            panel.plot(evaluation_ms, row + 0.05, "D", color=colour, mec=palette.INK.light, ms=6)
            words += f"; evaluation {ms_shown(evaluation_ms)}"
        panel.text(0, row - 0.32, words, transform=panel.get_yaxis_transform(), va="bottom")
    _rows(panel, len(runs))
    _scale_ms(panel, min(places), max(places))
    return Drawn()


def _logged_ms(each: Series) -> np.ndarray:
    return each.updates.ms_U[np.isfinite(each.updates.ms_U) & (each.updates.ms_U > 0)]


def _places_ms(each: Series) -> list[float]:
    """Where something of a run stands on the axis of times."""
    times = each.times
    places = [median_ms(each), 1e3 * times.evaluation_seconds, *_logged_ms(each)]
    places += [times.update_ms_low, times.update_ms_high]
    return [place for place in places if np.isfinite(place) and place > 0]


def _histogram(values: np.ndarray, narrowest: float) -> tuple[np.ndarray, np.ndarray]:
    """Counts and edges of up to 40 bars, none narrower than `narrowest`."""
    low, high = values.min(), values.max()
    n_wanted = min(40, max(5, 2 * int(len(values) ** 0.5)))
    n_bars = int(min(n_wanted, (high - low) / narrowest))
    if n_bars < 1:
        middle = (low + high) / 2
        n_bars, low, high = 1, middle - narrowest / 2, middle + narrowest / 2
    return np.histogram(values, bins=n_bars, range=(low, high))


def ms_shown(value: float) -> str:
    """Milliseconds, or seconds where they are read more easily."""
    return f"{value:,.3g} ms" if value < 1000 else f"{value / 1000:,.3g} s"


def _scale_ms(panel: Any, low: float, high: float) -> None:
    from matplotlib import ticker

    panel.set_xscale("log")
    panel.set_xlim(low / 1.3, high * 1.3)
    is_short = high < 25 * low
    panel.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if is_short else (1,)))
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())
    panel.set_xlabel("ms (line: median update; diamond: an evaluation)")
