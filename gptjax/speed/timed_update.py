"""Updates of a config on some of the CPUs, timed when told to: a process of core_sweep.py's.

A line of JSON on stdin says which; then each line is a number of updates, and each line printed is
the seconds one of them took, from the first, which tells that all is compiled.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time

import jax
import ml_collections
import numpy as np

from gptjax.config.config import from_flat, model_config
from gptjax.device import kernels, memory
from gptjax.device.known_run import drawn_state
from gptjax.system import cache
from gptjax.update import optim, step

# What a call may make at most. The text is as long as Tiny Shakespeare.
MOST_UPDATES = 64
_TEXT_LENGTH = 1_115_394


class TimedUpdate:
    """The program that updates a config's model, on random tokens and weights.

    Numbers do not matter to its time, so that no text is read, and nothing compiled but this.
    """

    def __init__(self, config: ml_collections.ConfigDict, vocab_size: int):
        device = jax.devices()[0]
        model, tx = model_config(config, vocab_size), optim.optimizer(config)
        kernel = kernels.choose_attention(model, device).updates
        model = kernels.with_attention(model, kernel, device)
        dropout_key = step.named_key(config.seed, "dropout") if config.model.dropout else None
        n_micro = memory.micro_batches(config, device.platform, 1)
        rng, shape = np.random.default_rng(0), (n_micro, config.train.batch_size // n_micro)
        highest = _TEXT_LENGTH - config.model.block_size - 1
        self._offsets_KAB = rng.integers(0, highest, (MOST_UPDATES, *shape), np.int32)
        self._tokens = jax.device_put(rng.integers(0, vocab_size, _TEXT_LENGTH, np.int32))
        self._state = drawn_state(model, tx)
        graph, block_size = step.model_graph(model), config.model.block_size
        train_steps = jax.jit(
            functools.partial(step.train_steps, graph, tx, dropout_key, block_size),
            donate_argnums=1,
        )
        with kernels.matmul_precision(model):
            lowered = train_steps.lower(self._tokens, self._state, self._offsets_KAB, np.int32(0))
            self._train_steps = lowered.compile()
        self.seconds(1)  # The first touches its memory for the first time.

    def seconds(self, n_updates: int) -> float:
        """Seconds of an update, on average over so many."""
        start = time.perf_counter()
        self._state, metrics = self._train_steps(
            self._tokens, self._state, self._offsets_KAB, np.int32(n_updates)
        )
        jax.block_until_ready(metrics)
        return (time.perf_counter() - start) / n_updates


def main() -> None:
    """Does what stdin says."""
    asked = json.loads(sys.stdin.readline())
    if asked["cpus"]:  # Before JAX starts its threads, one for each of them.
        os.sched_setaffinity(0, asked["cpus"])
    cache.keep_compiled_programs()
    config = from_flat(asked["config"], origin="asked for")
    timed = TimedUpdate(config, asked["vocab_size"])
    print(timed.seconds(1), flush=True)
    for line in sys.stdin:
        print(timed.seconds(int(line)), flush=True)


if __name__ == "__main__":
    main()
