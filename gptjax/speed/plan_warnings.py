"""What of a config may not be meant, told before anything is spent on it."""

from __future__ import annotations

from collections.abc import Iterator

import ml_collections
import numpy as np

from gptjax.config.config import decay_iters
from gptjax.run.planned_data import PlannedData
from gptjax.speed.outlook import Counts
from gptjax.update.optim import learning_rate

# Read more often without dropout, a text is learnt by heart: the laptop's recipes overfit from
# about there on.
_MOST_EPOCHS = 20


def warnings(config: ml_collections.ConfigDict, data: PlannedData, counts: Counts) -> Iterator[str]:
    """Sentences, each with what can be done."""
    yield from _schedule(config)
    if counts.epochs and counts.epochs > _MOST_EPOCHS and not config.model.dropout:
        n_updates = int(_MOST_EPOCHS * data.n_tokens["train"] / counts.update_tokens)
        yield (
            f"{counts.epochs:,.0f} epochs without dropout: more than {_MOST_EPOCHS}, and the text "
            f"is learnt by heart. Set --config.model.dropout=0.2, or make {n_updates:,} updates"
        )
    yield from _lengths(config, data)


def _schedule(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Whether the learning rate ends where the run does."""
    last, horizon, warmup = config.train.max_iters, decay_iters(config), config.optim.warmup_iters
    if not last:
        return
    final = float(learning_rate(config)(np.int32(last - 1)))
    peak = config.optim.learning_rate
    fix = "Set --config.optim.lr_decay_iters=0, which means train.max_iters"
    if last <= warmup:
        yield (
            f"the run ends while it warms up: {last:,} updates, warmup_iters {warmup:,}; "
            f"the learning rate gets to {final:.3g} of {peak:.3g}. "
            f"Set --config.optim.warmup_iters={last // 20}"
        )
    elif config.optim.schedule != "constant" and horizon > last:
        yield (
            f"the schedule is longer than the run: lr_decay_iters {horizon:,}, {last:,} updates; "
            f"the learning rate ends at {final:.3g}, not at {config.optim.min_lr:.3g}. {fix}"
        )
    elif config.optim.schedule != "constant" and horizon < last:
        yield (
            f"the schedule is shorter than the run: the last {last - horizon:,} of {last:,} "
            f"updates are made at min_lr {config.optim.min_lr:.3g}. {fix}"
        )


def _lengths(config: ml_collections.ConfigDict, data: PlannedData) -> Iterator[str]:
    """Whether each split fills a window."""
    block_size = config.model.block_size
    for split, n_tokens in data.n_tokens.items():
        if 0 < n_tokens <= block_size:
            yield (
                f"a context of {block_size:,} is longer than {split}, which has {n_tokens:,} "
                f"tokens: train.py will refuse it. Set --config.model.block_size={n_tokens - 1}, "
                "or add text"
            )
