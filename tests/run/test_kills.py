"""Kills, signals, bugs and full disks: what was saved stays, and the same command goes on.

Each promise has a quick form, for every commit, and a thorough one, marked slow.
"""

import fcntl
import functools
import itertools
import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from unittest import mock

import compiling
import faults
import forked
import jax
import numpy as np
import pytest
import runs
import tiny

from gptjax.run import checkpoint, directory, template
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.runlog import read_records
from gptjax.system.errors import RunError, UserError
from gptjax.train import Trainer

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update(
        model=dict(n_layer=1, n_head=2, n_embd=6, block_size=5, dropout=0.2),
        optim=dict(warmup_iters=2),
        train=dict(max_iters=18, batch_size=4, updates_per_dispatch=1),
        eval=dict(interval=5, max_tokens=50),
        checkpoint=dict(interval=4),
        log=dict(interval=3),
        mesh=dict(data=1),
    )
    return config
"""

# Saved only at the steps 0, 4, 8, …
NO_BEST = "eval.interval=1000"

# A checkpoint of 4 MB.
LARGE = ("model.n_embd=160", NO_BEST)


class Commands:
    """Starts train.py with one config and one text in processes of their own."""

    def __init__(self, folder, make_folder):
        self._folder, self._make_folder = folder, make_folder
        (folder / "config.py").write_text(CONFIG)
        (folder / "text.txt").write_text(tiny.TEXT)
        self.environment = {**os.environ, "GPTJAX_CACHE_DIR": str(folder)}

    def arguments(self, out_dir, *knobs):
        knobs = (f"out_dir={out_dir}", f"data.source=text:{self._folder / 'text.txt'}", *knobs)
        return [f"--config={self._folder / 'config.py'}", *[f"--config.{knob}" for knob in knobs]]

    def start(self, out_dir, *knobs, lets=()):
        """The command, running; `lets` are functions of faults.py, bound to their arguments."""
        return forked.Command(
            self._make_folder("logs"),
            "train",
            *self.arguments(out_dir, *knobs),
            environment=self.environment,
            prepare=functools.partial(faults.prepared, *lets),
        )

    def run(self, out_dir, *knobs, lets=()):
        return self.start(out_dir, *knobs, lets=lets).wait()


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp)


@pytest.fixture(scope="module")
def whole(commands, tmp_path_factory):
    """A run that nothing has happened to."""
    out_dir = tmp_path_factory.mktemp("whole") / "run"
    assert commands.run(out_dir).code == 0
    return out_dir


def check_same(out_dir, whole):
    """Weights, optimizer state and metrics are those of the other run."""
    tiny.assert_same_bits(runs.newest(out_dir).state, runs.newest(whole).state)
    assert runs.history(out_dir) == runs.history(whole)


def wait_until(condition, *, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "this did not happen"
        time.sleep(0.005)


def committed(out_dir):
    """The newest step listed; -1 without any."""
    steps = (path.name for path in (out_dir / "checkpoints").glob("*"))
    return max((int(step) for step in steps if step.isdecimal()), default=-1)


def records_of(out_dir, kind):
    return [r for r in read_records(out_dir / "metrics.jsonl") if r["kind"] == kind]


def noted(journal, word):
    """What was noted behind `word`, in order."""
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [line.split()[1] for line in lines if line.split()[0] == word]


class Killed:
    """A run that is killed again and again; each start must go on from the newest step listed."""

    def __init__(self, commands, out_dir, *knobs):
        self.n_kills = self.n_in_training = 0
        self._start = lambda: commands.start(out_dir, *knobs)
        self._out_dir = out_dir
        self._starts = []

    def kill(self, *, wanted=-1, delay):
        """Starts the command and kills it `delay` seconds after step `wanted` is on the disk.

        Returns whether it was killed: it may have ended before.
        """
        before, n_before = committed(self._out_dir), len(records_of(self._out_dir, "run"))
        command = self._start()
        wait_until(command.stderr.exists)
        wait_until(lambda: committed(self._out_dir) >= wanted or not command.is_running())
        time.sleep(delay)
        if command.is_running():
            command.send(signal.SIGKILL)
        code = command.wait().code
        n_begun = len(records_of(self._out_dir, "run")) - n_before
        self._starts += [max(0, before)] * n_begun
        self.n_kills += code == -signal.SIGKILL
        self.n_in_training += code == -signal.SIGKILL and n_begun == 1
        assert code in (0, -signal.SIGKILL)
        return code != 0

    def finish(self):
        self._starts.append(max(0, committed(self._out_dir)))
        result = self._start().wait()
        assert (result.code, result.stderr) == (0, "")
        begun = [record["start_step"] for record in records_of(self._out_dir, "run")]
        assert begun == self._starts
        assert not list((self._out_dir / "checkpoints").glob("*.corrupt*"))


def test_p1_a_killed_run_ends_equal_to_one_never_killed(commands, whole, tmp_path):
    """A save is under way nearly always."""
    rng = np.random.default_rng(1)
    killed = Killed(commands, tmp_path / "run", "checkpoint.interval=1")
    for first in (0, 6, 12):
        assert killed.kill(wanted=int(rng.integers(first, first + 4)), delay=rng.uniform(0, 0.1))
    assert killed.n_kills == killed.n_in_training == 3
    killed.finish()
    check_same(tmp_path / "run", whole)


N_KILLS = (13, 13, 12, 12)
assert sum(N_KILLS) == 50


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "n_kills"), [*enumerate(N_KILLS)])
def test_p1_fifty_kills_at_random_times(commands, whole, tmp_path, seed, n_kills):
    """Several a run, some of them while the command still starts."""
    rng = np.random.default_rng(seed)
    done = in_training = 0
    for name in itertools.count():
        out_dir = tmp_path / str(name)
        killed = Killed(commands, out_dir, "checkpoint.interval=1")
        was_killed = True
        while was_killed and killed.n_kills < min(4, n_kills - done):
            if rng.random() < 0.25:
                was_killed = killed.kill(delay=rng.uniform(0, 1.5))
            else:
                wanted = min(max(0, committed(out_dir)) + int(rng.integers(0, 5)), 16)
                was_killed = killed.kill(wanted=wanted, delay=rng.uniform(0, 0.15))
        if was_killed:
            killed.finish()
        check_same(out_dir, whole)
        done, in_training = done + killed.n_kills, in_training + killed.n_in_training
        if done == n_kills:
            break
    assert in_training > n_kills / 2


# The second is not the best, the third is: steps are kept and deleted for either reason.
VALS = {1: 1.0, 2: 1.5, 3: 0.5}


@pytest.fixture(scope="module")
def life():
    """A state on the host and its description."""
    settings = tiny.config(model__n_layer=1)
    state = tiny.parts(tiny.model_config(bias=False, n_layer=1), settings)[2]
    return jax.tree.map(np.asarray, state), tiny.description(settings)


@pytest.fixture(scope="module")
def begun(life, tmp_path_factory):
    """A run directory with step 1, and what a kill leaves in it."""
    folder = tmp_path_factory.mktemp("begun")
    faults.live(folder / "run", *life, {1: VALS[1]}, folder / "journal")
    with open(folder / "run" / "metrics.jsonl", "ab") as file:
        file.write(b'{"kind": "train", "step": 2, "loss": 0.5}\n{"kind": "tra')
    (folder / "run" / ".config.json.tmp").write_text("{")
    (folder / "run" / "checkpoints" / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (folder / "run" / "checkpoints" / "trash" / "0" / "state").mkdir(parents=True)
    return folder


def crash(folder, life, n, late, begun=None):
    """Runs faults.live in a process that crashes; its exit code."""
    if begun:
        shutil.copytree(begun, folder)
    else:
        folder.mkdir()
    process = multiprocessing.get_context("forkserver").Process(
        target=faults.live_until_crash,
        args=(n, late, folder / "changes", folder / "run", *life, VALS, folder / "journal"),
    )
    process.start()
    process.join(60)
    return process.exitcode


def n_changes(folder):
    return len((folder / "changes").read_text().splitlines())


@pytest.fixture
def untraced(life, monkeypatch):
    """Restoring does not trace the model anew each time, which would take longer than the rest."""
    shapes = template.template(life[1])
    monkeypatch.setattr(checkpoint, "template", lambda meta: shapes)


def check_crashed(folder, life):
    """Every step listed is whole, none is lost, and the run goes on."""
    run_dir, state = folder / "run", life[0]
    saved = max(map(int, noted(folder / "journal", "saved")), default=0)
    best = newest = None
    if (run_dir / "checkpoints").is_dir():
        with Checkpoints(run_dir, read_only=True) as checkpoints:
            steps = checkpoints.steps()
            for step in steps:
                at_step = state.replace(step=np.asarray(step, np.int32))
                tiny.assert_same_bits(checkpoints.restore(step).state, at_step)
            if steps:
                newest = steps[-1]
                best = min(range(1, newest + 1), key=VALS.get)
                assert checkpoints.best() == best
    assert (newest or 0) >= saved
    logged = [record["step"] for record in read_records(run_dir / "metrics.jsonl")]
    assert logged == list(range(1, len(logged) + 1)) and len(logged) >= (newest or 0)

    faults.live(run_dir, *life, {10: 9.0}, folder / "journal")
    with Checkpoints(run_dir, read_only=True) as checkpoints:
        assert checkpoints.steps() == ([best, 10] if best else [10])
        assert checkpoints.best() == (best or 10)
        checkpoints.restore(10)
    lines = (run_dir / "metrics.jsonl").read_bytes().splitlines()
    logged = [json.loads(line)["step"] for line in lines]
    assert logged == [*range(1, (newest or 0) + 1), 10]
    kept = {path.name for path in run_dir.rglob("*") if path.parent.name in ("run", "checkpoints")}
    kept -= {".lock", "config.json", "metrics.jsonl", "checkpoints", "trash"}
    assert kept == {str(step) for step in (best, 10) if step}
    assert list((run_dir / "checkpoints" / "trash").glob("*")) == []


@pytest.mark.parametrize("resumed", [False, True])
def test_p2_no_instant_is_unsafe(life, begun, untraced, tmp_path, resumed):
    """Dies before or after one of the changes that a run makes to its directory."""
    origin = begun if resumed else None
    assert crash(tmp_path / "all", life, 10**9, False, origin) == 0
    total = n_changes(tmp_path / "all")
    assert total > 80, "so few changes cannot be all"
    # Orbax's threads and ours meet differently each time, for a few changes more or less.
    for index, n in enumerate(range(1, total - 10, total // 10)):
        assert crash(tmp_path / str(n), life, n, index % 2 == 1, origin) == faults.CRASHED
        check_crashed(tmp_path / str(n), life)


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("resumed", [False, True])
def test_p2_no_instant_at_all_is_unsafe(life, begun, untraced, tmp_path, late, resumed):
    for n in itertools.count(1):
        code = crash(tmp_path / str(n), life, n, late, begun if resumed else None)
        if code == 0:
            break
        assert code == faults.CRASHED
        check_crashed(tmp_path / str(n), life)
    assert n_changes(tmp_path / str(n)) < n and n > 80


@pytest.mark.slow
@pytest.mark.parametrize("part", range(2))
def test_p2_no_instant_of_a_run_is_unsafe(commands, tmp_path, part):
    """The whole command: compiled updates, evaluations, val_tokens.npy and all."""
    knobs = "train.max_iters=6", "checkpoint.interval=1", "checkpoint.keep=1"

    def crashing(out_dir, n, changes):
        fault = functools.partial(faults.crash, out_dir, n, late=n % 2 == 0, journal=changes)
        return commands.run(out_dir, *knobs, lets=[fault])

    whole = tmp_path / "whole"
    assert crashing(whole, 10**9, tmp_path / "changes").code == 0
    total = n_changes(tmp_path)
    assert total > 150
    for n in range(1 + part * total // 16, total - 10, total // 8):
        out_dir = tmp_path / str(n)
        assert crashing(out_dir, n, os.devnull).code == faults.CRASHED
        newest = committed(out_dir)
        result = commands.run(out_dir, *knobs)
        assert (result.code, result.stderr) == (0, "")
        if newest == 6:
            assert "nothing to do" in result.stdout
        else:
            assert records_of(out_dir, "run")[-1]["start_step"] == max(0, newest)
        assert "damaged" not in result.stdout
        check_same(out_dir, whole)


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}

WAYS = {
    "bug": (faults.bug, 1),
    "exit": (faults.leave, 3),
    "SIGINT": (functools.partial(faults.signalled, signal.SIGINT), 130),
    "SIGTERM": (functools.partial(faults.signalled, signal.SIGTERM), 143),
    # A closed terminal often says so twice.
    "SIGHUP": (functools.partial(faults.signalled, signal.SIGHUP, signal.SIGHUP), 129),
    "two signals": (functools.partial(faults.signalled, signal.SIGINT, signal.SIGTERM), 143),
}

# Which call of the moment's function, and the step that a run stopped by a signal then ends with.
MOMENTS = {
    "compile": (1, None),
    "update": (7, 7),
    "evaluation": (2, 5),
    "save": (2, 4),
    "between": (6, 6),
}

QUICK = [
    ("SIGINT", "compile"),
    ("SIGINT", "update"),
    ("exit", "evaluation"),
    ("SIGTERM", "save"),
    ("SIGHUP", "update"),
]


def test_p3_the_end_commits_the_newest_save(whole):
    assert committed(whole) == 18
    end = {"kind": "end", "step": 18, "reason": "finished"}
    assert read_records(whole / "metrics.jsonl")[-1] == end


def leave_run(commands, tmp_path, way, moment):
    """Leaves a run and checks its directory and what it said."""
    out_dir, journal = tmp_path / "run", tmp_path / "journal"
    (action, code), (n, reached) = WAYS[way], MOMENTS[moment]
    noting = functools.partial(faults.noting_saves, journal)
    result = commands.run(
        out_dir, lets=[noting, functools.partial(faults.at, moment, n, action, journal)]
    )
    (left_at,) = map(float, noted(journal, "fault"))
    assert time.time() - left_at < 10
    # Before the loop the first signal ends the process; which of two is first there is open.
    is_first_of_two = way == "two signals" and moment == "compile"
    assert result.code == code or (is_first_of_two and result.code == SIGNALS["SIGINT"])
    if way == "bug":
        assert "Traceback (most recent call last)" in result.stderr
        assert result.stderr.endswith("ZeroDivisionError: a bug\n")
    elif is_first_of_two:
        assert re.fullmatch("gptjax: (interrupted|ended at once; .* lost)\n", result.stderr)
    elif way == "two signals":
        assert re.fullmatch("gptjax: ended at once; what followed .* is lost\n", result.stderr)
    else:
        is_interrupted = moment == "compile" and way in SIGNALS
        assert result.stderr == ("gptjax: interrupted\n" if is_interrupted else "")
    if moment == "compile":
        assert is_first_of_two or not out_dir.exists()
        return
    saved = [int(step) for step in noted(journal, "saving")]
    assert runs.newest(out_dir).step == committed(out_dir)
    if way == "two signals":
        assert committed(out_dir) in saved[-2:]
    else:
        assert committed(out_dir) == saved[-1]
    if way in SIGNALS:
        end = {"kind": "end", "step": reached, "reason": way}
        assert saved[-1] == reached and read_records(out_dir / "metrics.jsonl")[-1] == end
        assert f"stopped by {way} at step {reached}, checkpoint saved" in result.stdout


@pytest.mark.parametrize(("way", "moment"), QUICK)
def test_p3_every_way_out_commits_the_newest_save(commands, tmp_path, way, moment):
    leave_run(commands, tmp_path, way, moment)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
def test_p3_from_every_way_out_the_same_command_goes_on(commands, whole, tmp_path, way, moment):
    leave_run(commands, tmp_path, way, moment)
    assert commands.run(tmp_path / "run").code == 0
    check_same(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "blocked",
    [faults.blocked_in_c, pytest.param(faults.blocked_in_python, marks=pytest.mark.slow)],
)
def test_p3_a_second_ctrl_c_ends_at_once(commands, tmp_path, blocked):
    journal = tmp_path / "journal"
    fault = functools.partial(faults.at, "update", 2, blocked, journal)
    command = commands.start(tmp_path / "run", lets=[fault])
    wait_until(lambda: noted(journal, "fault"))
    time.sleep(0.5)  # Until it is blocked.
    command.send(signal.SIGINT)
    time.sleep(0.5)
    assert command.is_running()
    command.send(signal.SIGINT)
    sent = time.monotonic()
    result = command.wait()
    assert time.monotonic() - sent < 1
    assert result.code == 130 and "ended at once" in result.stderr
    assert runs.newest(tmp_path / "run").step == 0


def mount(*arguments):
    try:
        done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"a small disk cannot be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr}")


@pytest.fixture
def disk(tmp_path):
    """A disk of 40 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=40m", "tmpfs", folder)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def check_failed(result, out_dir, *, failed, words):
    """One line says why; nothing is trained on top of the failed save; what was before is whole."""
    assert result.code == 1
    assert re.fullmatch(f"gptjax: error: {words}\n", result.stderr), result.stderr
    end = read_records(out_dir / "metrics.jsonl")[-1]
    assert (end["kind"], f"gptjax: error: {end['reason']}\n") == ("end", result.stderr)
    assert failed <= end["step"] <= failed + 1  # A chunk is one update.
    assert max(record["step"] for record in runs.history(out_dir)) <= failed + 1
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        assert checkpoints.steps() == [failed - 8, failed - 4]
        for step in checkpoints.steps():
            checkpoints.restore(step)


@pytest.mark.slow
def test_p10_a_save_for_which_there_is_no_room_ends_the_run(commands, disk):
    fault = faults_at("update", 6, faults.fill, disk, leave=2**20)
    result = commands.run(disk / "run", *LARGE, lets=[faults.saves_end_first, fault])
    words = "step 8 could not be saved: it needs [0-9,]{9} bytes, and 1,0[0-9,]+ are free in .*"
    check_failed(result, disk / "run", failed=8, words=words)


def test_p10_a_disk_that_fills_up_during_a_save_ends_the_run_which_then_goes_on(commands, disk):
    fault = faults_at("space check", 3, faults.fill, disk)
    result = commands.run(disk / "run", *LARGE, lets=[faults.saves_end_first, fault])
    words = "a checkpoint could not be written: .*No space left.*; [0-9,]+ bytes are free"
    check_failed(result, disk / "run", failed=8, words=words)
    (disk / "filler").unlink()
    assert commands.run(disk / "run", *LARGE, "train.max_iters=8").code == 0
    assert records_of(disk / "run", "run")[-1]["start_step"] == 4
    assert committed(disk / "run") == 8


def faults_at(moment, n, action, *arguments, **settings):
    return functools.partial(
        faults.at, moment, n, functools.partial(action, *arguments, **settings)
    )


def test_p10_a_run_that_would_fill_the_disk_is_not_begun(commands, disk):
    faults.fill(disk, leave=10 * 2**20)
    result = commands.run(disk / "run", *LARGE)
    assert result.code == 2 and result.stderr.count("\n") == 1
    found = re.search("checkpoints need ([0-9,]+) bytes, and ([0-9,]+) are free", result.stderr)
    needed, free = (int(number.replace(",", "")) for number in found.groups())
    # Weights and two moments each of embeddings, norms, attention and MLP; three counters.
    n_weights = (23 + 5) * 160 + 3 * 160 + 12 * 160**2
    assert abs(needed / 4 - 12 * n_weights) < 100 and abs(free - 10 * 2**20) < 2**16
    assert [path.name for path in disk.iterdir()] == ["filler"]


def fill_after_the_save(folder, out_dir):
    wait_until(lambda: committed(out_dir) == 0)
    faults.fill(folder)


def test_p10_a_log_that_cannot_be_written_ends_the_run(commands, disk):
    """The disk is full to the last byte, long before the next save is due."""
    knobs = "train.max_iters=60", "log.interval=1", "checkpoint.interval=1000", NO_BEST
    out_dir = disk / "run"
    fault = faults_at("update", 3, fill_after_the_save, disk, out_dir)
    result = commands.run(out_dir, *knobs, lets=[fault])
    assert result.code == 1
    line = f"{out_dir / 'metrics.jsonl'} could not be written: No space left on device"
    assert result.stderr == f"gptjax: error: {line}\n"
    steps = [record["step"] for record in records_of(out_dir, "train")]
    assert steps == list(range(1, len(steps) + 1)) and 3 <= len(steps) < 60
    assert runs.newest(out_dir).step == 0


def test_p10_a_disk_that_takes_no_files_is_refused_but_read(commands, disk, life, tmp_path):
    out_dir = disk / "run"
    faults.live(out_dir, *life, {1: 2.0}, tmp_path / "journal")
    mount("-o", "remount,ro", disk)
    for unwritable in (out_dir, disk / "other"):
        result = commands.run(unwritable)
        assert result.code == 2 and result.stderr.count("\n") == 1
        assert "cannot be written to: Read-only file system" in result.stderr
    result = forked.run(
        tmp_path, "sample", f"--out_dir={out_dir}", "--num_samples=1", "--max_new_tokens=5"
    )
    assert (result.code, result.stderr) == (0, "") and len(result.stdout) > 5


ENDLESS = "train.max_iters=1000000"


def test_p11_a_second_writer_is_refused(commands, tmp_path):
    """The first is a process as from a shell, and Ctrl-C ends it as it does there."""
    out_dir = tmp_path / "run"
    script = [sys.executable, forked.SCRIPTS / "train.py", *commands.arguments(out_dir, ENDLESS)]
    environment = compiling.environment() | commands.environment
    first = subprocess.Popen(
        script, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: committed(out_dir) >= 8)
        check_refused(commands.run(out_dir, ENDLESS), first.pid)
    finally:
        first.send_signal(signal.SIGINT)
    stderr = first.communicate(timeout=30)[1]
    assert (first.returncode, stderr) == (130, b"")
    newest = runs.newest(out_dir).step
    end = {"kind": "end", "step": newest, "reason": "SIGINT"}
    assert newest >= 8 and read_records(out_dir / "metrics.jsonl")[-1] == end


def check_refused(result, owner):
    assert result.code == 2 and result.stderr.count("\n") == 1
    assert f"is in use by process {owner} on {platform.node()}." in result.stderr
    assert result.seconds < 5


def start_two(commands, out_dir):
    """Starts two commands at once, checks that one is refused, and kills the other."""
    two = [commands.start(out_dir, ENDLESS) for _ in range(2)]
    wait_until(lambda: not all(command.is_running() for command in two))
    loser, owner = sorted(two, key=forked.Command.is_running)
    check_refused(loser.wait(), owner.pid)
    assert owner.is_running()
    owner.send(signal.SIGKILL)
    owner.wait()


def test_p11_of_two_starts_one_runs_and_a_killed_owner_leaves_no_lock(commands, tmp_path):
    start_two(commands, tmp_path / "run")
    assert commands.run(tmp_path / "run", "train.max_iters=3").code == 0


def test_p11_an_owner_that_has_just_got_the_lock_is_waited_for(tmp_path):
    """Between getting it and writing its name anything may come in between."""

    def write_name():
        time.sleep(0.3)
        (tmp_path / ".lock").write_text("process 7 on here\n")

    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        writing = threading.Thread(target=write_name)
        writing.start()
        with pytest.raises(UserError, match="is in use by process 7 on here"):
            with directory.locked(tmp_path):
                pass
        writing.join()


@pytest.mark.parametrize("is_begun_anew", [False, True])
def test_p11_a_directory_that_is_gone_is_not_written_to(tmp_path, is_begun_anew):
    """As by `rm -r RUN` and the same command again, while a forgotten process still trains."""
    run_dir = tmp_path / "run"
    with directory.locked(run_dir) as check:
        check()
        (run_dir / ".lock").unlink()
        check()  # Nobody else is there.
        shutil.rmtree(run_dir)
        if is_begun_anew:
            run_dir.mkdir()
            (run_dir / ".lock").write_text("process 7 on here\n")
        with pytest.raises(RunError, match="run was removed, moved or begun anew"):
            check()
    assert (run_dir / ".lock").exists() == is_begun_anew


def test_p11_a_run_whose_directory_is_gone_stops_at_its_next_save(tmp_path):
    config, run_dir = runs.settings(tmp_path), tmp_path / "run"

    def losing(self, n):
        updates(self, n)
        self._saver.wait()
        shutil.rmtree(run_dir, ignore_errors=True)

    updates = Trainer._make_updates
    with mock.patch.object(Trainer, "_make_updates", losing):
        with pytest.raises(RunError, match="run was removed, moved or begun anew"):
            runs.start(config, run_dir)
    assert not list(run_dir.glob("checkpoints/*"))


@pytest.mark.slow
def test_p11_of_twenty_pairs_one_each_runs(commands, tmp_path):
    """In an unused directory, and in one that a killed owner has left."""
    for n in range(20):
        start_two(commands, tmp_path / f"run{n // 2}")


def fail(commands, out_dir, *, written_is_deleted):
    """A run whose third save fails in the background."""
    fault = functools.partial(faults.failing_commit, 8, written_is_deleted=written_is_deleted)
    result = commands.run(out_dir, NO_BEST, lets=[faults.saves_end_first, fault])
    check_failed(result, out_dir, failed=8, words="a checkpoint could not be written: .*")


def test_p24_a_failed_save_is_heard_at_once(commands, tmp_path):
    fail(commands, tmp_path / "run", written_is_deleted=False)


@pytest.mark.slow
@pytest.mark.parametrize("written_is_deleted", [False, True])
def test_p24_after_a_failed_save_the_same_command_goes_on(
    commands, tmp_path, whole, written_is_deleted
):
    out_dir = tmp_path / "run"
    fail(commands, out_dir, written_is_deleted=written_is_deleted)
    assert commands.run(out_dir, NO_BEST).code == 0
    tiny.assert_same_bits(runs.newest(out_dir).state, runs.newest(whole).state)


def test_p3_a_bug_does_not_hide_that_a_save_has_failed(commands, tmp_path):
    commit = functools.partial(faults.failing_commit, 8, written_is_deleted=False)
    result = commands.run(
        tmp_path / "run", NO_BEST, lets=[commit, faults_at("save", 3, faults.bug)]
    )
    assert result.code == 1
    said = "gptjax: error: a checkpoint could not be written: [Errno 5] Input/output error; "
    assert result.stderr.startswith(said) and "ZeroDivisionError: a bug\n" in result.stderr
    assert committed(tmp_path / "run") == 4


@pytest.mark.slow
@pytest.mark.parametrize("interval", [2, 1000])
def test_p24_a_save_that_fails_ends_the_run_and_is_told(commands, tmp_path, interval):
    """No file may grow any more: a real failure in Orbax's thread, at the end or before."""
    knobs = "train.max_iters=4", "model.n_embd=64", f"checkpoint.interval={interval}"
    fault = faults_at("update", 1, faults.limit_files, 40_000)
    result = commands.run(tmp_path / "run", *knobs, lets=[fault])
    assert result.code == 1
    assert re.fullmatch("gptjax: error: .* could not be .*\n", result.stderr)
    assert read_records(tmp_path / "run" / "metrics.jsonl")[-1]["kind"] == "end"
