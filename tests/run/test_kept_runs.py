"""A run is made once for all that its number depends on, and again when any of that differs."""

import json

import jax
import pytest
import runs

from gptjax.config.config import flat
from gptjax.run.kept_runs import KeptRuns
from gptjax.run.short_run import ShortRun
from gptjax.system.errors import UserError


@pytest.fixture
def values(tmp_path):
    return flat(runs.settings(tmp_path, model__dropout=0.0, train__max_iters=3))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "kept"


def kept(folder, *, context=5, max_tokens=70):
    return KeptRuns(folder, jax.devices()[0], context=context, max_tokens=max_tokens)


def ignored(n_done):
    pass


def test_it_is_kept_and_found_by_another_process(values, folder):
    made = kept(folder)
    assert made.kept(values) is None and not folder.exists()
    val = made.make(values, ignored)
    assert made.kept(values) == kept(folder).kept(values) == val
    (path,) = folder.rglob("*.json")
    stored = json.loads(path.read_text())
    assert stored["val"] == val and stored["config"]["train.max_iters"] == 3
    assert stored["corpus"]["name"] == "text:text.txt" and stored["context"] == 5


def test_another_config_text_or_way_to_read_it_is_another_run(values, folder, tmp_path):
    kept(folder).make(values, ignored)
    watching = {**values, "log.interval": 99, "out_dir": "elsewhere"}
    assert kept(folder).kept(watching) is not None
    for name, value in (("seed", 1), ("train.max_iters", 4), ("optim.beta1", 0.8)):
        assert kept(folder).kept({**values, name: value}) is None
    assert kept(folder, context=4).kept(values) is None
    assert kept(folder, max_tokens=0).kept(values) is None
    with open(tmp_path / "text.txt", "a") as file:
        file.write("more")
    assert kept(folder).kept(values) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"val": null}', '{"val": NaN}'])
def test_a_damaged_result_is_none(values, folder, content):
    made = kept(folder)
    path = made._path(values)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert made.kept(values) is None


def test_seeds_and_lengths_share_a_program(values, folder, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        ShortRun, "_compile", lambda self, model, context: compiled.append(model.n_embd)
    )
    made = kept(folder)
    programs = {
        id(made.program({**values, name: value}))
        for name, value in (("seed", 1), ("train.max_iters", 9), ("optim.warmup_iters", 0))
    }
    assert len(programs) == len(compiled) == 1
    made.program({**values, "optim.learning_rate": 0.01})
    assert len(compiled) == 2


def test_flops_grow_with_the_batch(values, folder):
    made = kept(folder)
    assert made.flops({**values, "train.batch_size": 12}) == 2 * made.flops(values)


def test_a_text_too_short_for_a_context_is_refused(values, folder):
    with pytest.raises(UserError, match="model.block_size: 99999; needs 100000 tokens"):
        kept(folder).inputs({**values, "model.block_size": 99999})
