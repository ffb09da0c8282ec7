"""The same updates on two devices or precisions: what is compared, and that it is the run's own."""

import json
import os

import forked
import jax
import numpy as np
import pytest
import runs

from gptjax.explain.variant import Variant
from gptjax.replay import replay
from gptjax.run.runlog import read_records
from gptjax.system.errors import RunError, UserError

N_UPDATES = 7


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory):
    """A run of twelve updates with dropout and two micro-batches, and checkpoints at 0, 5, 10, 12.

    Attention is cut as replay cuts it, so that not even the last digits differ.
    """
    folder = tmp_path_factory.mktemp("runs")
    config = runs.settings(
        folder,
        model__attention_rows=5,
        train__grad_accum_steps=2,
        eval__max_tokens=0,
        checkpoint__keep=9,
        log__interval=1,
    )
    assert runs.start(config, folder / "run") == 0
    return folder / "run"


@pytest.fixture
def replayed(out_dir, tmp_path, capsys):
    """Replays updates 6 to 12; the JSON's replicas and what was printed."""

    def run(devices, updates=N_UPDATES):
        path = tmp_path / "replay.json"
        replay(str(out_dir), devices=devices, step="5", updates=updates, json=str(path))
        return json.loads(path.read_text())["replicas"], capsys.readouterr().out

    return run


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_reference_is_the_run_itself(out_dir, replayed):
    before = files(out_dir)
    (reference, _), _ = replayed("cpu,cpu")
    assert files(out_dir) == before
    records = [r for r in read_records(out_dir / "metrics.jsonl") if r.get("step", 0) > 5]
    logged = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in logged] == [6, 7, 8, 9, 10, 11, 12]
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(reference[name], [record[name] for record in logged], rtol=1e-6)
    last = [record for record in records if record["kind"] == "eval"][-1]
    assert reference["val"]["mean"] == pytest.approx(last["val_loss"], rel=1e-6)
    assert reference["val"]["sem"] == pytest.approx(last["val_sem"], rel=1e-6)


def test_the_same_device_and_precision_gives_the_same_bits(replayed):
    (reference, other), printed = replayed("cpu,cpu:float32")
    assert other["loss"] == reference["loss"] and other["grad_norm"] == reference["grad_norm"]
    assert other["differences"]["params"] == [0.0] * N_UPDATES
    assert other["val_difference"] == {"mean": 0.0, "sem": 0.0}
    assert "cpu:float32 against cpu: not one digit of a loss, gradient norm" in printed


def test_each_stays_on_its_own_device(replayed, monkeypatch):
    """The second on another device than JAX would choose."""
    places = dict(zip(("cpu", "cpu:float32"), jax.devices(), strict=False))
    monkeypatch.setattr("gptjax.explain.variant.device_of", places.__getitem__)
    losses, seen = Variant.losses, {}

    def watched(self, *arguments):
        arrays = [*jax.tree.leaves(self.state), self._train_ids]
        seen[self.spec] = {device for array in arrays for device in array.devices()}
        return losses(self, *arguments)

    monkeypatch.setattr(Variant, "losses", watched)
    (_, other), _ = replayed("cpu,cpu:float32", updates=2)
    assert len(set(places.values())) == 2
    assert seen == {spec: {device} for spec, device in places.items()}
    assert other["differences"]["params"] == [0.0, 0.0]


def test_bfloat16_drifts(replayed):
    (reference, other), printed = replayed("cpu,cpu:bfloat16")
    losses, others = np.array(reference["loss"]), np.array(other["loss"])
    difference = np.abs(others - losses)
    assert 0 < difference[0] < 1e-2 * losses[0]
    np.testing.assert_allclose(other["differences"]["loss"], difference)
    # Weights that differ differ more from update to update: learning rates are all above zero.
    params = other["differences"]["params"]
    assert 0 < params[0] < params[-1] < 1e-2
    assert (
        f"cpu:bfloat16 against cpu: the losses of update 1 differ by {difference[0]:.1e}, of update"
        f" 7 by {difference[-1]:.1e}; parameters by {params[-1]:.1e} of their norm"
    ) in printed
    rows = [line.split()[1] for line in printed.splitlines() if line.startswith("│")]
    assert rows == ["1", "2", "5", "7"]
    assert printed.count("within one standard error of val") == 1
    assert not other["problem"]


def test_parameters_differ_by_a_part_of_the_references_norm(replayed, monkeypatch):
    """Weights a thousandth larger, once the update is made."""
    update = Variant.update

    def scaled(self, offsets_B):
        metrics = update(self, offsets_B)
        if self.precision_name == "tf32":
            larger = jax.tree.map(lambda leaf: leaf * 1.001, self.state.params)
            self.state = self.state.replace(params=larger)
        return metrics

    monkeypatch.setattr(Variant, "update", scaled)
    (_, other), _ = replayed("cpu,cpu:tf32", updates=1)
    assert other["differences"]["loss"] == [0.0]
    assert other["differences"]["params"] == pytest.approx([1e-3], rel=1e-4)


def test_a_difference_that_is_no_rounding_is_an_error(out_dir, tmp_path, monkeypatch, capsys):
    """All but the reference read the text one character further on.

    So young a model's loss is a thousandth off by that: tf32 may be, float32 may not.
    """
    update = Variant.update
    monkeypatch.setattr(
        Variant, "update", lambda self, offsets_B: update(self, offsets_B + (self.spec != "cpu"))
    )
    path, devices = tmp_path / "replay.json", "cpu,cpu:tf32,cpu:float32"
    with pytest.raises(RunError, match="update 1 differs by .*, more than rounding explains") as e:
        replay(str(out_dir), devices=devices, step="0", updates=3, json=str(path))
    assert str(e.value).startswith("cpu:float32 against cpu: ") and e.value.exit_code == 1
    assert "cpu:tf32" not in str(e.value)
    printed = capsys.readouterr().out
    assert str(e.value) in printed and "val after the last update" in printed
    found = json.loads(path.read_text())["replicas"]
    assert [each["problem"] for each in found] == ["", "", str(e.value)]
    assert 1e-4 < found[1]["differences"]["loss"][0] / found[0]["loss"][0] < 1e-2


def test_a_number_that_is_not_finite_stops_it(out_dir, monkeypatch):
    update = Variant.update

    def infinite(self, offsets_B):
        metrics = update(self, offsets_B)
        if self.spec == "cpu:tf32" and int(self.state.step) == 7:
            metrics["loss"] = metrics["loss"] * np.inf
        return metrics

    monkeypatch.setattr(Variant, "update", infinite)
    with pytest.raises(RunError, match=r"update 2 is not finite: losses \[.*, inf\]"):
        replay(str(out_dir), devices="cpu,cpu:tf32", step="5", updates=3, json=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(devices="cpu"), "--devices: cpu; must list two or more"),
        (dict(devices="cpu,"), "--devices: ''; must be cpu or cuda"),
        (dict(devices="cpu,tpu"), "--devices: 'tpu'; must be cpu or cuda"),
        (dict(devices="cpu,cpu:"), "--devices: 'cpu:'; must be cpu or cuda"),
        (dict(devices="cpu,cpu:fp16"), "with :float32 or :tf32 or :bfloat16"),
        (dict(devices="cpu,cuda"), "--devices: cuda; JAX_PLATFORMS=cpu keeps it out of reach"),
        (dict(updates=0), "--updates: 0; must be ≥ 1"),
        (dict(step="6"), "--step: 6; must be best, latest or one of 0, 5, 10, 12"),
        (dict(json="nowhere/a.json"), "--json: nowhere/a.json; its folder does not exist"),
        (dict(out_dir="nothing"), "--out_dir: nothing; holds no run"),
    ],
)
def test_bad_input_is_one_clear_error(changes, message, out_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    before = files(out_dir)
    settings = dict(out_dir=str(out_dir), devices="cpu,cpu", step="5", updates=1, json="a.json")
    with pytest.raises(UserError) as e:
        replay(**{**settings, **changes})
    assert message in str(e.value) and e.value.exit_code == 2
    assert files(out_dir) == before and not os.listdir(tmp_path)


def test_a_device_that_is_not_there_is_an_error(out_dir, monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(UserError, match="--devices: cuda; no cuda device here; have: cpu"):
        replay(str(out_dir), devices="cpu,cuda", step="5", updates=1, json=None)


def test_another_text_is_refused(tmp_path):
    config = runs.settings(tmp_path, train__max_iters=1, optim__warmup_iters=0)
    assert runs.start(config, tmp_path / "run") == 0
    with open(tmp_path / "text.txt", "a") as file:
        file.write("more")
    with pytest.raises(UserError, match="differs from the checkpoint's"):
        replay(str(tmp_path / "run"), devices="cpu,cpu", step="latest", updates=1, json=None)


def test_the_command_says_what_it_does(out_dir, tmp_path):
    flags = (f"--out_dir={out_dir}", "--devices=cpu,cpu")
    ended = forked.run(tmp_path, "replay", *flags, "--updates=1")
    assert ended.code == 0, ended.stderr
    first, *others = ended.stdout.splitlines()
    assert first == f"{out_dir} step 12 on text:text.txt; updates from there: 1"
    assert "the run's own end is step 12; the last update here has rate 0.0001" in others
    ended = forked.run(tmp_path, "replay", *flags, "--updates=0")
    assert ended.code == 2
    assert ended.stderr == "gptjax: error: --updates: 0; must be ≥ 1.\n"
