"""The time of an update on fewer CPUs, or in another type, beside that on all of them.

XLA sizes its threads, and splits its work, by the CPUs a process may use when it starts: so each
variant is a process of its own. They take turns, so that a machine that slows down slows all.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import ml_collections

from gptjax.config.config import flat
from gptjax.speed.process import child_process, failure_of
from gptjax.speed.timed_update import MOST_UPDATES
from gptjax.speed.timing import Timing, Variant
from gptjax.system.errors import RunError

# Turns of each variant, and how long each is.
_TURNS = 5
_TURN_SECONDS = 0.25

# As many beside the first at once: each takes half a gigabyte.
_MOST_AT_ONCE = 3

# Kept for turns when the processes take long to compile.
_RESERVED_SECONDS = 2.0

_LATE = "not measured, no time left"


class OutOfTime(Exception):
    """A process did not answer before the time was over."""


class Worker:
    """A process that makes a variant's updates; it does not outlive the block."""

    def __init__(self, config: ml_collections.ConfigDict, vocab_size: int, variant: Variant):
        values = {**flat(config), "model.dtype": variant.dtype}
        self._asked = {"cpus": variant.cpus, "config": values, "vocab_size": vocab_size}
        self._lines: queue.Queue[str] = queue.Queue()
        self._stack = contextlib.ExitStack()
        self._first_seconds: float | None = None

    def __enter__(self) -> Worker:
        self._command = [sys.executable, "-m", "gptjax.speed.timed_update"]
        process = child_process(self._command, None, {"JAX_PLATFORMS": "cpu"}, is_talked_to=True)
        self._child, self._errors = self._stack.enter_context(process)
        threading.Thread(target=self._read, daemon=True).start()
        self._say(json.dumps(self._asked))
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        self._stack.close()

    def end(self) -> None:
        """Ends the process, whatever it does; it has nothing to save."""
        self._child.kill()

    def ready(self, until: float) -> float:
        """Seconds of its first update, once it is compiled; raises as `seconds`."""
        if self._first_seconds is None:
            self._first_seconds = self._answer(until)
        return self._first_seconds

    def seconds(self, n_updates: int, until: float) -> float:
        """Seconds of an update, on average over so many.

        Raises:
          OutOfTime: if there is no answer before `until`, a time of time.perf_counter's.
          RunError: if the process ended.
        """
        self._say(str(n_updates))
        return self._answer(until)

    def _say(self, line: str) -> None:
        # A process that has ended cannot be told; its answer, which does not come, says why.
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()

    def _answer(self, until: float) -> float:
        try:
            line = self._lines.get(timeout=max(0.0, until - time.perf_counter()))
        except queue.Empty:
            raise OutOfTime from None
        if not line:
            self._lines.put(line)  # Nor is there an answer the next time.
            raise failure_of(self._command, self._child.wait(), self._errors)
        return float(line)

    def _read(self) -> None:
        # The pipe is closed under it at the end.
        with contextlib.suppress(ValueError, OSError):
            for line in self._child.stdout:
                self._lines.put(line)
        self._lines.put("")


def sweep(
    config: ml_collections.ConfigDict,
    vocab_size: int,
    variants: Sequence[Variant],
    *,
    until: float,
    say: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> list[Timing]:
    """Times the variants in turns with the first of them, as many as there is time for.

    Args:
      until: when to be done, a time of time.perf_counter's.
      say: is told how far it is.
      meanwhile: what to do while the first process compiles.

    Raises:
      RunError: if a process ends that had answered before.
    """
    first, *waiting = variants
    found: dict[Variant, Timing] = {}
    # More compile no faster side by side, and what is begun is to be ended.
    at_once = min(_MOST_AT_ONCE, max(1, len(first.cpus) // 2))
    with Worker(config, vocab_size, first) as baseline:
        meanwhile()
        # What all are compared with is compiled before the others: on a busy machine it may be all
        # that there is time for. If it is not, its timing says why.
        with contextlib.suppress(OutOfTime, RunError):
            baseline.ready(until - _RESERVED_SECONDS)
        while not found or waiting:
            wave, waiting = waiting[:at_once], waiting[at_once:]
            start = time.perf_counter()
            with contextlib.ExitStack() as stack:
                workers = {first: baseline}
                for variant in wave:
                    worker = Worker(config, vocab_size, variant)
                    workers[variant] = stack.enter_context(worker)
                timings = _timings(first, workers, until)
            found |= {variant: each for variant, each in timings.items() if variant not in found}
            n_timed = sum(bool(each.ms) for each in found.values())
            say(f"timed {n_timed} of {len(variants)}")
            seconds = time.perf_counter() - start
            if found[first].skipped or time.perf_counter() + seconds > until:
                break
    return [found.get(variant, Timing(variant, skipped=_LATE)) for variant in variants]


def _timings(
    first: Variant, workers: Mapping[Variant, Worker], until: float
) -> dict[Variant, Timing]:
    """The timings of processes that run at once, in turns."""
    skipped: dict[Variant, str] = {}
    estimates: dict[Variant, float] = {}
    for variant, worker in workers.items():
        try:
            estimates[variant] = worker.ready(until - _RESERVED_SECONDS)
        except OutOfTime:
            skipped[variant] = _LATE
            worker.end()  # It is not to disturb the others.
        except RunError as error:
            skipped[variant] = f"not measured: {error}"
    timings = {variant: Timing(variant, skipped=why) for variant, why in skipped.items()}
    taken = _in_turns({variant: workers[variant] for variant in estimates}, estimates, until)
    for variant, times in taken.items():
        if not times:
            timings[variant] = Timing(variant, skipped=_LATE)
            continue
        ratios: tuple[float, ...] = ()
        if variant != first and taken.get(first):
            ratios = tuple(a / b for a, b in zip(times, taken[first], strict=True))
        timings[variant] = Timing(variant, tuple(1e3 * each for each in times), ratios)
    return {variant: timings[variant] for variant in workers}


def _in_turns(
    workers: Mapping[Variant, Worker], estimates: Mapping[Variant, float], until: float
) -> dict[Variant, list[float]]:
    """Seconds of an update in each turn, as many turns of all of them as there is time for."""
    taken: dict[Variant, list[float]] = {variant: [] for variant in workers}
    n_updates = {
        variant: min(MOST_UPDATES, max(1, int(_TURN_SECONDS / estimates[variant])))
        for variant in workers
    }
    needed = sum(n_updates[variant] * estimates[variant] for variant in workers)
    for _ in range(_TURNS):
        if time.perf_counter() + needed > until:
            break
        try:
            turn = {v: worker.seconds(n_updates[v], until) for v, worker in workers.items()}
        except OutOfTime:
            break
        for variant, seconds in turn.items():
            taken[variant].append(seconds)
    return taken
