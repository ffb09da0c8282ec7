"""All that a plan found out, and its numbers for JSON."""

from __future__ import annotations

import dataclasses
from typing import Any

from gptjax.device.place import Place
from gptjax.run.planned_data import PlannedData
from gptjax.speed.fitting import Change
from gptjax.speed.outlook import Counts, Times
from gptjax.speed.pace import Pace
from gptjax.speed.simulated import Simulated


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that is known of a run before it starts.

    Attributes:
      simulated: what each device needs and sends; None if the update could not be compiled.
      measured: what was timed; None if nothing was.
      free_bytes: on the disk of the run directory.
      dollars: what the run costs; 0.0 if no price was given.
      change: what makes it fit, if it does not and anything does.
    """

    where: Place
    data: PlannedData
    counts: Counts
    simulated: Simulated | None
    measured: Pace | None
    times: Times
    free_bytes: int
    dollars: float
    dollars_per_hour: float
    change: Change | None
    warnings: list[str]

    @property
    def checkpoint_bytes(self) -> int:
        """A checkpoint's, on the disk."""
        if self.measured and self.measured.checkpoint_bytes:
            return self.measured.checkpoint_bytes
        return self.state_bytes

    @property
    def state_bytes(self) -> int:
        """Weights and optimizer, whole."""
        return self.simulated.footprint.whole_state if self.simulated else 12 * self.counts.n_params

    @property
    def disk_bytes(self) -> int:
        """All checkpoints that are there at once."""
        return self.counts.n_checkpoints * self.checkpoint_bytes


def to_json(plan: Plan) -> dict[str, Any]:
    """All numbers of a plan, seconds and bytes."""
    found, measured = plan.simulated, plan.measured
    footprint = found and {
        **dataclasses.asdict(found.footprint),
        "total": found.footprint.total,
        "available": plan.where.memory_bytes,
    }
    return {
        "place": dataclasses.asdict(plan.where),
        "data": {
            "n_symbols": plan.data.n_symbols,
            "n_tokens": plan.data.n_tokens,
            "source": plan.data.source,
        },
        "counts": dataclasses.asdict(plan.counts),
        "memory_of_each_device": footprint,
        "process_peak_bytes": measured.peak_bytes if measured else 0,
        "traffic": [dataclasses.asdict(each) for each in found.traffic] if found else [],
        "checkpoint_bytes": plan.checkpoint_bytes,
        "disk_bytes": plan.disk_bytes,
        "free_bytes": plan.free_bytes,
        "measured": measured and dataclasses.asdict(measured),
        "seconds": {**dataclasses.asdict(plan.times), "total": plan.times.total},
        "dollars": plan.dollars,
        "change_that_fits": dict(plan.change.knobs) if plan.change else None,
        "warnings": plan.warnings,
    }
