"""What a config's updates, evaluations and saves take here, measured as train.py makes them.

As a process its one argument is the config as JSON, and it prints what it measured as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import sys
import time

import jax
import ml_collections

from gptjax.config.config import flat, from_flat
from gptjax.device import memory
from gptjax.device.devices import machine
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.inputs import Inputs
from gptjax.run.ledger import Ledger
from gptjax.run.planned_data import planned_data
from gptjax.run.resume import ResumePlan
from gptjax.run.saver import Saver
from gptjax.run.silence import orbax_in_silence
from gptjax.speed.process import peak_bytes, run
from gptjax.speed.stepper import Stepper
from gptjax.system import cache
from gptjax.system.files import temporary_folder
from gptjax.system.interrupt import STARTED
from gptjax.system.room import folder_bytes

# Updates are timed so often.
_TURNS = 5

# A larger state is not written to find out how long that takes.
_MOST_BYTES_SAVED = 2**30


@dataclasses.dataclass(frozen=True)
class Pace:
    """What was measured, seconds and bytes.

    Attributes:
      start_seconds: from the start of this process until updates could be made.
      update_seconds: of an update, in each of five turns.
      n_updates: updates of a turn.
      evaluation_seconds: of an evaluation of both splits.
      save_seconds: until a checkpoint is on the disk; 0.0 if none was written.
      checkpoint_bytes: what it took there; 0 if none was written.
      peak_bytes: most memory that this process has held on a CPU, or on a GPU; 0: it is not told.
      mfu: share of the peak that the updates make use of.
      peak_flops_per_s: that peak, and where it is from.
      peak_source: …
    """

    start_seconds: float
    update_seconds: tuple[float, ...]
    n_updates: int
    evaluation_seconds: float
    save_seconds: float
    checkpoint_bytes: int
    peak_bytes: int
    mfu: float
    peak_flops_per_s: float
    peak_source: str

    @property
    def seconds(self) -> float:
        """An update's, the median of all turns."""
        return statistics.median(self.update_seconds)


def pace_apart(config: ml_collections.ConfigDict) -> Pace:
    """As `pace`, measured by a process that does nothing else.

    Raises:
      RunError: if it fails.
    """
    command = [sys.executable, "-m", "gptjax.speed.pace", json.dumps(flat(config))]
    found = json.loads(run(command).lines[-1][1])
    return Pace(**{**found, "update_seconds": tuple(found["update_seconds"])})


def pace(config: ml_collections.ConfigDict, inputs: Inputs) -> Pace:
    """Makes a config's updates, an evaluation and two checkpoints, in a folder that goes again.

    Raises:
      UserError: if train.py would refuse to start.
    """
    orbax_in_silence()  # It takes memory, in a run as well.
    stepper = Stepper(config, inputs)
    start_seconds = time.time() - STARTED
    updates = tuple(stepper.time_updates() for _ in range(_TURNS))
    start = time.perf_counter()
    stepper.program.losses(step=0)
    evaluation_seconds = time.perf_counter() - start
    save_seconds, checkpoint_bytes = _save(config, inputs, stepper)
    device = jax.devices()[0]
    mfu, peak = stepper.mfu(statistics.median(updates)), stepper.program.peak
    # With the products that tell the peak, which a run makes as well.
    is_cpu = device.platform == "cpu"
    held = peak_bytes(os.getpid()) if is_cpu else memory.peak_memory_bytes(device)
    return Pace(
        start_seconds,
        updates,
        stepper.n_updates,
        evaluation_seconds,
        save_seconds,
        checkpoint_bytes,
        held,
        mfu,
        peak.flops_per_s,
        peak.source,
    )


def _save(config: ml_collections.ConfigDict, inputs: Inputs, stepper: Stepper) -> tuple[float, int]:
    """Seconds and bytes of a checkpoint; zeros if it would be large."""
    state = stepper.program.state
    if sum(leaf.nbytes for leaf in jax.tree.leaves(state)) > _MOST_BYTES_SAVED:
        return 0.0, 0
    best, devices = {"step": -1, "val_nats": None}, jax.devices()
    with temporary_folder() as folder, Checkpoints(folder, keep=1) as checkpoints:
        saver = Saver(checkpoints, ResumePlan(config, []), inputs, Ledger(), machine(devices))
        saver.save(state, best=best, val_nats=None)  # What is slow but once, at the first.
        saver.wait()
        stepper.time_updates()
        start = time.perf_counter()
        saver.save(stepper.program.state, best=best, val_nats=None)
        saver.wait()
        seconds = time.perf_counter() - start
        written = folder_bytes(folder / "checkpoints" / str(saver.step))
    return seconds, written


def main() -> None:
    """Does what the argument says."""
    cache.keep_compiled_programs()
    config = from_flat(json.loads(sys.argv[1]), origin="asked for")
    print(json.dumps(dataclasses.asdict(pace(config, planned_data(config).inputs))))


if __name__ == "__main__":
    main()
