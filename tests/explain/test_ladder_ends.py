"""An experiment's settings, wherever they stand; what is not known is not filled in."""

import json

import nanogpt_logs
import pytest
import runs

from gptjax.config.config import default_config, flat
from gptjax.explain import ladder_ends
from gptjax.explain.ladder_ends import read_end
from gptjax.explain.series import Fact
from gptjax.system.errors import UserError

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update({changes})
    return config
"""


@pytest.fixture
def config_file(tmp_path):
    def write(changes, name="mine.py"):
        path = tmp_path / name
        path.write_text(CONFIG.format(changes=changes))
        return str(path)

    return write


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    config = runs.settings(folder, seed=5, mesh__data=1, train__max_iters=3, optim__warmup_iters=1)
    assert runs.start(config, folder / "run") == 0
    return folder / "run"


def nanogpt_series(run_dir, **changes):
    """What a log whose config was printed tells: no gptjax of its own."""
    known = {name: flat(default_config())[name] for name in ladder_ends._NEEDED}
    known |= {name.replace("__", "."): value for name, value in changes.items()}
    series = ladder_ends.read_series(str(run_dir))
    facts = {name: Fact(value, "log") for name, value in known.items() if value is not None}
    return type(series)(**{**vars(series), "program": "nanoGPT", "facts": facts})


def test_a_config_file(config_file):
    end = read_end("--from", config_file("model=dict(n_layer=2), eval=dict(max_tokens=70)"))
    assert (end.label, end.values["model.n_layer"], end.max_tokens) == ("mine", 2, 70)
    assert end.values["data.fallback"] == "" and end.corpus_sha256 == ""


def test_a_run_directory(run_dir):
    end = read_end("--from", str(run_dir))
    stored = json.loads((run_dir / "config.json").read_text())
    assert end.values["seed"] == 5 and end.values["model.n_embd"] == stored["model.n_embd"] == 6
    assert end.label == "run" and len(end.corpus_sha256) == 64 and end.max_tokens == 70
    assert read_end("--from", f"mine={run_dir}").label == "mine"


def test_a_run_that_fell_back_is_of_the_text_it_had(run_dir, monkeypatch):
    series = ladder_ends.read_series(str(run_dir))
    facts = {**series.facts, "data.source": Fact("tiny_shakespeare", "config")}
    facts["corpus"] = Fact("synthetic", "record")
    fallen = type(series)(**{**vars(series), "facts": facts})
    monkeypatch.setattr(ladder_ends, "read_series", lambda argument: fallen)
    assert read_end("--to", "run").values["data.source"] == "synthetic"


def test_a_log_that_tells_its_settings(run_dir, monkeypatch):
    series = nanogpt_series(run_dir, model__dropout=0, train__batch_size=7)
    monkeypatch.setattr(ladder_ends, "read_series", lambda argument: series)
    end = read_end("--to", "a.log")
    assert end.values["model.dropout"] == 0.0 and end.values["train.batch_size"] == 7


def test_a_log_that_does_not_is_one_line_that_says_which(run_dir, monkeypatch):
    series = nanogpt_series(run_dir, model__bias=None, train__batch_size=None)
    monkeypatch.setattr(ladder_ends, "read_series", lambda argument: series)
    with pytest.raises(UserError) as e:
        read_end("--to", "a.log")
    assert str(e.value) == (
        "--to: a.log; does not tell model.bias, train.batch_size. Write its settings as a config "
        "file (configs/shakespeare_char.py is one), and give that: --to FILE.py."
    )


def test_what_moves_a_loss_in_nanogpt_is_needed():
    assert {
        *("model.n_layer", "model.n_head", "model.n_embd", "model.block_size", "model.dropout"),
        *("model.bias", "model.dtype", "optim.learning_rate", "optim.min_lr", "optim.beta1"),
        *("optim.beta2", "optim.warmup_iters", "optim.lr_decay_iters", "optim.weight_decay"),
        *("optim.grad_clip", "train.max_iters", "train.batch_size", "train.grad_accum_steps"),
        "data.source",
    } == set(ladder_ends._NEEDED)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("init_from='out/a'", "--from: mine; has init_from out/a; a ladder starts from scratch"),
        ("train=dict(max_iters=0)", "--from: mine; has train.max_iters 0"),
        ("model=dict(n_embd=130)", "model.n_embd: 130; is not divisible by model.n_head 4"),
    ],
)
def test_a_config_that_cannot_be_a_rung(config_file, changes, message):
    with pytest.raises(UserError) as e:
        read_end("--from", config_file(changes))
    assert message in str(e.value)


def test_what_is_not_there(tmp_path, run_dir, monkeypatch):
    with pytest.raises(UserError, match="--from: .*none.py; no such file"):
        read_end("--from", str(tmp_path / "none.py"))
    with pytest.raises(UserError, match="run: .*none; does not exist"):
        read_end("--from", str(tmp_path / "none"))
    series = ladder_ends.read_series(str(run_dir))
    forked = {**series.facts, "parent": Fact({"init_from": "out/b", "step": 3}, "record")}
    with_parent = type(series)(**{**vars(series), "facts": forked})
    monkeypatch.setattr(ladder_ends, "read_series", lambda argument: with_parent)
    with pytest.raises(UserError, match="was forked from out/b; a ladder starts from scratch"):
        read_end("--from", "run")


def test_a_log_without_a_decay_need_not_tell_its_horizon(run_dir, monkeypatch):
    series = nanogpt_series(run_dir, optim__schedule="constant", optim__lr_decay_iters=None)
    monkeypatch.setattr(ladder_ends, "read_series", lambda argument: series)
    assert read_end("--to", "a.log").values["optim.schedule"] == "constant"


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("nanogpt_laptop_cpu.log", "shakespeare_char"),
        ("nanogpt_default_mps.log", "shakespeare_char_gpu"),
    ],
)
def test_real_logs_are_their_recipes(name, config):
    """Save for the precision, which nanoGPT has as the device has it: none here had bfloat16."""
    log = read_end("--from", str(nanogpt_logs.real_log(name)))
    recipe = read_end("--to", str(nanogpt_logs.ROOT / "configs" / f"{config}.py"))
    assert log.values == {**recipe.values, "model.dtype": "float32"}
