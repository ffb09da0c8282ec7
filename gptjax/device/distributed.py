"""A run's processes, joined by JAX's distributed runtime: jax.devices() are those of all."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax._src import clusters, distributed

from gptjax.device import coordinator
from gptjax.system import hosts, output, rollcall, uncaught
from gptjax.system.errors import RunError, UserError
from gptjax.system.hosts import Hosts
from gptjax.system.rollcall import Place

# What each kind of cluster sets for each process it starts, and how many there are, where it says.
# JAX's classes of jax._src.clusters read the same, and the coordinator's address.
_CLUSTERS = {
    "SLURM_STEP_NODELIST": "SLURM_NTASKS",
    "OMPI_MCA_orte_hnp_uri": "OMPI_COMM_WORLD_SIZE",
    "JOB_COMPLETION_INDEX": "",
}

# All processes are there when they join JAX's runtime: it takes a moment. Seconds.
_JOIN_SECONDS = 120


@contextlib.contextmanager
def joined(asked: Place) -> Iterator[Hosts]:
    """The processes of the run, joined; inside, an XLA error for which another is to blame says so.

    To be called before JAX looks for devices.

    Raises:
      UserError: if they do not go together.
      RunError: if one does not come, or is gone.
    """
    place, local_ids = _found(asked)
    if place.n_processes == 1:
        yield hosts.alone()
        return
    together = rollcall.meet(
        place.coordinator,
        n_processes=place.n_processes,
        index=place.index,
        wait_seconds=place.wait_seconds,
    )
    # Gloo's own thread may throw when another process is gone.
    aborts = uncaught.told(together.await_end)
    with together, together.blamed(), aborts, _runtime(together, place, local_ids):
        yield together


def _found(asked: Place) -> tuple[Place, list[int] | None]:
    """Where this process stands, as it was told or as the cluster says, and the devices it takes.

    Those are None for all; of a cluster's processes on one host each takes one GPU.
    """
    if asked.n_processes or asked.coordinator:
        return asked, None
    variable = next((name for name in _CLUSTERS if name in os.environ), None)
    if variable is None or os.environ.get(_CLUSTERS[variable]) == "1":
        return rollcall.ALONE, None
    try:
        address, count, index, local_ids = clusters.ClusterEnv.auto_detect_unset_distributed_params(
            None, None, None, None, None, int(asked.wait_seconds)
        )
    except Exception as error:  # Whatever a cluster's own client raises.
        reason = " ".join(str(error).split())[:200]
        fix = "Give --coordinator, --num_processes and --process_id, or --num_processes 1."
        raise UserError(
            variable, os.environ[variable], f"JAX finds no run in it: {reason}", fix
        ) from error
    if address is None or count is None or index is None or count == 1:
        return rollcall.ALONE, None
    return rollcall.Place(address, count, index, asked.wait_seconds), list(
        local_ids
    ) if local_ids else None


@contextlib.contextmanager
def _runtime(together: Hosts, place: Place, local_ids: list[int] | None) -> Iterator[None]:
    """While inside, JAX's distributed runtime runs."""
    service = _Service(together.count) if together.leads else None
    port = together.decide(service and service.port, lambda ports: ports[0])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    output.ours_alone()  # Gloo prints whom it has reached.
    # It would take SIGTERM away from us.
    jax.config.update("jax_enable_preemption_service", False)
    host = rollcall.address(place.coordinator)[0]
    with _served_by(service):
        jax.distributed.initialize(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            together.count,
            together.index,
            local_device_ids=local_ids,
            cluster_detection_method="deactivate",
            initialization_timeout=_JOIN_SECONDS,
            heartbeat_timeout_seconds=coordinator.NEVER,
        )
    yield
    together.gather(None)  # JAX waits for some minutes only, and a last save may take longer.
    jax.distributed.shutdown()


@contextlib.contextmanager
def _served_by(service: _Service | None) -> Iterator[None]:
    """While inside, JAX takes this for the coordination service that it starts in process 0."""
    runtime: Any = distributed._jax
    started = runtime.get_distributed_runtime_service
    runtime.get_distributed_runtime_service = lambda *arguments, **settings: service
    try:
        yield
    finally:
        runtime.get_distributed_runtime_service = started


class _Service:
    """JAX's coordination service, which outlives this process.

    Attributes:
      port: where it answers.
    """

    def __init__(self, n_processes: int):
        """Raises RunError if it cannot be started."""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(coordinator.__file__)), str(n_processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for the run.
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RunError(f"JAX's coordination service ended with {self._process.wait()}")
        self.port = int(line)

    def shutdown(self) -> None:
        """Ends it, now that all processes have left."""
        self._process.communicate("done\n")
