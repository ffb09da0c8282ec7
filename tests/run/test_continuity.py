"""A run that is stopped goes on where it was, wherever that was; the same command, the same bits.

Each promise here has a quick form, for every commit, and a thorough one, marked slow.
"""

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from unittest import mock

import faults
import forked
import numpy as np
import pytest
import runs
import tiny
from forked import SCRIPTS
from other_values import OTHER_VALUES

from gptjax.config.config import default_config, flat, set_knob
from gptjax.config.knobs import KNOBS
from gptjax.device import devices
from gptjax.evaluate import evaluate
from gptjax.run.evaluator import Evaluator
from gptjax.run.program import CompiledTrainer
from gptjax.run.progress import Notice
from gptjax.run.resume import resume_plan, resumed_config
from gptjax.run.runlog import read_records
from gptjax.run.template import state_leaves
from gptjax.sample import sample
from gptjax.system.errors import UserError

# Random evaluation windows differ from step to step, so that the wrong step's would be seen; and
# so slow a run that with this seed chance makes step 5 the best one, before it is stopped.
KNOBS_HERE = dict(
    seed=1,
    optim__learning_rate=1e-5,
    optim__min_lr=1e-6,
    train__max_iters=23,
    train__grad_accum_steps=2,
    train__updates_per_dispatch=1,
    eval__mode="random",
    eval__iters=2,
    log__interval=1,
)


@contextlib.contextmanager
def watched():
    """Records, while inside, the windows of every update and evaluation, by step."""
    updates, evaluations = {}, {}
    train, losses, both = CompiledTrainer.train, Evaluator.losses, CompiledTrainer.losses

    def watched_train(self, call, n_updates):
        first = int(self.state.step)
        for slot in range(n_updates):
            assert first + slot not in updates, "an update was made twice"
            updates[first + slot] = np.asarray(call.offsets_KAB[slot]).tolist()
        return train(self, call, n_updates)

    def watched_both(self, *, step):
        def watched_losses(evaluator, params, tokens, offsets_W):
            for split, windows in zip(("train", "val"), np.split(offsets_W, 2), strict=True):
                evaluations[step, split] = windows.tolist()
            return losses(evaluator, params, tokens, offsets_W)

        with mock.patch.object(Evaluator, "losses", watched_losses):
            return both(self, step=step)

    with (
        mock.patch.object(CompiledTrainer, "train", watched_train),
        mock.patch.object(CompiledTrainer, "losses", watched_both),
    ):
        yield updates, evaluations


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@pytest.fixture(scope="module")
def unbroken(folder, tmp_path_factory):
    """A run that was never stopped, and the windows of its updates and evaluations."""
    out_dir = tmp_path_factory.mktemp("unbroken") / "run"
    with watched() as windows:
        assert runs.start(runs.settings(folder, **KNOBS_HERE), out_dir) == 0
    return out_dir, windows


@pytest.fixture(scope="module")
def stopped(folder, tmp_path_factory):
    """The same run, stopped after 7 of its updates, and the windows that it has seen."""
    out_dir = tmp_path_factory.mktemp("stopped") / "run"
    return out_dir, stop(folder, out_dir, 7)


def stop(folder, out_dir, n_updates):
    with watched() as windows, runs.stopped_after(n_updates):
        assert runs.start(runs.settings(folder, **KNOBS_HERE), out_dir) == 143
    assert runs.steps(out_dir)[-1] == n_updates
    return windows


def check_going_on(folder, unbroken, out_dir, before):
    """Resumes a stopped run and compares all that it does with the run that was not stopped."""
    whole, wanted = unbroken
    with watched() as after:
        assert runs.start(runs.settings(folder, **KNOBS_HERE), out_dir) == 0
    for first, second, all_of_them in zip(before, after, wanted, strict=True):
        assert first.keys().isdisjoint(second.keys())
        assert first | second == all_of_them
    # Loss, gradient norm, learning rate and best value of every step.
    assert runs.history(out_dir) == runs.history(whole)
    found, expected = runs.newest(out_dir), runs.newest(whole)
    tiny.assert_same_bits(found.state, expected.state)
    assert found.meta["best"] == expected.meta["best"]


def test_p7_what_is_compared_differs_from_step_to_step(unbroken):
    """Otherwise a resumed run that repeats itself would pass as well."""
    out_dir, (updates, evaluations) = unbroken
    assert sorted(updates) == list(range(23))
    assert len({str(offsets) for offsets in updates.values()}) == 23
    assert sorted({step for step, _ in evaluations}) == [0, 5, 10, 15, 20, 23]
    assert len({str(offsets) for offsets in evaluations.values()}) == 12
    records = [record for record in runs.history(out_dir) if record["kind"] == "train"]
    assert len({record["lr"] for record in records}) == len(records) == 23
    assert runs.newest(out_dir).meta["best"]["step"] == 5


def test_p7_resume_continues_batches_rates_evaluations_and_best_value(
    folder, unbroken, stopped, tmp_path
):
    shutil.copytree(stopped[0], tmp_path / "run")
    check_going_on(folder, unbroken, tmp_path / "run", stopped[1])


@pytest.mark.slow
@pytest.mark.parametrize("n_updates", range(1, 21))
def test_p7_wherever_the_run_is_stopped(folder, unbroken, tmp_path, n_updates):
    before = stop(folder, tmp_path / "run", n_updates)
    check_going_on(folder, unbroken, tmp_path / "run", before)


def test_p9_evaluating_and_sampling_between_the_halves_changes_nothing(
    folder, unbroken, stopped, tmp_path, capsys
):
    out_dir = tmp_path / "run"
    shutil.copytree(stopped[0], out_dir)
    before = {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    evaluate(str(out_dir), step="latest", context=0)
    settings = dict(step="best", prompt="the", prompt_file="", num_samples=2, seed=1)
    sample(str(out_dir), max_new_tokens=9, temperature=1.0, top_k=0, stride=1, **settings)
    assert "nats/char" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    check_going_on(folder, unbroken, out_dir, stopped[1])


CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update(
        model=dict(n_layer=2, n_head=3, n_embd=48, block_size=32, dropout=0.1),
        optim=dict(warmup_iters=5),
        train=dict(max_iters=100, batch_size=8),
        eval=dict(interval=50, max_tokens=500),
        checkpoint=dict(interval=50),
        log=dict(interval=10),
    )
    return config
"""


class Commands:
    """Runs of train.py in processes of their own, with a text and a config in `folder`."""

    def __init__(self, folder):
        self._folder = folder
        (folder / "config.py").write_text(CONFIG)
        (folder / "text.txt").write_text(tiny.TEXT)

    def arguments(self, out_dir, *flags):
        return [
            f"--config={self._folder / 'config.py'}",
            f"--config.out_dir={out_dir}",
            f"--config.data.source=text:{self._folder / 'text.txt'}",
            *[f"--config.{flag}" for flag in flags],
        ]

    def train(self, out_dir, *flags, prepare=None):
        """What a run, which must succeed, has printed."""
        environment = {**os.environ, "GPTJAX_CACHE_DIR": str(self._folder)}
        arguments = self.arguments(out_dir, *flags)
        result = forked.run(
            self._folder, "train", *arguments, environment=environment, prepare=prepare
        )
        assert result.code == 0, result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    return Commands(tmp_path_factory.mktemp("commands"))


def digest(out_dir):
    """sha256 of every array of the newest checkpoint."""
    hashed = hashlib.sha256()
    for path, leaf in state_leaves(runs.newest(out_dir).state).items():
        hashed.update(f"{path} {leaf.dtype} {leaf.shape} ".encode() + np.asarray(leaf).tobytes())
    return hashed.hexdigest()


def test_p8_two_processes_end_with_the_same_bits(commands, tmp_path):
    for name in ("first", "second"):
        commands.train(tmp_path / name, "train.max_iters=20", prepare=faults.prepared)
    assert digest(tmp_path / "first") == digest(tmp_path / "second")
    assert runs.history(tmp_path / "first") == runs.history(tmp_path / "second")


@pytest.mark.slow
def test_p8_three_processes_end_with_the_same_bits(commands, tmp_path):
    """Started anew each, so that the order of a set of names differs from one to the other."""
    for name in "123":
        environment = {**os.environ, "GPTJAX_CACHE_DIR": str(tmp_path), "PYTHONHASHSEED": name}
        arguments = commands.arguments(tmp_path / name, "train.max_iters=40")
        arguments = [sys.executable, SCRIPTS / "train.py", *arguments]
        subprocess.run(arguments, env=environment, check=True, capture_output=True)
    assert len({digest(tmp_path / name) for name in "123"}) == 1


def use_cores(n_cores):
    """Binds this process to so many of the cores that it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_cores])


@pytest.mark.slow
@pytest.mark.skipif(devices.n_cores() < 2, reason="needs two cores")
def test_p8_another_number_of_cores_gives_nearly_the_same_and_is_told(commands, tmp_path):
    losses = []
    for n_cores in (1, 2):
        out_dir = tmp_path / str(n_cores)
        commands.train(out_dir, prepare=functools.partial(use_cores, n_cores))
        assert read_records(out_dir / "metrics.jsonl")[0]["host_cores"] == n_cores
        records = [record for record in runs.history(out_dir) if record["step"] == 100]
        losses.append([records[0]["loss"], records[1]["val_loss"]])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    printed = commands.train(
        tmp_path / "2", "train.max_iters=101", prepare=functools.partial(use_cores, 1)
    )
    assert "host_cores 2 → 1: the last digits of the results may differ" in printed


def test_a_batch_that_is_cut_is_the_same_run(folder, tmp_path):
    """To within sums in another order; how often it was cut is recorded."""
    knobs = KNOBS_HERE | dict(
        train__batch_size=6,
        train__grad_accum_steps=1,
        model__dropout=0.0,
        optim__learning_rate=1e-2,
        optim__min_lr=1e-3,
    )
    losses = {}
    for n_tokens in (0, 14):  # windows of seven tokens: all six at once, or two
        out_dir = tmp_path / str(n_tokens)
        assert (
            runs.start(runs.settings(folder, train__tokens_at_once=n_tokens, **knobs), out_dir) == 0
        )
        records = read_records(out_dir / "metrics.jsonl")
        losses[n_tokens] = [record["loss"] for record in records if record["kind"] == "train"]
        assert records[0]["micro_batches"] == (3 if n_tokens else 1)
    assert losses[0] != losses[14] and losses[0][-1] < 0.95 * losses[0][0]
    np.testing.assert_allclose(losses[0], losses[14], rtol=1e-5)


def test_p8_a_changed_number_of_cores_is_told(folder, stopped, tmp_path, monkeypatch, capsys):
    shutil.copytree(stopped[0], tmp_path / "run")
    was = devices.n_cores()
    monkeypatch.setattr(devices, "n_cores", lambda: was + 3)
    assert runs.start(runs.settings(folder, **KNOBS_HERE), tmp_path / "run") == 0
    told = f"host_cores {was} → {was + 3}: the last digits of the results may differ"
    assert told in capsys.readouterr().out


def test_p12_a_new_run_never_mixes_into_a_used_directory(folder, stopped, capsys):
    """Another experiment, or any at all from scratch: refused, with the step and a way out."""
    out_dir = stopped[0]
    before = {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    with pytest.raises(UserError) as caught:
        runs.start(runs.settings(folder, **{**KNOBS_HERE, "seed": 7}), out_dir)
    assert str(caught.value) == (
        f"seed: 7; the run in {out_dir}, at step 7, has 1: that would be another experiment. "
        "Choose another --config.out_dir, or fork the run: "
        f"--config.init_from={out_dir} with another out_dir."
    )
    with pytest.raises(UserError) as caught:
        runs.start(runs.settings(folder, **KNOBS_HERE, init_from="scratch"), out_dir)
    assert str(caught.value) == (
        f"out_dir: {out_dir}; has step 7; init_from=scratch needs an unused directory. "
        "Continue the run (init_from=auto) or choose another --config.out_dir."
    )
    assert "gptjax" not in capsys.readouterr().out
    after = {path: path.read_bytes() for path in out_dir.rglob("*") if path.is_file()}
    del before[out_dir / ".lock"], after[out_dir / ".lock"]
    assert after == before


@pytest.mark.parametrize("left", ["config.json", "checkpoints/"])
def test_p12_from_scratch_means_where_no_run_has_begun(tmp_path, left):
    """A run that was killed before its first checkpoint has begun, too."""
    config = tiny.config(init_from="scratch", out_dir=str(tmp_path / "run"))
    assert resume_plan(config, []).checkpoint is None
    path = tmp_path / "run" / left
    if left.endswith("/"):
        path.mkdir(parents=True)
    else:
        path.parent.mkdir()
        path.write_text("{}")
    with pytest.raises(UserError, match="a run has begun in it. Choose another --config.out_dir"):
        resume_plan(config, [])
    assert resume_plan(tiny.config(out_dir=str(tmp_path / "run")), []).checkpoint is None


def test_p18_a_run_that_goes_on_says_how_many_lines_were_damaged(
    folder, unbroken, stopped, tmp_path, capsys
):
    out_dir = tmp_path / "run"
    shutil.copytree(stopped[0], out_dir)
    path = out_dir / "metrics.jsonl"
    first, second, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, b"\0\0\0\n", second, b'{"kind": "tr\n', *lines]))
    check_going_on(folder, unbroken, out_dir, stopped[1])
    assert "warning: 2 damaged lines of metrics.jsonl are left out" in capsys.readouterr().out


# What each knob means to a run that goes on: another value is another experiment and refused, or
# is applied and shown, or is where the run lies and how it was asked for. A new knob must be added.
WHEN_RESUMED = {
    "refused": """
        seed data.source data.tokenizer data.order data.val_fraction optim.master_weights
        train.batch_size train.grad_accum_steps
        model.n_layer model.n_head model.n_embd model.block_size model.dropout
        model.dropout_generator model.bias model.dtype model.param_dtype model.norm
        model.position model.mlp model.qk_norm
        model.tie_embeddings model.token_shift model.followers model.follower_rows
        model.zero_residual model.vocab_multiple
        optim.name
    """,
    "shown": """
        data.fallback
        optim.learning_rate optim.min_lr optim.schedule optim.warmup_iters optim.lr_decay_iters
        optim.decay_share optim.muon_learning_rate optim.muon_momentum
        optim.beta1 optim.beta2 optim.weight_decay optim.grad_clip
        train.max_iters train.updates_per_dispatch
        eval.interval eval.mode eval.iters eval.max_tokens
        checkpoint.interval checkpoint.keep log.interval log.tensorboard
        log.wandb log.wandb_project log.wandb_run_name
        model.attention model.attention_rows model.matmul_precision
        model.remat model.scan_layers
        train.tokens_at_once mesh.data mesh.fsdp mesh.gpu_memory mesh.cpu_devices
    """,
    "silent": "out_dir init_from",
}
KIND_OF = {name: kind for kind, names in WHEN_RESUMED.items() for name in names.split()}


def test_p14_every_knob_is_refused_shown_or_a_place():
    assert KIND_OF.keys() == KNOBS.keys()
    assert sum(len(names.split()) for names in WHEN_RESUMED.values()) == len(KIND_OF)


@pytest.mark.parametrize("given", ["on the command line", "in the file"])
@pytest.mark.parametrize("name", KNOBS)
def test_p14_a_changed_knob_is_refused_or_shown(name, given):
    stored, requested = flat(default_config()), default_config()
    was, wanted = stored[name], OTHER_VALUES[name]
    assert was != wanted
    set_knob(requested, name, wanted)
    overrides = [name] if given == "on the command line" else []
    if KIND_OF[name] == "refused":
        with pytest.raises(UserError, match="another experiment. Choose another") as caught:
            resumed_config(requested, overrides, stored, [], step=7)
        assert str(caught.value).startswith(f"{name}: {wanted}; the run in ")
        assert f", at step 7, has {was}: " in str(caught.value)
        return
    config, lines = resumed_config(requested, overrides, stored, [], step=7)
    assert flat(config) == {**stored, name: wanted}
    assert lines == ([Notice(f"{name}: {was} → {wanted}")] if KIND_OF[name] == "shown" else [])
