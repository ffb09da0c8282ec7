"""Updates made for the sake of their time: a config's program without a run around it."""

from __future__ import annotations

import time

import ml_collections

from gptjax.config.config import validate
from gptjax.device.devices import available_devices, choose_devices
from gptjax.run.inputs import Inputs, read_inputs
from gptjax.run.program import compile_trainer
from gptjax.system.output import waiting

# Updates are timed for this long at least; of a large model it is a single one.
_TIMED_SECONDS = 1.5

# As in a run that has lasted so long: every product that tells the peak is timed once.
_SECONDS_FOR_PEAK = 60.0


class Stepper:
    """The program that train.py would run for a config, with its text and initial weights.

    Attributes:
      n_updates: updates timed at once, enough that its ends do not matter.
    """

    def __init__(self, config: ml_collections.ConfigDict, inputs: Inputs | None = None):
        """`inputs` stand in for the config's own text. Raises UserError as train.py would."""
        validate(config)
        found, _ = available_devices(config.mesh.cpu_devices, config.mesh.gpu_memory)
        inputs, devices = inputs or read_inputs(config), choose_devices(found, config)
        with waiting("compiling"):
            self.program = compile_trainer(config, inputs, devices)
        self._n_done = 0
        self._make(1)  # The first update touches its memory for the first time.
        seconds = self._make(1)
        self.n_updates = max(
            1, min(self.program.max_updates_per_call, int(_TIMED_SECONDS / seconds))
        )

    def time_updates(self) -> float:
        """Seconds of an update, on average over `n_updates`, choosing its batches included."""
        return self._make(self.n_updates) / self.n_updates

    def mfu(self, seconds: float) -> float:
        """The share of the peak that updates of so many seconds make use of: 1 at most."""
        self.program.measure_peak(_SECONDS_FOR_PEAK)
        self.program.raise_peak(self.program.flops / seconds)
        return self.program.flops / seconds / self.program.peak.flops_per_s

    def _make(self, n_updates: int) -> float:
        start = time.perf_counter()
        self.program.train(self.program.batches(self._n_done, n_updates), n_updates)
        self._n_done += n_updates
        return time.perf_counter() - start
