"""What a run that goes on does otherwise than before, in words."""

from __future__ import annotations

import jax.numpy as jnp
import ml_collections

from gptjax.run.progress import Notice
from gptjax.update.optim import learning_rate


def learning_rate_jump(
    before: ml_collections.ConfigDict, now: ml_collections.ConfigDict, step: int
) -> list[Notice]:
    """A warning if the next update's learning rate jumps by over 1 %."""
    index = jnp.asarray(step, jnp.int32)
    was, becomes = float(learning_rate(before)(index)), float(learning_rate(now)(index))
    if abs(becomes - was) <= 0.01 * max(was, becomes):
        return []
    words = f"the learning rate of update {step} jumps from {was:.3g} to {becomes:.3g}"
    return [Notice(words, "warning")]
