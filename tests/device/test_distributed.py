"""Which process of a run this is, as a cluster says it; a real Slurm; the pods' files."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import compiling
import pytest
import tiny
from processes import free_port

from gptjax.device import distributed
from gptjax.run.runlog import read_records
from gptjax.system.errors import UserError
from gptjax.system.rollcall import Place

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "hosts"

SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_STEP_NODELIST": "node[003-004],login",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "3",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in [*distributed._CLUSTERS, *SLURM, *OPEN_MPI]:
        monkeypatch.delenv(name, raising=False)


def found(monkeypatch, environment, asked=None):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return distributed._found(asked or Place())


def test_slurm_and_open_mpi_say_which_process_this_is(monkeypatch):
    place, devices = found(monkeypatch, SLURM, Place(wait_seconds=9))
    # JAX's port: from 61440 on, by the job's number.
    assert (place, devices) == (Place("node003:61457", 4, 2, 9), [1])


def test_open_mpi_says_which_process_this_is(monkeypatch):
    place, devices = found(monkeypatch, OPEN_MPI)
    assert (place.n_processes, place.index, devices) == (3, 2, [0])
    assert place.coordinator.startswith("10.96.0.1:")


def test_flags_go_before_the_cluster_and_one_process_is_alone(monkeypatch):
    assert found(monkeypatch, {}) == (Place("", 1, 0), None)
    asked = Place("here:1", 2, 1)
    assert found(monkeypatch, SLURM, asked) == (asked, None)
    assert found(monkeypatch, SLURM, Place("", 1, 0)) == (Place("", 1, 0), None)
    assert found(monkeypatch, {**SLURM, "SLURM_NTASKS": "1"}) == (Place("", 1, 0), None)


def test_what_a_cluster_says_wrong_is_told(monkeypatch):
    with pytest.raises(UserError, match="SLURM_STEP_NODELIST: .*; JAX finds no run in it: "):
        found(monkeypatch, {**SLURM, "SLURM_PROCID": "x"})


def test_the_pods_files_are_valid():
    """Against the schemas of Kubernetes itself; the pods are as many as the flags say."""
    validate = pytest.importorskip("kubernetes_validate")
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text())
    for each in (service, job):
        validate.validate(each, validate.latest_version(), strict=True)
    spec, name = job["spec"], service["metadata"]["name"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["completions"] == spec["parallelism"] and spec["completionMode"] == "Indexed"
    assert f"--num_processes={spec['completions']}" in container["args"]
    assert spec["template"]["spec"]["subdomain"] == name
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert f"--coordinator={job['metadata']['name']}-0.{name}:8476" in container["args"]


SLURM_CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={port}
SlurmdPort={next_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={n_cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def runs_well(command, environment):
    """What a command prints; "" if it fails."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return "" if done.returncode else done.stdout


def wait_until(is_up, daemon, folder):
    """However long that takes on a machine that others use; unless the daemon has ended."""
    until = time.monotonic() + 600
    while not is_up():
        logs = [path.read_text(errors="replace") for path in folder.glob("*.out")]
        assert daemon.poll() is None and time.monotonic() < until, logs
        time.sleep(0.2)


@pytest.fixture
def slurm(tmp_path):
    """The environment of a Slurm of this machine alone; gone afterwards."""
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "sinfo")
    if os.geteuid() != 0 or not all(shutil.which(program) for program in programs):
        pytest.skip("needs slurm-wlm and munge, and to be root")
    folder = tmp_path / "slurm"
    for name in ("", "state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    host = socket.gethostname().partition(".")[0]
    ports = dict(port=free_port(), next_port=free_port())
    values = dict(folder=folder, host=host, n_cpus=os.cpu_count(), **ports)
    (folder / "slurm.conf").write_text(SLURM_CONF.format(**values))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    files = {name: folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
    munged = [f"--{name}-file={path}" for name, path in files.items() if name != "socket"]
    commands = [
        ["munged", "--foreground", "--force", f"--key-file={key}", *munged]
        + [f"--socket={files['socket']}"],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    is_up = {
        "munged": files["socket"].exists,
        "slurmctld": lambda: runs_well(["scontrol", "ping"], environment),
        "slurmd": lambda: "idle" in runs_well(["sinfo", "--noheader"], environment),
    }
    with contextlib.ExitStack() as stack:
        for command in commands:
            log = stack.enter_context(open(folder / f"{command[0]}.out", "wb"))
            daemon = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            stack.callback(daemon.wait)
            stack.callback(daemon.terminate)
            wait_until(is_up[command[0]], daemon, folder)
        yield environment


def state_of(job, environment):
    """What Slurm says of a job, in a word."""
    return re.search(r"JobState=(\w+)", runs_well(["scontrol", "show", "job", job], environment))[1]


@pytest.mark.slow
def test_the_script_for_slurm_runs_under_slurm(slurm, tmp_path):
    """Two tasks on this machine; everything else as the script has it."""
    text, out_dir, log = tmp_path / "text.txt", tmp_path / "run", tmp_path / "log"
    text.write_text(tiny.TEXT)
    here = ["--nodes=1", "--ntasks-per-node=2", "--gpus-per-node=0", f"--output={log}"]
    knobs = [f"out_dir={out_dir}", f"data.source=text:{text}", "model.n_layer=1", "mesh.data=2"]
    knobs += ["train.max_iters=4", "optim.warmup_iters=1", "eval.max_tokens=100"]
    # With --wait sbatch looks after 2, 10 and 42 seconds.
    command = ["sbatch", "--parsable", *here, str(EXAMPLES / "train.sbatch")]
    done = subprocess.run(
        [*command, *(f"--config.{knob}" for knob in knobs)],
        cwd=ROOT,
        env={
            **slurm,
            "PYTHON": sys.executable,
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": compiling.LITTLE,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    job, until = done.stdout.strip(), time.monotonic() + 600
    while (state := state_of(job, slurm)) in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert state == "COMPLETED", log.read_text()
    records = read_records(out_dir / "metrics.jsonl")
    (run,) = (record for record in records if record["kind"] == "run")
    assert run["n_devices"] == 2 and records[-1]["reason"] == "finished"
    assert "0: step 4/4" in log.read_text() and "1: " not in log.read_text()
