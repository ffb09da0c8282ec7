"""A sweep of tiny runs: what is trained, kept, said, and how it goes on after a stop."""

import json
import os
import signal

import pytest
import runs
import tiny

from gptjax.explain.sweep_plan import MemberCost
from gptjax.run import members as members_module
from gptjax.run import trainings
from gptjax.run.ledger import Ledger
from gptjax.run.runlog import read_records
from gptjax.run.trainings import Timing, Trainings
from gptjax.sweep import Sweep, sweep
from gptjax.system.errors import UserError

SWEEP = """
from gptjax.config import default_config

def get_config():
    config = default_config()
    config.update(
        data=dict(source="text:{text}"),
        model=dict(n_layer=1, n_head=2, n_embd=8, block_size=5),
        optim=dict(warmup_iters=2),
        train=dict(batch_size=6),
        eval=dict(max_tokens=200),
        checkpoint=dict(keep=1),
    )
    return config

def get_sweep():
    return {{
        "seed": [1, 2],
        "optim.learning_rate": [1e-3, 3e-3],
        "train.max_iters": [3, 6],
    }}
"""
N_MEMBERS = 8

FLAGS = dict(text=None, budget="1h", run_time="1s", at_once=0, plot=None, json=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep file and its text."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "text.txt").write_text(tiny.TEXT)
    (folder / "tiny.py").write_text(SWEEP.format(text=folder / "text.txt"))
    return folder


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Each is compiled once for all tests; what an update takes is made up."""
    made, program = {}, trainings.GroupProgram

    def once(config, inputs, tokens, device, *, n_runs):
        key = (trainings.program_key(config), inputs.corpus.sha256, n_runs)
        if key not in made:
            made[key] = program(config, inputs, tokens, device, n_runs=n_runs)
        return made[key]

    with pytest.MonkeyPatch.context() as patch, runs.unmeasured():
        patch.setattr(trainings, "GroupProgram", once)
        patch.setattr(Trainings, "timing", lambda self, values, n: Timing(0.05, 0.05, 0.1))
        patch.setattr(Ledger, "step_ms", lambda self, quantile: 50.0)
        yield


def do(folder, out_dir, **changes):
    flags = {**FLAGS, **changes}
    file = None if flags["text"] else str(folder / flags.pop("file", "tiny.py"))
    return sweep(file, {}, out_dir=str(out_dir), **flags)


@pytest.fixture(scope="module")
def swept(folder):
    """A whole sweep: its folder and its numbers."""
    assert do(folder, folder / "out", json=str(folder / "a.json")) == 0
    return folder / "out", json.loads((folder / "a.json").read_text())


def test_each_member_is_a_run_directory(swept):
    out_dir, found = swept
    names = sorted(path.parent.name for path in out_dir.glob("*/config.json"))
    assert len(names) == N_MEMBERS and names[0] == "seed1-learning_rate0.001-max_iters3"
    for cell in found["cells"]:
        rate = cell["setting"].removeprefix("learning_rate ")
        names = [f"seed{n}-learning_rate{rate}-max_iters{cell['n_updates']}" for n in (1, 2)]
        vals = [runs.history(out_dir / name)[-1]["val_loss"] for name in names]
        assert cell["vals"] == vals and vals[0] != vals[1]
        assert cell["n_tokens"] == 30 * cell["n_updates"]
        assert runs.steps(out_dir / names[0]) == [cell["n_updates"]]
    assert found["law"] is None and "2 pairs of size and length" in found["why_no_law"]
    assert len(found["cells"]) == 4 and sum(cell["is_best"] for cell in found["cells"]) == 2


def test_the_same_command_again_trains_nothing(swept, folder, monkeypatch, capsys):
    out_dir, found = swept
    monkeypatch.setattr(members_module.Member, "__enter__", lambda self: pytest.fail("a run"))
    monkeypatch.setattr(Trainings, "timing", lambda *a: pytest.fail("measured anew"))
    assert do(folder, out_dir, json=str(folder / "again.json")) == 0
    assert json.loads((folder / "again.json").read_text()) == found
    printed = capsys.readouterr().out
    assert "all 8 members are there already" in printed
    command = printed.splitlines()[-1]
    assert command.startswith(f"train it: python scripts/train.py --config {folder}/tiny.py ")
    assert "--config.optim.learning_rate=" in command and "--config.train.max_iters=20 " in command


@pytest.mark.slow
def test_two_per_dispatch_come_to_the_same(swept, folder):
    """The tolerance is that of test_members.py."""
    _, found = swept
    assert do(folder, folder / "two", at_once=2, json=str(folder / "two.json")) == 0
    two = json.loads((folder / "two.json").read_text())
    for one, other in zip(found["cells"], two["cells"], strict=True):
        assert other["vals"] == pytest.approx(one["vals"], rel=1e-5)
    record = read_records(next((folder / "two").glob("*/metrics.jsonl")))[0]
    assert record["runs_together"] == 2


def test_a_sweep_that_was_stopped_goes_on(swept, folder, monkeypatch, capsys):
    _, found = swept
    trained, train = [], Trainings.train

    def stopping(self, values, told, stop):
        if len(trained) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        trained.extend(values)
        train(self, values, told, stop)

    monkeypatch.setattr(Trainings, "train", stopping)
    assert do(folder, folder / "stopped") == 143
    assert "stopped: what is done is kept; the same command goes on" in capsys.readouterr().out
    assert len(trained) == 4
    monkeypatch.setattr(Trainings, "train", train)
    monkeypatch.setattr(Trainings, "timing", lambda *a: pytest.fail("measured anew"))
    assert do(folder, folder / "stopped", json=str(folder / "b.json")) == 0
    assert "8 of 8 members fit the budget, 3 are there already" in capsys.readouterr().out
    assert json.loads((folder / "b.json").read_text())["cells"] == found["cells"]


def test_the_budget_decides_what_is_trained(folder, monkeypatch, capsys):
    monkeypatch.setattr(Sweep, "_measured", costs(seconds_each=10.0))
    assert do(folder, folder / "less", budget="60s") == 0
    printed = capsys.readouterr().out
    assert "5 of 8 members fit the budget; about 50 s" in printed
    assert "3 members were left out: there was no time for them" in printed
    names = {path.parent.name for path in (folder / "less").glob("*/config.json")}
    assert sum(name.startswith("seed1") for name in names) == 4 and len(names) == 5
    assert sum(name.endswith("max_iters3") for name in names) == 3


def test_it_ends_when_the_budget_is_used_up(folder, monkeypatch, capsys):
    """Updates that take ten times as long as measured."""
    monkeypatch.setattr(Sweep, "_measured", costs(seconds_each=1.0))
    passed = []
    monkeypatch.setattr(Sweep, "_spent_seconds", lambda self: 10.0 * len(passed))
    train = Trainings.train

    def slow(self, values, told, stop):
        passed.extend(values)
        train(self, values, told, stop)

    monkeypatch.setattr(Trainings, "train", slow)
    assert do(folder, folder / "late", budget="20s") == 0
    assert len(passed) == 2
    assert "the budget is used up: updates took longer than measured" in capsys.readouterr().out


def costs(*, seconds_each):
    def measured(self):
        from gptjax.explain.sweep_schedule import sizes

        return {size: MemberCost(1e-6, seconds_each) for size in sizes(self._family)}

    return measured


def test_a_text_alone_gets_a_laptops_sizes_and_rates(folder, tmp_path, monkeypatch, capsys):
    """What would be trained of it: the twelve at three lengths each, for the time there is."""
    planned = []
    monkeypatch.setattr(Trainings, "train", lambda self, values, told, stop: planned.extend(values))
    monkeypatch.setattr(Sweep, "_words", lambda self, job: "trained")
    text = str(folder / "text.txt")
    assert do(folder, tmp_path / "out", text=text, run_time="60s", budget="10m") == 1
    assert len(planned) == 36
    assert {values["data.source"] for values in planned} == {f"text:{text}"}
    longest = max(values["train.max_iters"] for values in planned)
    seconds = sum(0.05 * values["train.max_iters"] + 0.1 + 1.5 for values in planned)
    assert 0.7 * 540 < seconds <= 540 and longest * 0.05 <= 60
    assert "nothing can be said yet: no run came to its end" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(file="none.py"), "none.py; no such file"),
        (dict(file="text.txt"), "text.txt; is not a .py file"),
        (dict(text="none.txt"), "none.txt"),
        (dict(budget="soon"), "--budget: 'soon'; must be a time"),
        (dict(run_time="0"), "--run_time: '0'; must be a time"),
        (dict(at_once=-1), "--at_once: -1; must be ≥ 0"),
        (dict(json="nowhere/a.json"), "--json: nowhere/a.json; its folder does not exist"),
        (dict(plot="a.gif"), "--plot: a.gif; must end in .png, .pdf or .svg"),
        (dict(budget="1s"), "--budget: 1 s; the shortest member takes 2 s"),
    ],
)
def test_bad_input_is_one_clear_error(folder, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as e:
        do(folder, tmp_path / "out", **changes)
    assert message in str(e.value) and "\n" not in str(e.value)
    assert not os.listdir(tmp_path)


def test_a_text_that_has_changed_is_refused(swept, folder):
    out_dir, _ = swept
    text = (folder / "text.txt").read_text()
    try:
        (folder / "text.txt").write_text(text + "more")
        with pytest.raises(UserError, match="differs from the checkpoint's"):
            do(folder, out_dir)
    finally:
        (folder / "text.txt").write_text(text)


@pytest.mark.slow
def test_a_picture_is_drawn(swept, folder):
    pytest.importorskip("matplotlib")
    out_dir, _ = swept
    assert do(folder, out_dir, plot=str(folder / "a.png")) == 0
    assert (folder / "a.png").read_bytes()[:4] == b"\x89PNG"
