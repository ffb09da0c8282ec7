"""Where a run's wall-clock time went."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import gptjax

KINDS = ("compile", "data", "wait", "step", "eval", "checkpoint", "sample", "other")

# Step times are kept as a histogram of 2 % wide bins: percentiles without a growing list.
_BINS_PER_E = 50


class Ledger:
    """Seconds per kind of work since the command started, plus those of earlier processes.

    `other` is what no `measure` block covered; blocks must not nest, so kinds never overlap.
    """

    def __init__(self, earlier: dict[str, Any] | None = None, *, started: float = gptjax.STARTED):
        """`earlier` is an earlier process's as JSON; `started` when this one began with the run."""
        self._started = started
        self._seconds = dict.fromkeys(KINDS, 0.0)
        self._earlier = dict((earlier or {}).get("seconds", {}))
        bins = (earlier or {}).get("step_ms_bins", {})
        self._step_bins = {int(key): int(count) for key, count in bins.items()}
        self._open: str | None = None
        self._hosts: dict[str, float] = {}

    @contextlib.contextmanager
    def measure(self, kind: str) -> Iterator[None]:
        """Adds the time spent inside to `kind`."""
        assert self._open is None, f"{kind} inside {self._open}"
        self._open = kind
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[kind] += time.perf_counter() - start
            self._open = None

    def count_steps(self, n_updates: int, seconds: float) -> None:
        """Notes that `n_updates` updates took `seconds` together."""
        step_ms = max(1e3 * seconds / n_updates, 1e-6)
        key = round(_BINS_PER_E * math.log(step_ms))
        self._step_bins[key] = self._step_bins.get(key, 0) + n_updates

    def count_hosts(self, seconds: Mapping[str, float]) -> None:
        """Adds what each of several processes took for its equal share of the same work."""
        for name, value in seconds.items():
            self._hosts[name] = self._hosts.get(name, 0.0) + value

    def hosts_to_json(self) -> dict[str, Any]:
        """What each of several processes took, as the log has it; {} for one alone."""
        return {"eval_seconds_of_hosts": dict(self._hosts)} if self._hosts else {}

    def process_seconds(self) -> float:
        """Seconds of this process: since it began to be gptjax, or since `started`."""
        return time.perf_counter() - self._started

    def run_seconds(self) -> float:
        """Seconds of this process and of the run's earlier ones."""
        return self.process_seconds() + sum(self._earlier.values())

    def seconds_here(self, kind: str) -> float:
        """Seconds this process has spent on `kind`."""
        return self._seconds[kind]

    def step_ms(self, quantile: float) -> float:
        """The quantile of the updates' times, in ms, to 2 %; 0 before the first update."""
        wanted = quantile * sum(self._step_bins.values())
        passed = 0
        for key in sorted(self._step_bins):
            passed += self._step_bins[key]
            if passed >= wanted:
                return math.exp(key / _BINS_PER_E)
        return 0.0

    def to_json(self) -> dict[str, Any]:
        """Wall time and its parts, which sum to it, and the step times; `Ledger(it)` goes on."""
        wall = self.process_seconds()
        self._seconds["other"] = wall - sum(
            seconds for kind, seconds in self._seconds.items() if kind != "other"
        )
        return {
            "wall_seconds": wall + sum(self._earlier.values()),
            "seconds": {kind: self._seconds[kind] + self._earlier.get(kind, 0.0) for kind in KINDS},
            "step_ms_median": self.step_ms(0.5),
            "step_ms_p95": self.step_ms(0.95),
            "step_ms_bins": {str(key): count for key, count in sorted(self._step_bins.items())},
        }
