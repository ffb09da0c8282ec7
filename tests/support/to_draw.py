"""Series written by hand."""

import numpy as np

from gptjax.explain.series import Evaluations, Fact, Series, Times, Updates


def series(
    label="a",
    update=(0, 10, 20, 30),
    val=(4.2, 2.5, 2.3, 2.7),
    train=(4.1, 2.4, 2.0, 1.5),
    *,
    seconds=None,
    logged=(),
    times=None,
    **facts,
):
    """A run whose losses have a standard error of 0.01; `logged` are rows of `Updates`."""
    n, unknown = len(update), np.full(len(update), np.nan)
    rows = np.array(logged, np.float64).reshape(-1, 6)
    return Series(
        label=label,
        path=f"out/{label}",
        program="gptjax",
        evaluations=Evaluations(
            update_E=np.array(update, np.float64),
            train_E=np.array(train, np.float64),
            val_E=np.array(val, np.float64),
            train_sem_E=unknown,
            val_sem_E=np.full(n, 0.01),
            seconds_E=unknown if seconds is None else np.array(seconds, np.float64),
        ),
        updates=Updates(*rows.T),
        times=times or Times(),
        facts={name: Fact(value, "log") for name, value in facts.items()},
    )


def everything(label="a", **settings):
    """A run of which all is known."""
    logged = [
        (step, 5 / step, 3 + step % 5, 1e-3 / step, 2 / step, step / 2) for step in range(1, 31)
    ]
    settings = (
        dict(
            seconds=(1, 7, 13, 19),
            logged=logged,
            times=Times(5.0, 3.0, 7.0, 30, 0.25, ledger=dict(compile=4.0, step=9.0, eval=6.0)),
            tokens_per_update=6,
            flops_per_update=7e9,
            floor_nats=0.83,
            corpus="synthetic",
        )
        | settings
    )
    return series(label, **settings)


# nanoGPT's default recipe on an M4, its public log; and its laptop recipe, on two cores.
GPU = series(
    "gpu",
    (0, 250, 500, 1000, 1500, 1750, 2000, 3000, 4000, 5000),
    (4.2823, 2.0676, 1.7326, 1.5219, 1.4852, 1.4723, 1.4811, 1.5323, 1.6342, 1.7093),
    (4.2874, 1.9639, 1.5304, 1.2775, 1.1567, 1.1025, 1.0549, 0.8658, 0.7034, 0.6175),
    times=Times(update_ms=766.0, evaluation_seconds=88.6),
    tokens_per_update=16_384,
)
LAPTOP = series(
    "laptop",
    (0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000),
    (4.1649, 2.4447, 2.3141, 2.1905, 2.0528, 2.0089, 1.9225, 1.8921, 1.8857),
    (4.1676, 2.4293, 2.2732, 2.1338, 1.9714, 1.8756, 1.8557, 1.7790, 1.7648),
    times=Times(132.0, 95.0, 1483.0, 2000),
    tokens_per_update=768,
)
