"""Runs of a made-up sweep that follow a known law, for what is said and drawn of it."""

import numpy as np

from gptjax.explain.sweep_findings import SweptRun

E, A, B = 1.2, 30.0, 600.0
OF_PARAMS, OF_TOKENS = 0.34, 0.48
TOKENS_AN_UPDATE = 700

SIZES = {"n_embd 64": 1e5, "n_embd 96": 3e5, "n_embd 128": 8e5, "n_embd 192": 2e6}
# The middle rate is the best for all, by this much.
RATES = {1e-3: 0.05, 2e-3: 0.0, 4e-3: 0.02}


def law(n_params, n_tokens):
    return E + A / n_params**OF_PARAMS + B / n_tokens**OF_TOKENS


def run(size, rate, n_updates, *, noise=0.0, seed=1, failed=""):
    """One; an update takes a microsecond for 100 parameters."""
    n_params, n_tokens = SIZES[size], TOKENS_AN_UPDATE * n_updates
    return SweptRun(
        setting=f"{size}, learning_rate {rate}",
        values={"optim.learning_rate": rate, "train.max_iters": n_updates, "seed": seed},
        failed=failed,
        val_nats=law(n_params, n_tokens) + RATES[rate] + noise,
        val_sem=0.004,
        n_params=int(n_params),
        n_tokens=n_tokens,
        flops=6 * n_params * n_tokens,
        update_seconds=n_params / 1e8,
    )


def sweep(*, sizes=tuple(SIZES), lengths=(400, 1600, 6400), scatter=0.002, rates=tuple(RATES)):
    """All sizes at all lengths and rates."""
    rng = np.random.default_rng(5)
    return [
        run(size, rate, n, noise=scatter * rng.standard_normal())
        for size in sizes
        for rate in rates
        for n in lengths
    ]
