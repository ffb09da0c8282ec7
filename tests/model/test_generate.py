"""Drawing a token: nanoGPT's distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.model import generate


def nanogpt_shares(logits_V, temperature, top_k):
    """nanoGPT's distribution, by hand in float64."""
    scaled_V = logits_V.astype(np.float64) / temperature
    if top_k:
        scaled_V[scaled_V < np.sort(scaled_V)[-min(top_k, len(scaled_V))]] = -np.inf
    shares_V = np.exp(scaled_V - scaled_V.max())
    return shares_V / shares_V.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, 0), (0.8, 0), (1.7, 3), (0.5, 1), (1.0, 200)]
)
def test_draws_follow_nanogpts_distribution(temperature, top_k):
    logits_V = np.array([0.3, -1.0, 2.0, 2.0, 0.0, -3.0, 1.1], np.float32)
    n_draws = 20_000
    drawn_B = generate.sample_token(
        jnp.tile(jnp.asarray(logits_V), (n_draws, 1)),
        jax.random.split(jax.random.key(0), n_draws),
        temperature=jnp.float32(temperature),
        top_k=top_k,
    )
    counts_V = np.bincount(np.asarray(drawn_B), minlength=7)
    wanted_V = nanogpt_shares(logits_V.copy(), temperature, top_k) * n_draws
    assert (counts_V[wanted_V == 0] == 0).all()
    likely = wanted_V > 0
    chi_square = ((counts_V - wanted_V)[likely] ** 2 / wanted_V[likely]).sum()
    # Six degrees of freedom: beyond 22.5 once in a thousand seeds.
    assert chi_square < 22.5


def test_top_k_keeps_ties():
    """Two symbols share second place: top_k=2 keeps three, as nanoGPT's comparison does."""
    logits_BV = jnp.tile(jnp.asarray([3.0, 1.0, 1.0, 0.0]), (500, 1))
    drawn_B = generate.sample_token(
        logits_BV, jax.random.split(jax.random.key(0), 500), temperature=jnp.float32(1), top_k=2
    )
    assert set(np.asarray(drawn_B).tolist()) == {0, 1, 2}


def test_temperature_zero_is_greedy():
    logits_BV = jnp.asarray(np.random.default_rng(0).normal(size=(50, 5)), jnp.float32)
    drawn_B = generate.sample_token(
        logits_BV, jax.random.split(jax.random.key(0), 50), temperature=jnp.float32(0), top_k=3
    )
    np.testing.assert_array_equal(drawn_B, np.argmax(logits_BV, axis=-1))
