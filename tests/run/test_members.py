"""Several runs in a dispatch are as separate runs, in directories that all commands read."""

import json

import jax
import numpy as np
import pytest
import runs
import tiny

from gptjax.config.config import flat, set_knob
from gptjax.evaluate import evaluate
from gptjax.run import group_program, member
from gptjax.run.inputs import read_inputs
from gptjax.run.members import train_members
from gptjax.run.results import result
from gptjax.run.runlog import read_records
from gptjax.run.trainings import Trainings
from gptjax.system.errors import UserError
from gptjax.system.signals import StopRequest

pytestmark = pytest.mark.slow

# jax.vmap makes products of batches, which sum in another order; over a dozen updates that grows.
TOLERANCE = dict(rtol=2e-5, atol=2e-6)


def changed(config, **knobs):
    config = config.copy_and_resolve_references()
    for name, value in knobs.items():
        set_knob(config, name.replace("__", "."), value)
    return config


def family(folder, **knobs):
    """Three runs that differ in seed and learning rates."""
    base = runs.settings(folder, model__dropout=0.2, **knobs)
    return [
        changed(base, out_dir=str(folder / "a")),
        changed(base, out_dir=str(folder / "b"), seed=5),
        changed(base, out_dir=str(folder / "c"), optim__learning_rate=4e-3, optim__min_lr=2e-4),
    ]


@pytest.fixture(scope="module")
def trainings(text):
    """With programs that are compiled once for all tests."""
    with runs.unmeasured():
        yield Trainings(read_inputs(family(text)[0]), jax.devices()[0], at_once=3)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A folder with the text of all."""
    folder = tmp_path_factory.mktemp("members")
    runs.settings(folder)
    return folder


def train(trainings, configs, stop=None, told=lambda n: None):
    inputs, device = trainings._inputs, trainings._device
    stop = stop or StopRequest()
    train_members(configs, inputs, device, trainings.program, told=told, stop=stop)


def with_dirs(configs, folder):
    return [changed(c, out_dir=str(folder / c.out_dir.rpartition("/")[2])) for c in configs]


@pytest.fixture(scope="module")
def together(text, trainings, tmp_path_factory):
    """Three runs of one dispatch, and what was told of them."""
    folder, told = tmp_path_factory.mktemp("together"), []
    configs = with_dirs(family(text), folder)
    train(trainings, configs, told=told.append)
    return folder, configs, told


def test_each_ends_where_train_py_ends(together, text, tmp_path):
    """The tolerance is TOLERANCE for weights and a hundred thousandth for losses."""
    folder, configs, told = together
    assert told[-1] == 36 and told == sorted(set(told))
    for name, config in zip("abc", configs, strict=True):
        alone = tmp_path / name
        assert runs.start(config, alone) == 0
        wanted, found = runs.newest(alone), runs.newest(folder / name)
        assert found.step == wanted.step == 12
        for a, b in zip(tiny.arrays(found.state), tiny.arrays(wanted.state), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, **TOLERANCE)
        for one, other in zip(
            [r for r in runs.history(folder / name) if r["step"]],
            [r for r in runs.history(alone) if r["step"]],
            strict=True,
        ):
            assert one.pop("kind") == other.pop("kind")
            assert one == pytest.approx(other, rel=1e-5)
        assert json.loads((folder / name / "config.json").read_text()) == {
            **json.loads((alone / "config.json").read_text()),
            "out_dir": str(folder / name),
        }


def test_runs_of_different_seeds_and_rates_differ(together):
    folder, _, _ = together
    vals = {name: runs.history(folder / name)[-1]["val_loss"] for name in "abc"}
    assert len(set(vals.values())) == 3


def test_other_commands_read_them(together, capsys):
    folder, configs, _ = together
    evaluate(str(folder / "b"), step="latest", context=0)
    assert "val" in capsys.readouterr().out
    # Started again by train.py it knows that it is finished.
    assert runs.start(configs[1], folder / "b") == 0
    assert "nothing to do" in capsys.readouterr().out
    kinds = [r["kind"] for r in read_records(folder / "b" / "metrics.jsonl")]
    assert kinds[0] == "run" and kinds[-2:] == ["ledger", "end"]


def test_results_are_read_and_only_of_the_same_run(together, trainings):
    folder, configs, _ = together
    values, sha256 = flat(configs[0]), trainings._inputs.corpus.sha256
    found = result(folder / "a", values, corpus_sha256=sha256)
    assert found.val_nats == runs.history(folder / "a")[-1]["val_loss"]
    assert (found.failed, found.n_tokens) == ("", 12 * 6 * 5) and found.n_params > 0
    assert np.isnan(found.update_seconds)  # Two others made theirs in the same dispatch.
    assert result(folder / "a", {**values, "seed": 2}, corpus_sha256=sha256) is None
    assert result(folder / "a", values, corpus_sha256="other") is None
    assert result(folder / "none", values, corpus_sha256=sha256) is None
    # How often it says something is no other run.
    assert result(folder / "a", {**values, "log.interval": 9}, corpus_sha256=sha256) == found


def test_stopped_runs_go_on_and_end_the_same(together, text, trainings, tmp_path, monkeypatch):
    folder, _, _ = together
    configs = with_dirs(family(text), tmp_path)
    monkeypatch.setattr(group_program, "_CALL_SECONDS", 0.0)  # An update a call.
    stop = StopRequest()

    def stopping(n):
        stop.number = 15 * (n >= 3 * 7)

    train(trainings, configs, stop=stop, told=stopping)
    assert [runs.newest(tmp_path / name).step for name in "abc"] == [7, 7, 7]
    assert read_records(tmp_path / "a" / "metrics.jsonl")[-1]["reason"] == "SIGTERM"
    train(trainings, configs)
    for name in "abc":
        assert runs.newest(tmp_path / name).step == 12
        tiny.assert_same_bits(runs.newest(tmp_path / name).state, runs.newest(folder / name).state)
        assert runs.history(tmp_path / name)[-1] == runs.history(folder / name)[-1]


def test_runs_that_were_killed_between_two_saves_go_on(
    together, text, trainings, tmp_path, monkeypatch
):
    """One has been saved at step 5, the others not yet: it goes on alone, they begin again."""
    folder, _, _ = together
    configs = with_dirs(family(text), tmp_path)
    saved = []
    save = member.Member.save

    def killed(self, state, val_nats=None):
        if saved:
            raise KeyboardInterrupt
        saved.append(self.run_dir.name)
        save(self, state, val_nats)

    monkeypatch.setattr(member.Member, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(trainings, configs)
    monkeypatch.setattr(member.Member, "save", save)
    assert [runs.steps(tmp_path / name) for name in saved] == [[5]]
    train(trainings, configs)
    for name in "abc":
        a, b = (runs.newest(each / name).state for each in (tmp_path, folder))
        for one, other in zip(tiny.arrays(a), tiny.arrays(b), strict=True):
            np.testing.assert_allclose(one, other, **TOLERANCE)


def test_one_that_is_not_finite_ends_and_the_others_go_on(text, trainings, tmp_path):
    configs = with_dirs(family(text), tmp_path)
    set_knob(configs[1], "optim.learning_rate", 1e30)
    train(trainings, configs)
    sha256 = trainings._inputs.corpus.sha256
    found = [
        result(tmp_path / name, flat(config), corpus_sha256=sha256)
        for name, config in zip("abc", configs, strict=True)
    ]
    assert "is not finite" in found[1].failed and np.isnan(found[1].val_nats)
    assert found[0].failed == found[2].failed == "" and np.isfinite(found[2].val_nats)


def test_a_directory_of_another_run_is_refused(together, text, trainings):
    folder, configs, _ = together
    other = [changed(configs[0], seed=99)]
    with pytest.raises(UserError, match="seed: 99; the run in .* has 1337"):
        train(trainings, other)


def test_an_updates_time_is_the_median_of_several(text, trainings, monkeypatch):
    program = trainings.program(family(text)[0], 3)
    taken, train_once = iter((9.0, 0.2, 5.0, 0.3)), program.train

    def timed(*arguments):
        found = train_once(*arguments)
        program.update_seconds = next(taken)
        return found

    monkeypatch.setattr(program, "train", timed)
    program.measure()
    assert program.update_seconds == 0.3 and program.evaluation_seconds > 0
