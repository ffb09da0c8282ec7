"""log.wandb: what wandb is sent, and what becomes of a run when wandb or its server fails."""

import importlib.machinery
import importlib.util
import math
import os
import sys
import types

import faults
import forked
import pytest
import runs
import tiny

from gptjax.config.config import digest
from gptjax.config.config_file import load_config
from gptjax.data.datasets import Offline
from gptjax.run import runlog, wandb_log
from gptjax.run.runlog import read_records
from gptjax.system.errors import UserError

URL = "https://wandb.invalid"


class FakeRun:
    """A run of wandb: the server keeps a row for each step, none before the last."""

    def __init__(self, server, settings):
        self.id, self.name, self.mode = settings["id"], settings["name"], settings["mode"]
        self._rows = server.rows.setdefault(self.id, {})
        self._fails_at = server.fails_at
        self.step = max(self._rows, default=-1) + 1 if self.mode == "online" else 0
        self.dir = f"{settings['dir']}/wandb/{self.mode}-run-{self.id}/files"
        self.url = f"{URL}/{settings['project']}/{self.id}"
        self.config = types.SimpleNamespace(update=self._update)
        self.settings, self.updates, self.exit_code = settings, [], None

    def _update(self, values, *, allow_val_change):
        assert allow_val_change
        self.updates.append(values)

    def log(self, values, *, step):
        assert step >= max(self._rows, default=0), "steps must not go back"
        if step == self._fails_at:
            raise BrokenPipeError("the service is gone")
        self._rows.setdefault(step, {}).update(values)

    def finish(self, *, exit_code):
        self.exit_code = exit_code


class FakeWandb(types.ModuleType):
    """wandb as far as it is used; `rows` is what its server has, by run and step."""

    class Settings:
        model_fields = dict.fromkeys(("silent", "console", "init_timeout", "finish_timeout"))

        def __init__(self, **values):
            self.values = values

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", None, origin="fake")
        self.rows, self.runs, self.torn_down = {}, [], 0
        self.refused, self.fails_at = (), None

    def setup(self, *, settings):
        assert settings.values == {"silent": True}
        mode = os.environ.get("WANDB_MODE", "online")
        return types.SimpleNamespace(settings=types.SimpleNamespace(mode=mode, base_url=URL))

    def init(self, **settings):
        if settings["mode"] in self.refused:
            raise RuntimeError(f"no {settings['mode']}\nrun.")
        self.runs.append(FakeRun(self, settings))
        return self.runs[-1]

    def teardown(self, *, exit_code):
        self.torn_down += 1


@pytest.fixture
def wandb(monkeypatch):
    """wandb, with a server that answers."""
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(wandb_log, "probe", lambda url: None)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return fake


def start(folder, name, **knobs):
    """The exit code of a run."""
    return runs.start(runs.settings(folder, log__wandb=True, **knobs), folder / name)


def logged(out_dir, *steps, resumed_step=None, **knobs):
    """Writes a log with a record for each step, without a run; what its user is told."""
    config, notices = tiny.config(out_dir=str(out_dir), log__wandb=True, **knobs), []
    out_dir.mkdir(exist_ok=True)
    with runlog.begin(config, resumed_step, tell=notices.append) as log:
        for step in steps:
            log.append("train", step=step, loss=1 / step)
    return [notice.text for notice in notices]


def records_by_step(out_dir):
    """What metrics.jsonl says, as wandb is to have it."""
    rows = {}
    for record in read_records(out_dir / "metrics.jsonl"):
        kind, step = record.pop("kind"), record.pop("step", None)
        if step is not None:
            told = {f"{kind}/{name}": v for name, v in record.items() if v is not None}
            rows.setdefault(step, {}).update(told)
    return rows


def test_wandb_has_what_metrics_jsonl_has(wandb, tmp_path, capsys):
    assert start(tmp_path, "run") == 0
    (run,) = wandb.runs
    assert wandb.rows[run.id] == records_by_step(tmp_path / "run")
    assert {"train/loss", "eval/val_loss", "ledger/seconds", "end/reason"} <= {
        name for row in wandb.rows[run.id].values() for name in row
    }
    (first,) = read_records(tmp_path / "run" / "metrics.jsonl")[:1]
    assert first.pop("kind") == "run" and run.updates == [{"run": first}]
    assert run.settings["config"]["model"]["n_embd"] == 6
    assert (run.settings["project"], run.name, run.exit_code) == ("gptjax", "run", 0)
    assert run.settings["settings"].values["console"] == "off"
    assert f"wandb: {URL}/gptjax/{run.id}\n" in capsys.readouterr().out


def test_a_run_that_goes_on_is_the_same_run_of_wandb_and_sends_nothing_twice(wandb, tmp_path):
    out_dir, knobs = tmp_path / "run", dict(train__updates_per_dispatch=1)
    with runs.stopped_after(7):
        assert start(tmp_path, "run", **knobs) == 143
    assert start(tmp_path, "run", **knobs) == 0
    first, second = wandb.runs
    assert first.id == second.id == (out_dir / "wandb_id").read_text().strip()
    assert second.settings["resume"] == "allow" and second.step == 8
    assert wandb.rows[first.id] == records_by_step(out_dir)
    assert wandb.rows[first.id][7]["end/reason"] == "SIGTERM"
    assert len(first.updates) == len(second.updates) == 1


@pytest.mark.slow
def test_a_fork_is_a_run_of_its_own(wandb, tmp_path):
    assert start(tmp_path, "run") == 0
    fork = dict(init_from=str(tmp_path / "run"), train__max_iters=14)
    assert start(tmp_path, "fork", **fork) == 0
    with runs.stopped_after(13):
        start(tmp_path, "other fork", **fork)
    assert len({run.id for run in wandb.runs}) == 3
    assert start(tmp_path, "other fork", **fork) == 0
    assert wandb.runs[-1].id == wandb.runs[-2].id


def test_what_a_killed_process_had_sent_is_not_sent_again(wandb, tmp_path):
    """Its checkpoint is of step 5, wandb has steps up to 9; a real server would refuse them."""
    logged(tmp_path / "run", 5, 7, 9)
    logged(tmp_path / "run", 7, 9, 11, resumed_step=5)
    (rows,) = wandb.rows.values()
    assert {step: row["train/loss"] for step, row in rows.items()} == {
        step: 1 / step for step in (5, 7, 9, 11)
    }


def test_a_run_begun_anew_has_a_new_id(wandb, tmp_path):
    """An id is there, but no checkpoint: its run was killed before it had one."""
    logged(tmp_path / "run", 5)
    logged(tmp_path / "run", 5)
    first, second = wandb.runs
    assert first.id != second.id == (tmp_path / "run" / "wandb_id").read_text().strip()


def test_it_can_be_switched_on_later(wandb, tmp_path):
    logged(tmp_path / "run", 6, 7, resumed_step=5)
    (run,) = wandb.runs
    assert list(wandb.rows[run.id]) == [6, 7] and len(run.id) == 8


def test_project_and_name_can_be_given(wandb, tmp_path):
    logged(tmp_path / "run", log__wandb_project="owt", log__wandb_run_name="gpt2")
    (run,) = wandb.runs
    assert (run.settings["project"], run.name) == ("owt", "gpt2")


def test_what_is_no_number_is_left_out(wandb, tmp_path):
    """As metrics.jsonl has null for it."""
    config = tiny.config(out_dir=str(tmp_path), log__wandb=True)
    with runlog.begin(config, None, tell=lambda notice: None) as log:
        log.append("eval", step=0, val_loss=math.nan, val_sem=math.inf, train_loss=1.5, best=None)
    (rows,) = wandb.rows.values()
    assert rows == {0: {"eval/train_loss": 1.5}}


def test_without_a_network_it_is_written_to_the_disk(wandb, tmp_path, monkeypatch):
    def unreachable(url):
        assert url == URL
        raise Offline("no such host")

    monkeypatch.setattr(wandb_log, "probe", unreachable)
    told = logged(tmp_path / "run", 5)
    (run,) = wandb.runs
    assert run.mode == "offline" and wandb.rows[run.id] == {5: {"train/loss": 0.2}}
    assert told == [
        f"wandb: offline, {URL} does not answer (no such host); later: wandb sync "
        f"{tmp_path}/run/wandb/offline-run-{run.id}"
    ]


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_wandbs_own_mode_is_respected(wandb, tmp_path, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(wandb_log, "probe", lambda url: pytest.fail("the network was asked"))
    (told,) = logged(tmp_path / "run")
    assert [run.mode for run in wandb.runs] == [mode]
    assert f"as WANDB_MODE={mode} or wandb's settings have it" in told


def test_a_server_that_refuses_is_told_and_done_without(wandb, tmp_path):
    """No key, a wrong one: then the id is to be let go of before it is used offline."""
    wandb.refused = ("online",)
    (told,) = logged(tmp_path / "run", 5)
    assert [run.mode for run in wandb.runs] == ["offline"] and wandb.torn_down == 1
    assert told.startswith("wandb: offline, no online run; later: wandb sync ")


@pytest.mark.parametrize("failing", ["start", "log", "finish"])
def test_a_failure_of_wandb_is_told_once(wandb, tmp_path, monkeypatch, failing):
    def fail(*arguments, **settings):
        raise BrokenPipeError("the service is gone")

    if failing == "start":
        wandb.refused = ("online", "offline")
    elif failing == "log":
        wandb.fails_at = 6
    else:
        monkeypatch.setattr(FakeRun, "finish", fail)
    told = logged(tmp_path / "run", 5, 6, 7, 8)
    reason = "no offline run" if failing == "start" else "the service is gone"
    warning = f"wandb: {reason}; nothing more goes there, metrics.jsonl has all"
    assert [text for text in told if "nothing more" in text] == [warning]
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [record["step"] for record in records] == [5, 6, 7, 8]


def test_no_failure_of_wandb_changes_a_run(wandb, tmp_path, capsys):
    assert runs.start(runs.settings(tmp_path), tmp_path / "plain") == 0
    wandb.fails_at = 6
    assert start(tmp_path, "run") == 0
    assert capsys.readouterr().out.count("warning: wandb: the service is gone; nothing more") == 1
    states = [runs.newest(tmp_path / name).state for name in ("plain", "run")]
    tiny.assert_same_bits(*states)
    assert runs.history(tmp_path / "run") == runs.history(tmp_path / "plain")


def test_a_run_that_fails_is_marked_as_failed(wandb, tmp_path):
    config = tiny.config(out_dir=str(tmp_path), log__wandb=True)
    with pytest.raises(ZeroDivisionError):
        with runlog.begin(config, None, tell=lambda notice: None):
            raise ZeroDivisionError
    assert [run.exit_code for run in wandb.runs] == [1]


def test_without_wandb_the_extra_is_named_before_anything_is_made(tmp_path, monkeypatch):
    line = r'log.wandb: True; needs wandb. pip install -e ".\[wandb\]"'
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=line):
        start(tmp_path, "run")
    # A folder that wandb has left where the command is run is not wandb.
    monkeypatch.delitem(sys.modules, "wandb")
    (tmp_path / "elsewhere" / "wandb").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere")])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    with pytest.raises(UserError, match=line):
        wandb_log.check()
    assert not (tmp_path / "run").exists()


def test_it_is_no_part_of_the_experiment():
    plain, watched = tiny.config(), tiny.config(log__wandb=True, log__wandb_project="owt")
    assert digest(plain) == digest(watched)


@pytest.mark.parametrize("project", ["", "a/b", "a#b", "100%", "a:b", "why?", "a\\b"])
def test_a_project_that_wandb_would_refuse_is_refused_at_once(tmp_path, project):
    path = tmp_path / "config.py"
    path.write_text("from gptjax.config.config import default_config as get_config\n")
    with pytest.raises(UserError, match="log.wandb_project: .* must not be empty, nor hold any of"):
        load_config(str(path), {"log.wandb_project": project})


@pytest.mark.slow
def test_the_real_wandb_writes_a_run_to_the_disk(tmp_path):
    """Where it is installed; stopped and gone on with, in two processes."""
    if importlib.util.find_spec("wandb") is None:
        pytest.skip('wants wandb: pip install -e ".[wandb]"')
    (tmp_path / "text.txt").write_text(tiny.TEXT)
    (tmp_path / "config.py").write_text(
        "from gptjax.config.config import default_config\n\n\ndef get_config():\n"
        "    config = default_config()\n"
        "    config.update(\n"
        "        model=dict(n_layer=1, n_head=2, n_embd=6, block_size=5),\n"
        "        optim=dict(warmup_iters=1),\n"
        "        eval=dict(max_tokens=50),\n"
        "        log=dict(interval=1, wandb=True),\n"
        "    )\n    return config\n"
    )
    flags = ("--config=config.py", "--config.data.source=text:text.txt", "--config.out_dir=[a] run")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_DATA_DIR": str(tmp_path / "data")}
    for n_updates in (3, 5):
        ended = forked.run(
            tmp_path,
            "train",
            *flags,
            f"--config.train.max_iters={n_updates}",
            cwd=tmp_path,
            environment=environment,
            prepare=faults.prepared,
        )
        assert ended.code == 0, ended.stderr
        assert ended.stderr == "" and "wandb: offline, as WANDB_MODE=offline" in ended.stdout
        assert "nothing more goes there" not in ended.stdout
    out_dir = tmp_path / "[a] run"
    run_id = (out_dir / "wandb_id").read_text().strip()
    kept = list(out_dir.glob(f"wandb/offline-run-*/run-{run_id}.wandb"))
    assert len(kept) == 2
    content = b"".join(path.read_bytes() for path in kept)
    for word in ("train/loss", "eval/val_loss", "end/reason", "config_digest", "[a] run", "gptjax"):
        assert word.encode() in content
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "data") == [
        "[a] run",
        "config.py",
        "stderr",
        "stdout",
        "text.txt",
    ]
