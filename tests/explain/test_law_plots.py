"""A sweep's picture shows its runs, its law and how far that reaches."""

import numpy as np
import pytest
import swept

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from gptjax.explain import law_plots
from gptjax.explain.sweep_findings import findings


def panel():
    return Figure(figsize=(5, 3.6), dpi=72).subplots()


def test_runs_law_and_frontier_stand_over_compute():
    found, axes = findings(swept.sweep(scatter=0), run_seconds=60), panel()
    drawn = law_plots.over_compute(axes, found)
    runs = axes.lines[0].get_xydata()
    wanted = [[6 * 1e5 * 700 * n, swept.law(1e5, 700 * n)] for n in (400, 1600, 6400)]
    np.testing.assert_allclose(runs, wanted)
    flops, losses = axes.lines[1].get_xydata().T
    np.testing.assert_allclose(losses, swept.law(1e5, flops / 6e5), rtol=1e-3)
    words = [label.text for label in drawn.labels]
    assert [text.get_text() for text in axes.texts] == ["100k", "300k", "800k", "2M"]
    assert words[-1].startswith("asked: ") and any("falls as C^-0.2" in w for w in words)
    # The frontier is below all sizes' laws, and ends at ten times.
    frontier = next(
        line.get_xydata()
        for line in axes.lines
        if line.get_xydata()[-1, 0] > 9.9 * runs[-1, 0] * 20
    )
    assert frontier[-1, 0] == pytest.approx(10 * found.most_flops, rel=0.01)
    for flops, loss in frontier[5:-12:5]:
        assert loss <= min(swept.law(n, flops / 6 / n) for n in swept.SIZES.values()) + 1e-3


def test_without_a_law_runs_alone_are_drawn():
    axes = panel()
    found = findings(swept.sweep(sizes=("n_embd 64", "n_embd 192")), run_seconds=60)
    drawn = law_plots.over_compute(axes, found)
    assert [text.get_text() for text in axes.texts] == ["100k", "2M"] and not drawn.labels


def test_rates_are_drawn_where_there_are_several():
    found, axes = findings(swept.sweep(scatter=0), run_seconds=60), panel()
    law_plots.over_rates(axes, found)
    rates, vals = axes.lines[0].get_xydata().T
    assert rates.tolist() == [1e-3, 2e-3, 4e-3] and vals.argmin() == 1
    assert law_plots.picture_file(found, "a.png")[:4] == b"\x89PNG"
