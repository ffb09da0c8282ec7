"""An update compiled for devices that are not there: the CPU stands in for each of them.

As a process of its own, since JAX counts its devices once. A line of JSON, its one argument, says
what; it prints what the update needs of each device and what they send one another.
"""

from __future__ import annotations

import dataclasses
import json
import sys

import jax
import ml_collections

from gptjax.config.config import flat, from_flat
from gptjax.device.collectives import Traffic, traffic
from gptjax.run.footprint import Footprint, compiled_update
from gptjax.run.planned_data import PlannedData
from gptjax.speed.process import run
from gptjax.system import cache


@dataclasses.dataclass(frozen=True)
class Simulated:
    """What each device needs and sends in an update."""

    footprint: Footprint
    traffic: list[Traffic]


def simulated(
    config: ml_collections.ConfigDict, data: PlannedData, *, n_devices: int, platform: str
) -> Simulated:
    """The update of a config, compiled for so many devices of a platform, "cpu" or "gpu".

    Raises:
      RunError: if it cannot be compiled.
    """
    asked = {
        "config": flat(config),
        "n_symbols": data.n_symbols,
        "n_tokens": data.n_compiled,
        "token_dtype": str(data.inputs.splits.train.dtype),
        "n_devices": n_devices,
        "platform": platform,
    }
    command = [sys.executable, "-m", "gptjax.speed.simulated", json.dumps(asked)]
    finished = run(command, environment={"JAX_PLATFORMS": "cpu"})
    found = json.loads(finished.lines[-1][1])
    sent = [Traffic(**each) for each in found["traffic"]]
    return Simulated(Footprint(**found["footprint"]), sent)


def main() -> None:
    """Does what the argument says."""
    asked = json.loads(sys.argv[1])
    n_devices = asked["n_devices"]
    jax.config.update("jax_num_cpu_devices", n_devices)
    cache.keep_compiled_programs()
    compiled = compiled_update(
        from_flat(asked["config"], origin="asked for"),
        jax.devices(),
        n_symbols=asked["n_symbols"],
        n_tokens=asked["n_tokens"],
        token_dtype=asked["token_dtype"],
        platform=asked["platform"],
    )
    sent = traffic(compiled.hlo_text(), n_devices) if n_devices > 1 else []
    found = {
        "footprint": dataclasses.asdict(compiled.footprint),
        "traffic": [dataclasses.asdict(each) for each in sent],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
