"""Pictures of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.explain.series import AXES, Series
from gptjax.system.errors import UserError
from gptjax.system.files import write_errors


def pyplot_for(flag: str, path: object) -> Any:
    """matplotlib's pyplot, drawing into files; raises UserError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            flag, path, "needs matplotlib", 'Install it: pip install -e ".[plot]".'
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


# Logged updates that a point of the dotted line is the mean of: each is one batch's loss.
_SMOOTHED = 10


def _running_mean(loss_U: np.ndarray) -> np.ndarray:
    """The mean of each few losses in a row; empty if there are fewer."""
    if len(loss_U) < _SMOOTHED:
        return loss_U[:0]
    return np.convolve(loss_U, np.full(_SMOOTHED, 1 / _SMOOTHED), "valid")


def draw_losses(
    series: Sequence[Series], path: Path, *, over: str, marks: Mapping[str, float]
) -> None:
    """Draws val of runs with its standard error over one of AXES, into a PNG file.

    `marks` are losses to compare with, by label: each is a line across.

    Raises:
      UserError: if matplotlib is not installed.
    """
    pyplot = pyplot_for("--png", path)
    figure, panel = pyplot.subplots(figsize=(8, 4.5))
    left = math.inf
    for each in series:
        evaluations, x_E, best = each.evaluations, each.x_E(over), each.best
        if x_E is None or best is None:
            raise UserError("run", each.label, f"{AXES[over]} are not known of it")
        # The evaluation before the first update has no place on a logarithmic axis.
        is_drawn = (evaluations.update_E > 0) & np.isfinite(evaluations.val_E)
        x, val = x_E[is_drawn], evaluations.val_E[is_drawn]
        sem = np.nan_to_num(evaluations.val_sem_E[is_drawn])
        left = min(left, x.min())
        (line,) = panel.plot(x, val, "o-", markersize=3)
        panel.fill_between(x, val - sem, val + sem, color=line.get_color(), alpha=0.25, lw=0)
        smooth, x_U = _running_mean(each.updates.loss_U), each.x_U(over)
        if x_U is not None:
            x_smooth = x_U[len(x_U) - len(smooth) :]
            panel.plot(x_smooth, smooth, ":", color=line.get_color(), lw=1)
        x_best, val_best = x_E[best], evaluations.val_E[best]
        panel.plot(x_best, val_best, "*", color=line.get_color(), ms=11)
        panel.annotate(
            f"{each.label}: {val_best:.4f}",
            (x_best, val_best),
            textcoords="offset points",
            xytext=(8, 4),
            color=line.get_color(),
            bbox=dict(facecolor="white", edgecolor="none", alpha=0.8, pad=1),
        )
    _, right = panel.get_xlim()
    for label, loss in marks.items():
        panel.axhline(loss, color="gray", lw=1, ls="--")
        panel.annotate(
            f"{label}: {loss}",
            (0.01, loss),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            xytext=(0, 3),
            color="dimgray",
            fontsize=9,
        )
    panel.set_xscale("log")
    # Room for the labels at the ends of the curves.
    panel.set_xlim(left / 2, right * 8)
    panel.set_xlabel(AXES[over])
    panel.set_ylabel("loss, nats per token (val; dotted: training batches)")
    panel.grid(alpha=0.2)
    figure.tight_layout()
    with write_errors(path):
        figure.savefig(path, dpi=120)
    pyplot.close(figure)
