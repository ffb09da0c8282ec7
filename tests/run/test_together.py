"""Runs of several processes: their numbers, what they refuse, how they end."""

import contextlib
import json
import os
import random
import signal
import socket
import time

import forked
import numpy as np
import pytest
import runs
import tiny

from gptjax.run import together
from gptjax.run.progress import Notice
from gptjax.run.runlog import read_records
from gptjax.system import hosts
from gptjax.system.errors import UserError
from gptjax.system.hosts import Hosts

# The slow tests' commands compile as users' do, on cores that others may need.
SECONDS = 600

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update(
        data=dict(source="text:{text}"),
        model=dict(n_layer=1, n_head=2, n_embd=8, block_size=5, dropout=0.2),
        optim=dict(warmup_iters=2),
        train=dict(max_iters=18, batch_size=8, updates_per_dispatch=1),
        eval=dict(interval=5, max_tokens=50),
        checkpoint=dict(interval=4),
        log=dict(interval=3),
    )
    return config
"""


class Together:
    """Starts train.py as so many processes of one run."""

    def __init__(self, make_folder):
        self._make_folder, self.folder = make_folder, make_folder("files")
        self.config, text = self.folder / "config.py", self.folder / "text.txt"
        self.config.write_text(CONFIG.format(text=text))
        text.write_text(tiny.TEXT)
        self.environment = {**os.environ, "GPTJAX_CACHE_DIR": str(self.folder)}

    def start(self, n, out_dir, *knobs, own=None, only=None, wait=SECONDS, port=0):
        """The processes, running; `own` are arguments of single ones, `only` those that start."""
        port = port or free_port()
        place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={n}", f"--wait={wait}"]
        knobs = [f"--config.{knob}" for knob in (f"out_dir={out_dir}", *knobs)]
        return [
            forked.Command(
                self._make_folder("logs"),
                "train",
                f"--config={self.config}",
                *knobs,
                *place,
                f"--process_id={index}",
                *(own or {}).get(index, ()),
                environment=self.environment,
            )
            for index in (range(n) if only is None else only)
        ]

    def run(self, n, out_dir, *knobs, **settings):
        """What the processes left."""
        return ends(self.start(n, out_dir, *knobs, **settings))


def ends(commands):
    return [command.wait(SECONDS) for command in commands]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return Together(tmp_path_factory.mktemp)


def numbers(out_dir):
    """Losses, gradient norms and evaluations, by step."""
    names = ("loss", "grad_norm", "train_loss", "val_loss")
    found = {(r["kind"], r["step"]): [r.get(n, 0) for n in names] for r in runs.history(out_dir)}
    return list(found), np.array(list(found.values()))


def assert_same_run(out_dir, other):
    """To rounding: XLA may add up gradients in another order."""
    found, wanted = numbers(out_dir), numbers(other)
    assert found[0] == wanted[0]
    np.testing.assert_allclose(found[1], wanted[1], rtol=2e-5)


def one_process(several, out_dir, n_devices, *knobs):
    """The run that processes of one device each are to make together."""
    knobs = (f"out_dir={out_dir}", f"mesh.cpu_devices={n_devices}", *knobs)
    found = forked.run(
        several.folder,
        "train",
        f"--config={several.config}",
        *[f"--config.{knob}" for knob in knobs],
        environment=several.environment,
    )
    assert found.code == 0, found.stderr


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(several, tmp_path):
    """Also what they print, and who."""
    few = ("train.max_iters=5", "mesh.data=0")
    first, second = several.run(2, tmp_path / "two", *few)
    assert (first.code, second.code) == (0, 0), first.stderr + second.stderr
    assert (first.stderr, second.stderr, second.stdout) == ("", "", "")
    assert "2 x cpu" in first.stdout and "Gloo" not in first.stdout
    one_process(several, tmp_path / "one", 2, *few)
    assert_same_run(tmp_path / "two", tmp_path / "one")
    (record,) = [r for r in read_records(tmp_path / "two" / "metrics.jsonl") if r["kind"] == "run"]
    assert record["n_devices"] == 2


class Two:
    """Two processes that never leave; each says what it is told."""

    def __init__(self, *said):
        self.said, self.count, self.leads = list(said), len(said), True

    def decide(self, own, choose):
        return json.loads(json.dumps(choose([own, *self.said[1:]])))

    def gather(self, own):
        return self.decide(own, list)

    def who(self, index):
        return f"process {index}"


def test_the_first_difference_is_named():
    facts = {"seed": 1, "optim.learning_rate": 1e-3, "jax": "0.10.2"}
    together.agree(Two(facts, dict(facts)), facts)
    other = {**facts, "optim.learning_rate": 2e-3}
    words = "optim.learning_rate: 0.001 for process 0, 0.002 for process 1; all processes of a run"
    with pytest.raises(UserError, match=words):
        together.agree(Two(facts, other), facts)
    with pytest.raises(UserError, match="jax: 0.10.2 for process 0, None for process 1"):
        together.agree(Two(facts, {"seed": 1, "optim.learning_rate": 1e-3}), facts)
    together.agree(hosts.alone(), facts)


def test_a_clock_that_is_off_is_told(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    words = "the clock of process 1 is -120 s off"
    assert together.clock_notices(Two(1000.0, 880.0)) == [Notice(words, "warning")]
    assert together.clock_notices(Two(1000.0, 1003.0)) == []


def test_a_signal_that_comes_while_they_decide_is_not_lost(tmp_path, monkeypatch):
    decide, n_calls = Hosts.decide, []

    def interrupted(self, own, choose):
        decided = decide(self, own, choose)
        if choose is together.next_call:
            n_calls.append(own)
            if len(n_calls) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        return decided

    monkeypatch.setattr(Hosts, "decide", interrupted)
    config = runs.settings(tmp_path, train__updates_per_dispatch=1)
    assert runs.start(config, tmp_path / "run") == 128 + signal.SIGTERM
    assert n_calls[2][1] == signal.SIGTERM and runs.steps(tmp_path / "run")[-1] == 2


def test_a_call_is_as_long_as_the_first_wants_and_stops_for_any():
    assert together.next_call([[7, 0], [3, 0]]) == [7, 0]
    assert together.next_call([[7, 0], [3, 15]]) == [7, 15]


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize(
    "knobs",
    [
        (),
        ("mesh.data=1",),
        ("mesh.data=2",),
        ("train.grad_accum_steps=2", "eval.mode=random"),
        ("optim.name=muon",),
    ],
    ids=lambda knobs: "-".join(knobs) or "plain",
)
def test_p29_processes_make_the_run_of_one(several, tmp_path, n, knobs):
    for split in ("mesh.data=1", "mesh.data=2"):  # The others share a copy of the state.
        knobs = [*knobs, f"mesh.fsdp={n // int(split[-1])}"] if split in knobs else knobs
    left = several.run(n, tmp_path / "several", *knobs)
    assert [found.code for found in left] == [0] * n, left
    one_process(several, tmp_path / "one", n, *knobs)
    assert_same_run(tmp_path / "several", tmp_path / "one")


def words_of(found):
    """The one line that a process ended with."""
    lines = found.stderr.splitlines()
    (line,) = [line for line in lines if not line.startswith("gptjax: waiting for")]
    return line


def assert_ended(left, words, codes=(1, 2)):
    """Each of them with one line, in time."""
    for found in left:
        assert found.code in codes, found
        assert words in words_of(found), found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "key"),
    [
        (["--config.optim.beta2=0.9"], "optim.beta2: 0.99 for process 0"),
        (["--config.seed=8"], "seed: 1337 for process 0"),
        (["--config.mesh.cpu_devices=2"], "mesh.cpu_devices: 1 for process 0"),
    ],
)
def test_a_different_config_is_refused(several, tmp_path, own, key):
    left = several.run(2, tmp_path / "run", own={1: own})
    assert_ended(left, key, codes=(2,))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_text_under_the_same_name_is_refused(several, tmp_path):
    for index in (0, 1):
        (tmp_path / f"{index}").mkdir()
        (tmp_path / f"{index}" / "text.txt").write_text(tiny.TEXT + "!" * index)
    commands = []
    port = free_port()
    for index in (0, 1):
        with contextlib.chdir(tmp_path / f"{index}"):
            knobs = (tmp_path / "run", "data.source=text:text.txt")
            commands += several.start(2, *knobs, only=[index], port=port)
    assert_ended(ends(commands), "sha256 of the text: ", codes=(2,))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_directory_that_is_not_shared_is_refused(several, tmp_path):
    commands, port = [], free_port()
    for index in (0, 1):
        (tmp_path / f"{index}").mkdir()
        with contextlib.chdir(tmp_path / f"{index}"):
            commands += several.start(2, "run", only=[index], port=port)
    assert_ended(ends(commands), "out_dir: run; process 1 on ", codes=(2,))
    assert not (tmp_path / "0" / "run").exists() and not (tmp_path / "1" / "run").exists()


@pytest.mark.slow
def test_a_process_that_never_comes_is_named(several, tmp_path):
    left = several.run(3, tmp_path / "run", only=[0, 2], wait=5)
    assert_ended(left, "process 1 did not come within 5 s; 2 of 3 did", codes=(1,))
    (found,) = several.run(2, tmp_path / "run", only=[1], wait=3)
    assert_ended([found], "process 0 did not come within 3 s", codes=(1,))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_one_process_cannot_do_ends_all(several, tmp_path):
    (tmp_path / "file").write_text("")
    left = several.run(2, tmp_path / "file" / "run")
    assert left[0].code == 2 and "out_dir" in left[0].stderr
    assert len(left[1].stderr.splitlines()) == 1 and left[1].code in (1, 2)


LONG = ("train.batch_size=12", "train.max_iters=1000000", "eval.interval=50")
LONG += ("checkpoint.interval=20",)


def newest_listed(out_dir):
    names = [path.name for path in (out_dir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def wait_for_step(out_dir, step, commands):
    until = time.monotonic() + SECONDS
    while newest_listed(out_dir) < step:
        assert time.monotonic() < until and all(c.is_running() for c in commands), [
            c.stderr.read_text() for c in commands
        ]
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", [0, 1])
def test_all_end_in_a_minute_when_one_is_gone(several, tmp_path, victim, number):
    commands = several.start(3, tmp_path / "run", *LONG)
    wait_for_step(tmp_path / "run", 20, commands)
    commands[victim].send(number)
    start = time.monotonic()
    how = "is gone" if number == signal.SIGKILL else "has not answered for 30 s"
    others = [command for index, command in enumerate(commands) if index != victim]
    left = ends(others)
    assert time.monotonic() - start < 60
    for found in left:
        assert found.code == 1
        (line,) = found.stderr.splitlines()
        assert line.startswith(f"gptjax: error: process {victim} on ") and line.endswith(how)
    if number == signal.SIGSTOP:
        commands[victim].send(signal.SIGKILL)
    commands[victim].wait()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_stops_and_saves_all(several, tmp_path, asked):
    out_dir = tmp_path / "run"
    commands = several.start(2, out_dir, *LONG)
    wait_for_step(out_dir, 20, commands)
    commands[asked].send(signal.SIGTERM)
    left = ends(commands)
    assert [found.code for found in left] == [143, 143]
    assert "stopped by SIGTERM" in left[0].stdout
    end = read_records(out_dir / "metrics.jsonl")[-1]
    assert end["reason"] == "SIGTERM" and runs.steps(out_dir)[-1] == end["step"]


@pytest.mark.slow
def test_p30_four_processes_survive_twenty_kills(several, tmp_path):
    """Each time another is killed, at any time; what is left goes on exactly."""
    out_dir, n, n_kills = tmp_path / "run", 4, 20
    knobs = ("train.max_iters=250", "eval.interval=40", "checkpoint.interval=10")
    chance = random.Random(5)
    one_left = several.run(n, tmp_path / "whole", *knobs)
    assert [found.code for found in one_left] == [0] * n
    before = 0
    for kill in range(n_kills):
        commands = several.start(n, out_dir, *knobs, wait=60)  # One may never come.
        if kill % 4:
            wait_for_step(out_dir, min(before + 10, 240), commands)
        time.sleep(chance.random())
        victim = chance.randrange(n)
        commands[victim].send(signal.SIGKILL)
        left = ends(commands)
        assert left[victim].code == -signal.SIGKILL or before >= 240
        others = [found for index, found in enumerate(left) if index != victim]
        # Gloo may end a process by abort() before it can say who is missing; not all of them.
        told = [found for found in others if found.code != -signal.SIGABRT]
        assert told, others
        for found in told:
            assert found.code == 0 or words_of(found).count(f"process {victim} ") == 1, found
        if (out_dir / "checkpoints").exists():
            found_steps = runs.steps(out_dir)
            after = found_steps[-1] if found_steps else 0
            assert after >= before
            before = after
    left = several.run(n, out_dir, *knobs)
    assert [found.code for found in left] == [0] * n
    tiny.assert_same_bits(runs.newest(out_dir).state, runs.newest(tmp_path / "whole").state)
    assert runs.history(out_dir) == runs.history(tmp_path / "whole")
