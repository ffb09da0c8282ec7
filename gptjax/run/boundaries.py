"""How often a run evaluates and saves, and what it keeps of that."""

from __future__ import annotations

import math

import ml_collections


def n_evaluations(config: ml_collections.ConfigDict) -> int:
    """Evaluations of a whole run: at the start, at every interval, at the end."""
    return _n_steps(config.train.max_iters, config.eval.interval)


def n_saves(config: ml_collections.ConfigDict) -> int:
    """Most checkpoints that a whole run writes: those due, and one wherever val is the best yet."""
    last, both = config.train.max_iters, math.lcm(config.eval.interval, config.checkpoint.interval)
    of_each = [_n_steps(last, n) for n in (config.eval.interval, config.checkpoint.interval)]
    return sum(of_each) - _n_steps(last, both)


def n_checkpoints(config: ml_collections.ConfigDict, n_left: int) -> int:
    """Most checkpoints on the disk at once, of a run of which `n_left` updates are left.

    The newest, the best and the one being written.
    """
    # One at the start and the end, at intervals, and wherever an evaluation is the best so far.
    written = 2 + n_left // config.checkpoint.interval + n_left // config.eval.interval
    return min(config.checkpoint.keep + 2, written)


def _n_steps(last: int, interval: int) -> int:
    """How many of 0, interval, 2·interval, … and `last` there are, up to `last`."""
    return last // interval + 1 + bool(last % interval)
