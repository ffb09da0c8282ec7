"""Laws planted in made-up runs are found again within their error bars, or refused."""

import numpy as np
import pytest

from gptjax.explain.law_fit import fit
from gptjax.explain.loss_law import Points, Undetermined

# Hoffmann et al.'s exponents; E, A and B such that tiny models gain by both.
E, A, B = 1.2, 30.0, 600.0
OF_PARAMS, OF_TOKENS = 0.34, 0.48


def planted(*, noise=0.0, seed=0, sizes=5, lengths=4, flops_per=6.0):
    rng = np.random.default_rng(seed)
    n_params, n_tokens = np.meshgrid(np.geomspace(1e5, 5e6, sizes), np.geomspace(2e5, 2e7, lengths))
    n, d = n_params.ravel(), n_tokens.ravel()
    loss = E + A / n**OF_PARAMS + B / d**OF_TOKENS
    return Points(n, d, flops_per * n * d, loss * np.exp(noise * rng.standard_normal(len(n))))


def test_an_exact_law_is_found_to_the_last_digits():
    law = fit(planted(), n_draws=3)
    assert law.floor.value == pytest.approx(E, rel=1e-3)
    assert law.of_params.value == pytest.approx(OF_PARAMS, rel=1e-3)
    assert law.of_tokens.value == pytest.approx(OF_TOKENS, rel=1e-3)
    assert law.scales == (pytest.approx(A, rel=1e-2), pytest.approx(B, rel=1e-2))
    assert law.residual < 1e-5
    found = law.loss(n_params=3e5, n_tokens=3e6, flops=1e12)
    assert found.value == pytest.approx(E + A / 3e5**OF_PARAMS + B / 3e6**OF_TOKENS, rel=1e-4)


def test_error_bars_hold_what_was_planted():
    """Of ten noisy sets nearly all three numbers lie within two errors, and errors are of use."""
    near = []
    for seed in range(10):
        law = fit(planted(noise=0.002, seed=seed), n_draws=40)
        for bar, truth in ((law.floor, E), (law.of_params, OF_PARAMS), (law.of_tokens, OF_TOKENS)):
            assert bar.error < 0.35 * truth
            near.append(abs(bar.value - truth) / bar.error)
    assert np.mean(np.array(near) < 2) > 0.8
    assert max(near) < 5
    assert np.median(near) > 0.1, "errors are not simply large"


def test_a_run_that_went_wrong_moves_little():
    points = planted(noise=0.002, seed=3)
    loss_P = points.loss_P.copy()
    loss_P[7] *= 1.5
    law = fit(Points(points.n_params_P, points.n_tokens_P, points.flops_P, loss_P), n_draws=20)
    assert law.of_params.value == pytest.approx(OF_PARAMS, abs=0.12)
    assert law.of_tokens.value == pytest.approx(OF_TOKENS, abs=0.12)


def test_the_frontier_is_the_lowest_loss_of_all_divisions():
    law = fit(planted(), n_draws=3)
    frontier, flops = law.frontier, 3e13
    n = np.geomspace(1e4, 1e8, 100_001)
    losses = E + A / n**OF_PARAMS + B / (flops / 6 / n) ** OF_TOKENS
    assert frontier.growth == pytest.approx(1)
    assert frontier.loss(flops).value == pytest.approx(losses.min(), rel=1e-4)
    assert frontier.n_params(flops).value == pytest.approx(n[losses.argmin()], rel=0.02)
    slope = np.diff(np.log([frontier.loss(c).value - law.floor.value for c in (1e13, 1e14)]))
    assert frontier.exponent.value == pytest.approx(-slope[0] / np.log(10), rel=1e-3)
    grown = np.diff(np.log([frontier.n_params(c).value for c in (1e13, 1e14)]))[0] / np.log(10)
    assert frontier.of_params.value == pytest.approx(grown, rel=1e-6)


def test_nothing_is_said_beyond_ten_times():
    points = planted()
    law = fit(points, n_draws=3)
    most = points.flops_P.max()
    law.frontier.loss(9.9 * most)
    for ask in (
        lambda: law.frontier.loss(10.1 * most),
        lambda: law.frontier.n_params(10.1 * most),
        lambda: law.loss(n_params=1e6, n_tokens=1e9, flops=25 * most),
    ):
        with pytest.raises(Undetermined, match=r"1?[0-9]+ times the largest compute measured"):
            ask()


@pytest.mark.parametrize(
    ("points", "why"),
    [
        (planted(sizes=3, lengths=2), "6 pairs of size and length"),
        (planted(sizes=2, lengths=4), "2 sizes were run"),
        (planted(sizes=4, lengths=2), "2 lengths were run"),
        (planted(noise=0.2, seed=1), "the exponent of .* the runs do not determine it"),
    ],
)
def test_points_that_do_not_determine_it_are_refused(points, why):
    with pytest.raises(Undetermined, match=why):
        fit(points, n_draws=30)


def test_sizes_and_lengths_that_change_together_are_refused():
    n = np.geomspace(1e5, 1e7, 8)
    with pytest.raises(Undetermined, match="changed together"):
        fit(Points(n, 20 * n, 120 * n**2, 1 + 30 / n**0.3))
