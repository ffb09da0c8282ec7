"""Short runs give train.py's own numbers, for every seed and however they are cut into calls."""

import jax
import numpy as np
import pytest
import runs

from gptjax.config.config import set_knob
from gptjax.data import batches
from gptjax.run import short_run
from gptjax.run.inputs import read_inputs, read_val_ids
from gptjax.run.reader import read_checkpoint
from gptjax.run.short_run import OF_EACH_RUN, ShortRun, placed
from gptjax.run.whole_split import measure_loss
from gptjax.system.errors import RunError


def compiled(config, *, context=5, max_tokens=70):
    inputs, device = read_inputs(config), jax.devices()[0]
    val_W = batches.sweep_offsets(
        n_tokens=inputs.n_tokens["val"], block_size=context, max_tokens=max_tokens
    )
    return ShortRun(config, placed(inputs, device), device, val_W=val_W, context=context)


def ignored(n_done):
    pass


def changed(config, **knobs):
    config = config.copy_and_resolve_references()
    for name, value in knobs.items():
        set_knob(config, name.replace("__", "."), value)
    return config


@pytest.mark.parametrize(
    "knobs",
    [
        dict(),  # with dropout
        dict(model__dropout=0.0, train__grad_accum_steps=2, optim__name="muon")
        | dict(model__followers=2, model__follower_rows=40),
    ],
)
def test_it_ends_where_train_py_ends(tmp_path, knobs):
    config = runs.settings(tmp_path, **knobs)
    short = compiled(config)
    # One program for all of them; the last seed is beyond int32.
    others = [dict(seed=2**32 - 5), dict(train__max_iters=9, optim__warmup_iters=0)]
    others[1] |= dict(optim__schedule="linear", optim__decay_share=0.5)
    for number, other in enumerate([{}, *others]):
        one = changed(config, **other)
        assert set(other) <= {name.replace(".", "__") for name in OF_EACH_RUN}
        assert runs.start(one, tmp_path / str(number)) == 0
        (*_, last) = (r for r in runs.history(tmp_path / str(number)) if r["kind"] == "eval")
        told = []
        val = short.run(one, told=told.append)
        # Two programs may sum in another order.
        assert val.mean == pytest.approx(last["val_loss"], rel=1e-6)
        assert val.sem == pytest.approx(last["val_sem"], rel=1e-5)
        assert told[-1] == one.train.max_iters and told == sorted(set(told))


def test_how_it_is_cut_into_calls_changes_no_bit(tmp_path, monkeypatch):
    config = runs.settings(tmp_path)
    short = compiled(config)
    monkeypatch.setattr(short_run, "_CALL_SECONDS", 1e9)
    told = []
    at_once = short.run(config, told=told.append)
    assert told == [1, 12]
    monkeypatch.setattr(short_run, "_CALL_SECONDS", 0)
    assert short.run(config, told=told.append) == at_once
    assert told[2:] == list(range(1, 13))


def test_val_is_read_at_the_context_asked_for(tmp_path):
    config = runs.settings(tmp_path, eval__max_tokens=0)
    assert runs.start(config, tmp_path / "run") == 0
    found = read_checkpoint(str(tmp_path / "run"), "latest")
    ids = read_val_ids(tmp_path / "run", found.meta["val_sha256"])
    wanted = measure_loss(found, ids, context=3)
    short = compiled(config, context=3, max_tokens=0)
    val = short.run(config, told=ignored)
    assert val.mean == pytest.approx(wanted.loss.mean, rel=1e-6)
    assert val.sem == pytest.approx(wanted.loss.sem, rel=1e-5)
    assert val.mean != pytest.approx(measure_loss(found, ids, context=5).loss.mean, rel=1e-6)


def test_what_is_not_finite_stops_it(tmp_path, monkeypatch):
    config = runs.settings(tmp_path, optim__learning_rate=1e30, optim__grad_clip=0.0)
    with pytest.raises(RunError, match=r"update \d+ is not finite"):
        compiled(config).run(config, told=ignored)
    config = runs.settings(tmp_path, train__max_iters=2, optim__warmup_iters=0)
    short = compiled(config)
    monkeypatch.setattr(short._evaluator, "losses", lambda *a: np.array([1.0, np.nan]))
    with pytest.raises(RunError, match="val is not finite after update 2"):
        short.run(config, told=ignored)


def test_times_are_measured(tmp_path):
    short = compiled(runs.settings(tmp_path))
    assert short.compile_seconds > 0 and short.update_seconds == short.evaluation_seconds == 0
    short.measure()
    assert 0 < short.update_seconds < 10 and 0 < short.evaluation_seconds < 10
