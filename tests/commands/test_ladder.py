"""A ladder between two tiny experiments: its numbers, what is kept of it, how it goes on."""

import json
import math
import os
import signal
import time

import forked
import numpy as np
import pytest
import runs
import tiny

from gptjax.config.config import flat, set_knob
from gptjax.config.config_file import load_config
from gptjax.ladder import ladder
from gptjax.run import kept_runs, short_run
from gptjax.run.short_run import OF_EACH_RUN, ShortRun
from gptjax.system.errors import RunError, UserError

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update(
        data=dict(source="text:{text}"),
        model=dict(n_layer=1, n_head=2, n_embd=8, block_size={context}, dropout={dropout}),
        optim=dict(warmup_iters=2),
        train=dict(max_iters={updates}, batch_size=6),
        eval=dict(max_tokens=200),
    )
    return config
"""

# The second differs in three steps: context, length and dropout.
A = dict(context=5, dropout=0.0, updates=8)
B = dict(context=7, dropout=0.3, updates=12)
N_RUNS = 2 * 2 * 6  # horizons, seeds, rungs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two config files and their text."""
    folder = tmp_path_factory.mktemp("ladder")
    text = folder / "text.txt"
    text.write_text(tiny.TEXT)
    for name, settings in (("a", A), ("b", B), ("broken", {**B, "context": 0})):
        (folder / f"{name}.py").write_text(CONFIG.format(text=text, **settings))
    return folder


@pytest.fixture(scope="module", autouse=True)
def programs():
    """Each is compiled once for all tests, which are about what is run and kept."""
    made = {}

    def once(config, text, device, **settings):
        values = {name: value for name, value in flat(config).items() if name not in OF_EACH_RUN}
        key = repr((values, len(text.train), settings["context"], len(settings["val_W"])))
        if key not in made:
            made[key] = ShortRun(config, text, device, **settings)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_runs, "ShortRun", once)
        patch.setattr(short_run, "_CALL_SECONDS", 0.05)  # An update's time is no test's matter.
        yield made


def climb(folder, out_dir, *, end="b.py", **settings):
    settings = {"budget": "1h", "orders": 0, "seeds": 2, "json": None, **settings}
    ladder(str(folder / "a.py"), str(folder / end), out_dir=str(out_dir), **settings)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*.json")}


@pytest.fixture(scope="module")
def climbed(folder):
    """A whole ladder: its folder, its numbers, and in which order its runs were made."""
    made, run = [], ShortRun.run

    def noted(self, config, *, told):
        made.append((config.train.max_iters, config.seed))
        return run(self, config, told=told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ShortRun, "run", noted)
        climb(folder, folder / "out", json=str(folder / "a.json"))
    return folder / "out", json.loads((folder / "a.json").read_text()), made


def test_shares_sum_to_the_gap_at_each_horizon(climbed):
    _, found, _ = climbed
    assert [step["name"] for step in found["steps"]] == ["context", "length", "dropout"]
    assert found["orders"] == [
        ["context", "length", "dropout"],
        ["dropout", "length", "context"],
    ]
    half, full = found["readings"]
    assert (half["updates"], full["updates"]) == ([4, 6], [8, 12])
    for reading in (half, full):
        total = math.fsum(step["share"]["mean"] for step in reading["steps"])
        a, b = reading["ends"]
        assert total == pytest.approx(reading["gap"]["mean"], abs=1e-12)
        assert total == pytest.approx(b["mean"] - a["mean"], abs=1e-12)
        for step in reading["steps"]:
            assert step["share"]["mean"] == pytest.approx(np.mean(step["by_order"]))
            assert step["interaction"]["mean"] == pytest.approx(np.ptp(step["by_order"]))
    assert any("at 8 → 12 updates (the whole of both runs)" in s for s in found["sentences"])


def test_an_end_is_what_train_py_trains(climbed, folder):
    """The first end's context is all rungs': train.py evaluates it on the same windows."""
    _, found, _ = climbed
    vals = []
    for seed in (1337, 1338):
        config = load_config(str(folder / "a.py"), {})
        set_knob(config, "seed", seed)
        set_knob(config, "mesh.data", 1)
        assert runs.start(config, folder / str(seed)) == 0
        (*_, last) = (r for r in runs.history(folder / str(seed)) if r["kind"] == "eval")
        vals.append(last["val_loss"])
    end = found["readings"][-1]["ends"][0]
    assert end["mean"] == pytest.approx(np.mean(vals), rel=1e-6)
    assert end["error"] == pytest.approx(np.std(vals, ddof=1) / math.sqrt(2), rel=1e-3)


def test_the_half_comes_first_and_a_seed_of_all_rungs_before_the_next(climbed):
    _, _, made = climbed
    assert len(made) == N_RUNS
    assert [seed for _, seed in made] == 2 * (6 * [1337] + 6 * [1338])
    # The first seed's rungs: the way there ends at the whole; then the way back.
    assert [n for n, _ in made[:6]] == [4, 4, 6, 6, 4, 6]
    assert [n for n, _ in made[12:18]] == [8, 8, 12, 12, 8, 12]


def test_the_same_command_again_runs_nothing(climbed, folder, monkeypatch, capsys):
    out_dir, found, _ = climbed
    before = files(out_dir)
    monkeypatch.setattr(ShortRun, "run", lambda *a, **k: pytest.fail("something is run"))
    monkeypatch.setattr(ShortRun, "measure", lambda self: pytest.fail("the plan is made anew"))
    climb(folder, out_dir, json=str(folder / "again.json"))
    assert json.loads((folder / "again.json").read_text()) == found
    assert files(out_dir) == before
    assert "all 24 runs are there already" in capsys.readouterr().out


def test_other_orders_use_what_is_there(climbed, folder, monkeypatch):
    """All six orders: of the eight rungs two are new, each with two seeds at both horizons."""
    out_dir, found, _ = climbed
    made, run = [], ShortRun.run

    def noted(self, config, *, told):
        made.append(config.train.max_iters)
        return run(self, config, told=told)

    monkeypatch.setattr(ShortRun, "run", noted)
    climb(folder, out_dir, orders=9, json=str(folder / "more.json"))
    more = json.loads((folder / "more.json").read_text())
    assert len(more["orders"]) == 6 and len(made) == 8
    for old, new in zip(found["readings"], more["readings"], strict=True):
        assert new["gap"] == old["gap"]
        for i in range(3):
            assert new["steps"][i]["by_order"][:2] == old["steps"][i]["by_order"]


def test_a_ladder_that_was_killed_goes_on(climbed, folder, tmp_path, monkeypatch, capsys):
    """Killed in its eighth run, it makes the others, and ends with the same numbers."""
    _, found, _ = climbed
    made, run = [], ShortRun.run

    def killing(self, config, *, told):
        if len(made) == 7:
            raise KeyboardInterrupt
        made.append(config.seed)
        return run(self, config, told=told)

    monkeypatch.setattr(ShortRun, "run", killing)
    with pytest.raises(KeyboardInterrupt):
        climb(folder, tmp_path / "out")
    assert len(files(tmp_path / "out" / "runs")) == 7
    monkeypatch.setattr(ShortRun, "run", run)
    monkeypatch.setattr(ShortRun, "measure", lambda self: pytest.fail("the plan is made anew"))
    capsys.readouterr()
    climb(folder, tmp_path / "out", json=str(tmp_path / "a.json"))
    assert "for the 17 that are missing; 7 are there already" in capsys.readouterr().out
    assert json.loads((tmp_path / "a.json").read_text())["readings"] == found["readings"]


def test_what_is_printed(climbed, folder, capsys):
    out_dir, found, _ = climbed
    climb(folder, out_dir)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "a → b: 3 differences",
        "  context: block_size 5 → 7",
        "  length: max_iters 8 → 12",
        "  dropout: dropout 0.0 → 0.3",
    ]
    assert lines[4] == "val: 200 tokens of text:text.txt at context 5"
    assert lines[5].startswith("  contexts differ: every rung is evaluated at the shorter one")
    assert lines[-len(found["sentences"]) :] == [
        f"{number}  {sentence}" for number, sentence in enumerate(found["sentences"], 1)
    ]


def test_what_is_not_finite_is_named(folder, tmp_path, monkeypatch):
    def failing(self, config, *, told):
        raise RunError("update 3 is not finite")

    monkeypatch.setattr(ShortRun, "run", failing)
    with pytest.raises(RunError, match="a, seed 1337: update 3 is not finite; no share can be"):
        climb(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(end="a.py"), "--to: a; has the same settings as --from"),
        (dict(end="none.py"), "none.py; no such file"),
        (dict(end="nothing"), "nothing; does not exist"),
        (dict(end="broken.py"), "model.block_size: 0; must be ≥ 1"),
        (dict(budget="soon"), "--budget: 'soon'; must be a time"),
        (dict(orders=-1), "--orders: -1; must be ≥ 0"),
        (dict(seeds=-1), "--seeds: -1; must be ≥ 0"),
        (dict(json="nowhere/a.json"), "--json: nowhere/a.json; its folder does not exist"),
        (dict(out="a.py"), "is a file"),
    ],
)
def test_bad_input_is_one_clear_error(folder, tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    changes = dict(changes)
    out_dir = folder / changes.pop("out") if "out" in changes else tmp_path / "out"
    with pytest.raises(UserError) as e:
        climb(folder, out_dir, **changes)
    assert message in str(e.value) and "\n" not in str(e.value)
    assert not os.listdir(tmp_path)


def test_a_budget_that_is_too_small_leaves_nothing(folder, tmp_path):
    with pytest.raises(UserError, match=r"--budget: 1 s; 2 seeds of 6 configs, 8 updates each"):
        climb(folder, tmp_path / "out", budget="1s")
    assert not os.listdir(tmp_path)


def test_a_text_that_has_changed_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text(tiny.TEXT)
    config = runs.settings(tmp_path, train__max_iters=1, optim__warmup_iters=0)
    assert runs.start(config, tmp_path / "run") == 0
    other = tmp_path / "b.py"
    other.write_text(CONFIG.format(text=tmp_path / "text.txt", **B))
    with open(tmp_path / "text.txt", "a") as file:
        file.write("more")
    with pytest.raises(UserError, match="--from: run; its text, text:.*, is another one now"):
        ladder(
            *(str(tmp_path / "run"), str(other)),
            **dict(budget="1m", orders=0, seeds=2, out_dir=str(tmp_path / "out"), json=None),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ctrl_c_tells_what_there_is_and_the_same_command_goes_on(folder, tmp_path):
    for name, settings in (("a", A), ("b", B)):  # A run takes a moment.
        longer = {**settings, "updates": 800}
        (tmp_path / f"{name}.py").write_text(CONFIG.format(text=folder / "text.txt", **longer))
    flags = [f"--from={tmp_path / 'a.py'}", f"--to={tmp_path / 'b.py'}"]
    flags += [f"--out_dir={tmp_path / 'out'}", "--seeds=2", "--budget=1h"]
    command = forked.Command(tmp_path, "ladder", *flags)
    deadline = time.monotonic() + 300
    # Two steps make four rungs, each with two seeds at two horizons. One seed is made of all rungs.
    while not (command.stdout.exists() and "run 4/16: val" in command.stdout.read_text()):
        assert command.is_running() and time.monotonic() < deadline, command.stderr.read_text()
        time.sleep(0.02)
    command.send(signal.SIGINT)
    ended = command.wait()
    assert ended.code == 130 and ended.stderr.strip() == "gptjax: interrupted"
    _, stopped, after = ended.stdout.partition("stopped: ")
    assert stopped and "of 16 runs are made and kept" in after and "of one seed" in after
    again = forked.Command(tmp_path, "ladder", *flags).wait(300)
    assert again.code == 0 and "are there already" in again.stdout
    assert "stopped" not in again.stdout and "±" in again.stdout
