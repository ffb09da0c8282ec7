"""How many updates a call makes, and how long a run will take."""

from __future__ import annotations

import math

import ml_collections

from gptjax.run.ledger import Ledger

# Updates of about this long make a call, so that signals and the bar are never late.
CALL_SECONDS = 1.0


class Pace:
    """What follows from the time that this process's updates took so far.

    Attributes:
      eval_seconds: what the last evaluation took.
    """

    def __init__(self, config: ml_collections.ConfigDict, ledger: Ledger, *, first: int, most: int):
        """`first` updates were made before this process; a call makes `most` of them at most."""
        self._config, self._ledger, self._first, self._most = config, ledger, first, most
        self.eval_seconds = 0.0

    def updates(self, n_done: int) -> int:
        """Updates that the next call may make without keeping anybody waiting; 0 at the end."""
        config = self._config
        intervals = (config.eval.interval, config.checkpoint.interval)
        ends = [n_done - n_done % interval + interval for interval in intervals]
        left = max(0, min(*ends, config.train.max_iters) - n_done)
        return min(left, self._quick(n_done))

    def _quick(self, n_done: int) -> int:
        if self._config.train.updates_per_dispatch:
            return self._most
        if n_done == self._first:
            return 1
        return max(1, min(self._most, int(CALL_SECONDS / self._seconds_each(n_done))))

    def _seconds_each(self, n_done: int) -> float:
        return self._ledger.seconds_here("step") / (n_done - self._first)

    def left_seconds(self, n_done: int) -> float:
        """Seconds left at the pace measured so far, evaluations included."""
        left = self._config.train.max_iters - n_done
        n_evaluations = math.ceil(left / self._config.eval.interval)
        return left * self._seconds_each(n_done) + n_evaluations * self.eval_seconds

    @property
    def is_shown(self) -> bool:
        """Whether it is known by now: two calls have been made."""
        return self._ledger.seconds_here("step") > 2 * CALL_SECONDS
