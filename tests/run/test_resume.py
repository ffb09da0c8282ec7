"""A run that is stopped and started again is the run that was never stopped."""

import datetime
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import faults
import forked
import numpy as np
import pytest
import runs
import tiny

from gptjax.config.config import flat, set_knob
from gptjax.config.config_file import load_config
from gptjax.config.knobs import KNOBS
from gptjax.device import flops, peak
from gptjax.run import resume
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.progress import Notice
from gptjax.run.resume import ResumePlan
from gptjax.run.runlog import read_records
from gptjax.run.saver import checkpoint_bytes
from gptjax.system.errors import RunError, UserError
from gptjax.train import train

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update(
        model=dict(n_layer=1, n_head=2, n_embd=6, block_size=5, dropout=0.2),
        optim=dict(warmup_iters=2),
        train=dict(max_iters=12, batch_size=4),
        eval=dict(interval=5, max_tokens=50),
        checkpoint=dict(interval=4),
        log=dict(interval=3),
        mesh=dict(data=1),
    )
    return config
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A config file and a text, for every test here."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "config.py").write_text(CONFIG)
    (folder / "text.txt").write_text(tiny.TEXT)
    os.environ["GPTJAX_CACHE_DIR"] = str(folder)
    yield folder
    del os.environ["GPTJAX_CACHE_DIR"]


def run(files, out_dir, **knobs):
    overrides = {
        "out_dir": str(out_dir),
        "data.source": f"text:{files / 'text.txt'}",
        **{name.replace("__", "."): str(value) for name, value in knobs.items()},
    }
    return runs.start(load_config(str(files / "config.py"), overrides), out_dir, overrides)


def final_state(out_dir):
    return runs.newest(out_dir).state


@pytest.fixture(scope="module")
def unbroken(files, tmp_path_factory):
    out_dir = tmp_path_factory.mktemp("unbroken") / "run"
    assert run(files, out_dir) == 0
    return out_dir


@pytest.mark.parametrize("n_updates", [1, 7])
def test_p7_stopped_and_started_again_ends_with_the_same_bits(files, unbroken, tmp_path, n_updates):
    out_dir = tmp_path / "run"
    with runs.stopped_after(n_updates):
        assert run(files, out_dir, train__updates_per_dispatch=1) == 143
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == n_updates
    assert run(files, out_dir, train__updates_per_dispatch=1) == 0
    tiny.assert_same_bits(final_state(out_dir), final_state(unbroken))
    assert runs.history(out_dir) == runs.history(unbroken)


def test_p9_intervals_and_dispatches_change_no_bit(files, unbroken, tmp_path):
    run(
        files,
        tmp_path / "run",
        log__interval=1,
        eval__interval=2,
        checkpoint__interval=12,
        train__updates_per_dispatch=5,
        eval__mode="random",
        eval__iters=2,
    )
    tiny.assert_same_bits(final_state(tmp_path / "run"), final_state(unbroken))


def test_log_holds_every_step_once(unbroken):
    records = runs.history(unbroken)
    assert [r["step"] for r in records if r["kind"] == "eval"] == [0, 5, 10, 12]
    assert [r["step"] for r in records if r["kind"] == "train"] == [3, 6, 9, 12]
    for record in records:
        if record["kind"] == "train":
            assert record["tokens_seen"] == record["step"] * 4 * 5
    kinds = [record["kind"] for record in read_records(unbroken / "metrics.jsonl")]
    assert kinds[0] == "run" and kinds[-2:] == ["ledger", "end"]


def test_stored_rate_is_that_of_the_update(unbroken):
    rates = [r["lr"] for r in runs.history(unbroken) if r["kind"] == "train"]
    # Update 2, the third, is the first after a warmup of two: the peak. By hand for the last:
    progress = (11 - 2) / (12 - 2)
    last = 1e-4 + 0.5 * (1 + np.cos(np.pi * progress)) * 9e-4
    np.testing.assert_allclose([rates[0], rates[-1]], [1e-3, last], rtol=1e-5)


def test_run_directory_is_self_contained(unbroken):
    with Checkpoints(unbroken, read_only=True) as checkpoints:
        meta = checkpoints.meta(12)
    assert meta["corpus"]["name"] == "text:text.txt" and meta["step"] == 12
    assert meta["tokenizer"]["symbols"] == "".join(sorted(set(tiny.TEXT)))
    assert meta["best"]["val_nats"] == min(
        r["val_loss"] for r in runs.history(unbroken) if r["kind"] == "eval"
    )
    assert json.loads((unbroken / "config.json").read_text())["model.n_embd"] == 6
    seconds = meta["ledger"]["seconds"]
    assert abs(sum(seconds.values()) - meta["ledger"]["wall_seconds"]) < 0.01


def test_a_finished_run_says_so(files, unbroken, capsys):
    def changes():
        files = (path for path in unbroken.rglob("*") if path.name != ".lock")
        return {path: path.stat().st_mtime_ns for path in files}

    before = changes()
    assert run(files, unbroken) == 0
    assert "is at step 12 of 12: nothing to do" in capsys.readouterr().out
    assert changes() == before


def test_event_files_for_tensorboard(files, tmp_path):
    run(files, tmp_path / "run", train__max_iters=4, log__tensorboard=True)
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"train/loss" in content and b"eval/val_loss" in content


def test_a_finished_run_needs_no_text_to_say_so(files, unbroken, tmp_path, monkeypatch, capsys):
    def unreachable(*arguments, **settings):
        raise AssertionError("the text was asked for")

    monkeypatch.setattr("gptjax.data.corpus.load", unreachable)
    assert run(files, unbroken) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_flags_of_the_first_start_are_put_together_with_those_of_the_second(files, tmp_path):
    """By itself the second command would break a rule: the file's lowest rate is above its own."""
    out_dir, rate = tmp_path / "run", {"train__max_iters": 2, "optim__learning_rate": 1e-5}
    run(files, out_dir, **rate, optim__min_lr=1e-6)
    with pytest.raises(UserError, match="min_lr"):
        run(files, tmp_path / "other", **rate)
    assert run(files, out_dir, **rate) == 0


def test_a_signal_during_the_last_update_does_not_unfinish_the_run(files, tmp_path):
    with runs.stopped_after(12):
        assert run(files, tmp_path / "run") == 0
    assert read_records(tmp_path / "run" / "metrics.jsonl")[-1]["reason"] == "finished"


def damage(out_dir, step):
    """Cuts the files that hold a checkpoint's arrays short."""
    for path in (out_dir / "checkpoints" / str(step) / "state").glob("**/d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("damaged", "resumed_at"), [((12,), 8), ((8, 12), 4)])
def test_p5_damaged_newest_checkpoints_are_set_aside(
    files, unbroken, tmp_path, capsys, damaged, resumed_at
):
    """The run goes on from the newest whole one, repeats what was lost and saves again."""
    out_dir = tmp_path / "run"
    knobs = dict(checkpoint__keep=9, eval__interval=12)
    assert run(files, out_dir, **knobs) == 0
    for step in damaged:
        damage(out_dir, step)
    capsys.readouterr()
    assert run(files, out_dir, **knobs) == 0
    printed = capsys.readouterr().out
    assert (
        printed.count("is damaged") == len(damaged) and f"resumed at step {resumed_at}" in printed
    )
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        assert checkpoints.steps() == [0, 4, 8, 12]
    assert all((out_dir / "checkpoints" / f"{step}.corrupt").is_dir() for step in damaged)
    tiny.assert_same_bits(final_state(out_dir), final_state(unbroken))
    assert [r["step"] for r in runs.history(out_dir) if r["kind"] == "train"] == [3, 6, 9, 12]


def test_p5_if_all_checkpoints_are_damaged_nothing_is_begun_anew(files, unbroken, tmp_path):
    out_dir = tmp_path / "run"
    shutil.copytree(unbroken, out_dir)
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        steps = checkpoints.steps()
    for step in steps:
        damage(out_dir, step)
    with pytest.raises(RunError, match="none of the checkpoints"):
        run(files, out_dir)
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        assert checkpoints.steps() == steps
    assert runs.history(out_dir) == runs.history(unbroken)


def test_the_log_of_a_run_whose_checkpoints_are_gone_is_not_overwritten(files, unbroken, tmp_path):
    out_dir = tmp_path / "run"
    shutil.copytree(unbroken, out_dir)
    shutil.rmtree(out_dir / "checkpoints")
    log = (out_dir / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match="log of a run that ended at step 12, and no checkpoint"):
        run(files, out_dir)
    assert (out_dir / "metrics.jsonl").read_bytes() == log
    # A run that was killed may have had none yet: it begins again.
    killed = b"".join(log.splitlines(keepends=True)[:-1])
    (out_dir / "metrics.jsonl").write_bytes(killed)
    assert run(files, out_dir) == 0
    assert runs.history(out_dir) == runs.history(unbroken)


def test_a_start_that_fails_leaves_nothing_and_no_one_else_starts_meanwhile(
    files, tmp_path, monkeypatch
):
    out_dir = tmp_path / "new" / "run"

    def start_another(*arguments, **settings):
        monkeypatch.undo()
        with pytest.raises(UserError, match=f"is in use by process {os.getpid()} on "):
            run(files, out_dir)
        raise UserError("model", 1, "cannot be built")

    monkeypatch.setattr("gptjax.train.compile_trainer", start_another)
    with pytest.raises(UserError, match="cannot be built"):
        run(files, out_dir)
    assert list(tmp_path.iterdir()) == []


def test_max_iters_zero_evaluates_and_ends(files, tmp_path, capsys):
    assert run(files, tmp_path / "run", train__max_iters=0) == 0
    assert [r["step"] for r in runs.history(tmp_path / "run")] == [0]


def test_p14_a_longer_horizon_is_shown_and_its_jump_warned_of(files, unbroken, tmp_path, capsys):
    out_dir = tmp_path / "run"
    shutil.copytree(unbroken, out_dir)
    assert run(files, out_dir, train__max_iters=20) == 0
    printed = capsys.readouterr().out
    assert "train.max_iters: 12 → 20" in printed
    assert "the learning rate of update 12 jumps from 0.0001 to" in printed
    steps = [r["step"] for r in runs.history(out_dir) if r["kind"] == "train"]
    assert steps == [3, 6, 9, 12, 15, 18, 20]


def test_p28_a_text_is_known_by_its_content(files, tmp_path, capsys):
    """Moved, or named otherwise, it is the same text; another one under its name is not."""
    out_dir, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text(tiny.TEXT)
    assert run(files, out_dir, data__source=f"text:{text}", train__max_iters=3) == 0
    moved = text.rename(tmp_path / "moved.txt")
    capsys.readouterr()
    assert run(files, out_dir, data__source=f"text:{moved}", train__max_iters=5) == 0
    assert f"data.source: text:{text} → text:{moved}" in capsys.readouterr().out
    moved.write_text(tiny.TEXT[::-1])
    before = runs.steps(out_dir)
    with pytest.raises(UserError, match="corpus text:moved.txt: sha256 .* differs from the check"):
        run(files, out_dir, data__source=f"text:{moved}", train__max_iters=7)
    with pytest.raises(UserError, match="data.source: synthetic; .* would be another experiment"):
        run(files, out_dir, data__source="synthetic", train__max_iters=7)
    with pytest.raises(UserError, match="data.source: shakspeare; unknown dataset"):
        run(files, out_dir, data__source="shakspeare", train__max_iters=7)
    assert runs.steps(out_dir) == before


def test_p29_no_mfu_is_above_its_bound(files, tmp_path, capsys, monkeypatch):
    """The peak was measured while the machine was busy: a billionth of what the run then does."""
    config = files_config = runs.settings(tmp_path, log__interval=1)
    monkeypatch.setattr(peak, "matmul_rate", lambda *arguments, **settings: 1.0)
    monkeypatch.setattr(flops, "update_flops", lambda *arguments, **settings: 1e9)
    set_knob(files_config, "out_dir", str(tmp_path / "run"))
    assert train(config, []) == 0
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    shown = [record["mfu"] for record in records if record["kind"] == "train"]
    assert len(shown) == 12 and all(0 < mfu <= 1 for mfu in shown) and max(shown) == 1
    assert not re.search(r"mfu (1[1-9]\d|[2-9]\d\d|\d{4,})%", capsys.readouterr().out)


def test_p29_one_window_has_no_error_bar(files, tmp_path, capsys):
    assert run(files, tmp_path / "run", train__max_iters=2, eval__max_tokens=1) == 0
    said = capsys.readouterr().out
    assert "(one window: no error bar) nats/char" in said and "inf" not in said


def test_p25_a_full_disk_under_the_output_stops_no_run(tmp_path):
    config = tmp_path / "config.py"
    config.write_text(
        "from gptjax.config import default_config\n"
        "def get_config():\n"
        "    config = default_config()\n"
        "    config.model.update(n_layer=1, n_head=2, n_embd=6, block_size=5)\n"
        "    config.train.update(max_iters=6, updates_per_dispatch=2)\n"
        "    config.optim.warmup_iters = 2\n"
        "    config.data.source = 'text:text.txt'\n"
        "    return config\n"
    )
    (tmp_path / "text.txt").write_text(tiny.TEXT)
    ended = forked.run(
        tmp_path, "train", "--config=config.py", cwd=tmp_path, prepare=faults.full_output
    )
    assert (ended.code, ended.stderr) == (0, "")
    records = read_records(tmp_path / "out" / "run" / "metrics.jsonl")
    (note,) = (record for record in records if record["kind"] == "note")
    assert note["text"] == "stdout could not be written: No space left on device"
    assert records[-1] == {"kind": "end", "step": 6, "reason": "finished"}
    assert runs.newest(tmp_path / "out" / "run").step == 6


def test_p25_what_a_run_is_stands_in_its_log(files, tmp_path):
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    assert run(files, tmp_path / "run", train__max_iters=1) == 0
    (record,) = (r for r in read_records(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "run")
    started = datetime.datetime.fromisoformat(record["started"])
    assert before <= started <= datetime.datetime.now(datetime.UTC)
    assert record["host"] == platform.node() and shlex.split(record["command"]) == sys.argv


def test_a_fork_that_would_make_no_update_is_refused(files, unbroken, tmp_path):
    for max_iters in (3, 12):
        message = f"max_iters: {max_iters}; the checkpoint .* is at step 12: .* above 12"
        with pytest.raises(UserError, match=message):
            run(files, tmp_path / "fork", init_from=unbroken, train__max_iters=max_iters)
    assert not (tmp_path / "fork").exists()


def test_a_run_that_ends_while_it_warms_up_says_so(files, tmp_path, capsys):
    assert run(files, tmp_path / "run", train__max_iters=3, optim__warmup_iters=5) == 0
    said = capsys.readouterr().out
    assert (
        "warning: the run ends while it warms up: 3 updates, warmup_iters 5; the learning" in said
    )
    rates = [
        r["lr"] for r in read_records(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"
    ]
    assert rates[-1] == pytest.approx(1e-3 * 3 / 6)
    assert "gets to 0.0005 of 0.001" in said


def test_space_is_asked_for_no_more_checkpoints_than_can_be_written():
    state = {"weights": np.zeros(7, np.float32)}
    for knobs, n_checkpoints in [
        (dict(checkpoint__keep=10_000), 2 + 12 // 5 + 12 // 5),
        (dict(checkpoint__keep=3), 3 + 2),
        (dict(checkpoint__keep=10_000, train__max_iters=0), 2),
    ]:
        plan = ResumePlan(tiny.config(**knobs), [])
        assert checkpoint_bytes(plan, state) == n_checkpoints * 7 * 4


def test_a_fork_is_a_new_run_with_a_parent(files, unbroken, tmp_path):
    fork = tmp_path / "fork"
    assert run(files, fork, init_from=unbroken, train__max_iters=15, optim__beta1=0.8) == 0
    with Checkpoints(fork, read_only=True) as checkpoints:
        meta = checkpoints.meta(15)
    assert meta["parent"] == {"init_from": str(unbroken), "step": 12, "corpus": "text:text.txt"}
    assert [r["step"] for r in runs.history(fork) if r["kind"] == "train"] == [15]
    # Where it starts it is evaluated and saved, whatever the intervals.
    assert [r["step"] for r in runs.history(fork) if r["kind"] == "eval"] == [12, 15]
    # It can itself be resumed, however the parent's path is written, and stays its child.
    for n, written in enumerate((unbroken, f"{unbroken}/", os.path.relpath(unbroken))):
        again = dict(init_from=written, train__max_iters=16 + n, optim__beta1=0.8)
        assert run(files, fork, **again) == 0
    with pytest.raises(UserError, match="needs an unused directory"):
        run(files, fork, init_from=unbroken.parent, train__max_iters=20, optim__beta1=0.8)


class TestResumedConfig:
    def stored(self, **knobs):
        return flat(tiny.config(**knobs))

    def test_unchanged(self):
        config, lines = resume.resumed_config(tiny.config(), [], self.stored(), [], step=7)
        assert flat(config) == self.stored() and lines == []

    def test_a_changed_knob_is_applied_and_shown(self):
        requested = tiny.config(optim__learning_rate=2e-3)
        for overrides in (["optim.learning_rate"], []):  # given now, or edited in the file
            config, lines = resume.resumed_config(requested, overrides, self.stored(), [], step=7)
            assert config.optim.learning_rate == 2e-3
            assert lines == [Notice("optim.learning_rate: 0.001 → 0.002")]

    def test_a_flag_of_the_first_start_need_not_be_repeated(self):
        stored = self.stored(optim__learning_rate=2e-3)
        config, lines = resume.resumed_config(
            tiny.config(), [], stored, ["optim.learning_rate"], step=7
        )
        assert config.optim.learning_rate == 2e-3 and "as this run was started" in lines[0].text

    def test_devices_are_those_of_the_machine_at_hand(self):
        stored = self.stored(mesh__cpu_devices=2)
        config, lines = resume.resumed_config(
            tiny.config(), [], stored, ["mesh.cpu_devices"], step=7
        )
        assert config.mesh.cpu_devices == 1 and lines == [Notice("mesh.cpu_devices: 2 → 1")]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("seed", 1),
            ("model.n_layer", 1),
            ("model.dtype", "bfloat16"),
            ("model.dropout", 0.5),
            ("train.batch_size", 8),
            ("train.grad_accum_steps", 2),
            ("data.source", "synthetic"),
            ("data.val_fraction", 0.2),
            ("data.tokenizer", "bpe:300"),
        ],
    )
    def test_another_experiment_is_refused(self, name, value):
        requested = tiny.config()
        set_knob(requested, name, value)
        with pytest.raises(UserError, match="another experiment") as error:
            resume.resumed_config(requested, [name], self.stored(), [], step=7)
        # Where a fork would be refused as well, none is proposed.
        assert ("or fork the run" in str(error.value)) == (not KNOBS[name].fixed_in_fork)


def test_a_changed_text_is_refused(files, unbroken, tmp_path):
    out_dir, other = tmp_path / "run", tmp_path / "files"
    shutil.copytree(unbroken, out_dir)
    shutil.copytree(files, other)
    assert run(other, out_dir, train__max_iters=15) == 0  # The same text, elsewhere.
    (files / "text.txt").write_text(tiny.TEXT + "more")
    try:
        with pytest.raises(UserError, match="differs from the checkpoint's"):
            run(files, out_dir, train__max_iters=16)
    finally:
        (files / "text.txt").write_text(tiny.TEXT)


SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


def command(files, out_dir, *more):
    return [
        sys.executable,
        str(SCRIPTS / "train.py"),
        f"--config={files / 'config.py'}",
        f"--config.out_dir={out_dir}",
        f"--config.data.source=text:{files / 'text.txt'}",
        "--config.train.max_iters=150",
        "--config.checkpoint.interval=10",
        "--config.train.updates_per_dispatch=1",
        *more,
    ]


@pytest.mark.slow
def test_training_outlives_its_reader(files, tmp_path):
    """`train.py | head -1`: the run goes on in silence, and is whole."""
    out_dir = tmp_path / "run"
    process = subprocess.Popen(
        command(files, out_dir), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == ""
    assert read_records(out_dir / "metrics.jsonl")[-1]["reason"] == "finished"
