"""Updates made for the sake of their time: a config's program without a run around it."""

from __future__ import annotations

import tempfile
import time

import ml_collections

from gptjax.config.config import set_knob
from gptjax.device import mesh
from gptjax.run.program import Program
from gptjax.run.resume import find_origin
from gptjax.train import Run

# A burst is this long at least; one of a large model is a single update.
_BURST_SECONDS = 1.5


class Stepper:
    """The program that train.py would run for a config, with its text and initial weights.

    Attributes:
      n_updates: updates in a burst, enough that the burst's ends do not matter.
    """

    def __init__(self, config: ml_collections.ConfigDict):
        """Raises UserError for whatever train.py would refuse."""
        config = config.copy_and_resolve_references()
        with tempfile.TemporaryDirectory() as folder:
            set_knob(config, "out_dir", f"{folder}/run")
            found, _ = mesh.available_devices(config.mesh.cpu_devices, config.mesh.gpu_memory)
            devices = mesh.choose_devices(found, config)
            self.program: Program = Run(find_origin(config, []), mesh.machine(devices)).compiled(
                devices
            )
        self._n_done = 0
        self._make(1)  # The first update touches its memory for the first time.
        seconds = self._make(1)
        self.n_updates = max(1, min(self.program.n_slots, int(_BURST_SECONDS / seconds)))

    def burst(self) -> float:
        """Seconds of an update, on average over `n_updates`, choosing its batches included."""
        return self._make(self.n_updates) / self.n_updates

    def mfu(self, seconds: float) -> float:
        """The share of the peak that updates of so many seconds make use of."""
        return self.program.flops / seconds / self.program.peak.flops_per_s

    def _make(self, n_updates: int) -> float:
        start = time.perf_counter()
        self.program.train(self.program.offsets(self._n_done, n_updates), n_updates)
        self._n_done += n_updates
        return time.perf_counter() - start
