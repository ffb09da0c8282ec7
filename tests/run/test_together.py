"""Runs of several processes: their numbers, what they refuse, how they end."""

import contextlib
import functools
import json
import os
import random
import signal
import time

import processes
import pytest
import runs
import tiny
from processes import ends, free_port, in_haste, newest_listed, wait_until

from gptjax.run import directory, together
from gptjax.run.progress import Notice
from gptjax.run.runlog import read_records
from gptjax.system import hosts
from gptjax.system.errors import UserError
from gptjax.system.hosts import Hosts


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return processes.Several(tmp_path_factory.mktemp)


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


def lines_of(found):
    """What a process said on stderr, but for whom it waited on a slow machine."""
    lines = found.stderr.splitlines()
    return [line for line in lines if not line.startswith("gptjax: waiting for")]


def words_of(found):
    """The one line that a process ended with."""
    (line,) = lines_of(found)
    return line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "knobs"),
    [
        (2, ()),
        (4, ("mesh.fsdp=2", "train.grad_accum_steps=2", "eval.mode=random")),
        (2, ("mesh.fsdp=2", "optim.name=muon")),
    ],
)
def test_processes_make_the_run_of_one(several, tmp_path, n, knobs):
    """Copies of the state, and parts of it, on 2 and 4 processes; what they print, and who."""
    left = several.run(n, tmp_path / "several", *knobs)
    assert [found.code for found in left] == [0] * n, left
    assert [lines_of(found) for found in left] == [[]] * n
    assert [found.stdout for found in left[1:]] == [""] * (n - 1)
    assert f"{n} x cpu" in left[0].stdout and "Gloo" not in left[0].stdout
    several.one(tmp_path / "one", n, *knobs)
    processes.assert_same_run(tmp_path / "several", tmp_path / "one")
    records = read_records(tmp_path / "several" / "metrics.jsonl")
    assert [r["n_devices"] for r in records if r["kind"] == "run"] == [n]


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
    commands, port = [], free_port()
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
    assert words_of(left[1]) and left[1].code in (1, 2)


# Updates that no test waits for the end of.
ENDLESS = ("train.max_iters=1000000", "optim.lr_decay_iters=100")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)]
)
def test_all_end_when_one_is_gone(several, tmp_path, victim, number):
    commands = several.start(3, tmp_path / "run", "train.batch_size=12", *ENDLESS)
    wait_until(functools.partial(has_saved, tmp_path / "run", 4), commands)
    assert commands[victim].send(number)
    how = "is gone" if number == signal.SIGKILL else "has not answered for 30 s"
    for found in ends([command for command in commands if command is not commands[victim]]):
        assert found.code == 1, found
        line = words_of(found)
        assert line.startswith(f"gptjax: error: process {victim} on ") and line.endswith(how)
    if number == signal.SIGSTOP:
        assert commands[victim].send(signal.SIGKILL)
    commands[victim].wait()


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_stops_and_saves_all(several, tmp_path, asked):
    out_dir = tmp_path / "run"
    commands = several.start(2, out_dir, *ENDLESS)
    wait_until(functools.partial(has_saved, out_dir, 4), commands)
    assert commands[asked].send(signal.SIGTERM)
    left = ends(commands)
    assert [found.code for found in left] == [143, 143], left
    assert "stopped by SIGTERM" in left[0].stdout
    end = read_records(out_dir / "metrics.jsonl")[-1]
    assert end["reason"] == "SIGTERM" and runs.steps(out_dir)[-1] == end["step"]


def has_saved(out_dir, before):
    return newest_listed(out_dir) > before


def is_locked_by(out_dir, process):
    return directory.lock_text(out_dir).startswith(f"process {process} on ")


@pytest.mark.slow
def test_four_processes_survive_twenty_kills(several, tmp_path):
    """Each time another is killed, at any time, as all write; what is left goes on exactly.

    The run has no end while they are killed: nobody can have left before.
    """
    out_dir, n, before, chance = tmp_path / "run", 4, -1, random.Random(5)
    parts = ("mesh.fsdp=2", "checkpoint.interval=2")
    for kill in range(20):
        commands, victim = several.start(n, out_dir, *ENDLESS, *parts, prepare=in_haste), kill % n
        if kill % 5:
            wait_until(functools.partial(has_saved, out_dir, before), commands)
        else:  # All have come, and get ready.
            wait_until(functools.partial(is_locked_by, out_dir, commands[0].pid), commands)
        time.sleep(chance.random() / 2)
        assert commands[victim].send(signal.SIGKILL)
        left = ends(commands)
        assert left.pop(victim).code == -signal.SIGKILL
        for found in left:
            assert found.code == 1 and f"process {victim} on " in words_of(found), (kill, found)
        before, earlier = newest_listed(out_dir), before
        assert before >= earlier
    last = (*parts, "optim.lr_decay_iters=100", f"train.max_iters={before + 7}")
    for folder in (out_dir, tmp_path / "whole"):
        left = several.run(n, folder, *last)
        assert [found.code for found in left] == [0] * n, left
    tiny.assert_same_bits(runs.newest(out_dir).state, runs.newest(tmp_path / "whole").state)
    assert runs.history(out_dir) == runs.history(tmp_path / "whole")
