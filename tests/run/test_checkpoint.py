"""Checkpoints come back whole or not at all, and the best and the newest are kept."""

import math
import multiprocessing
import os
import random
import shutil
from unittest import mock

import forked
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from gptjax.device.mesh import Layout
from gptjax.run import reader
from gptjax.run.checkpoint import Checkpoints
from gptjax.system.errors import RunError, UserError
from gptjax.update import step as step_module


@pytest.fixture(scope="module")
def start():
    settings = tiny.config(model__n_layer=1)
    model = tiny.model_config(bias=False, n_layer=1)
    return settings, tiny.parts(model, settings)[2]


def at_step(state, step):
    return state.replace(step=np.asarray(step, np.int32))


def saved(folder, start, values, **options):
    """Saves one checkpoint per value of `values`: {step: val loss}."""
    settings, state = start
    with Checkpoints(folder, **options) as checkpoints:
        for step, val_nats in values.items():
            checkpoints.save(at_step(state, step), tiny.description(settings), val_nats=val_nats)


def test_comes_back_bit_for_bit(tmp_path, start):
    saved(tmp_path, start, {7: 2.5})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        found = checkpoints.restore(7)
    assert found.step == 7 and found.meta["val_nats"] == 2.5
    tiny.assert_same_bits(found.state, at_step(start[1], 7))
    assert jax.tree.structure(found.state) == jax.tree.structure(start[1])


def test_bfloat16_and_masters_come_back_bit_for_bit(tmp_path):
    settings = tiny.config(model__n_layer=1, model__param_dtype="bfloat16")
    model = tiny.model_config(n_layer=1, bias=False, param_dtype="bfloat16")
    state = tiny.parts(model, settings)[2]
    saved(tmp_path, (settings, state), {1: 2.0})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        tiny.assert_same_bits(checkpoints.restore(1).state, at_step(state, 1))


def test_what_is_saved_is_the_state_at_the_call(tmp_path, start):
    """The arrays are copied: overwriting them afterwards must not reach the disk."""
    settings, state = start
    host = jax.tree.map(np.array, at_step(state, 3))
    kept = jax.tree.map(np.array, host)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(host, tiny.description(settings), val_nats=None)
        for leaf in jax.tree.leaves(host):
            leaf[...] = 0
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        tiny.assert_same_bits(checkpoints.restore(3).state, kept)


def lowest(vals):
    """The step of the lowest finite value, the earliest of equals; None without any."""
    finite = {step: val for step, val in vals.items() if val is not None and math.isfinite(val)}
    return min(finite, key=lambda step: (finite[step], step)) if finite else None


def life(run_dir, chance, description):
    """Saves at random, closing and opening in between.

    Returns the val losses by step, the newest steps that must have been kept, and `keep`.
    """
    state, vals, step = step_module.TrainState(0, {"w": np.ones(3)}, {}), {}, 0
    choices = (None, math.nan, math.inf, -math.inf, 1.0, 1.0, 2.0)
    for start in range(chance.randint(1, 3)):
        if start > 0:
            disturb(run_dir / "checkpoints", chance, spared={step, lowest(vals)})
        keep, earlier = chance.randint(1, 3), set(vals)
        with Checkpoints(run_dir, keep=keep) as checkpoints:
            for _ in range(chance.randint(1, 4)):
                step += chance.randint(1, 9)
                vals[step] = chance.choice((*choices, chance.uniform(0.5, 3.0)))
                checkpoints.save(at_step(state, step), description, val_nats=vals[step])
                if chance.random() < 0.3:
                    checkpoints.wait()
    # Earlier ones may have been damaged or deleted, or pruned when fewer were to be kept.
    return vals, set(sorted(vals)[-keep:]) - earlier, keep


def disturb(folder, chance, *, spared):
    """What may happen to a run's checkpoints between two starts."""
    old = [path for path in folder.iterdir() if path.name.isdecimal()]
    old = [path for path in old if int(path.name) not in spared]
    kind = chance.choice(("damage", "delete", "trash", "half", "stray", "nothing"))
    if kind == "damage" and old:
        metadata = chance.choice(old) / "meta" / "metadata"
        os.truncate(metadata, chance.randrange(metadata.stat().st_size))
    elif kind == "delete" and old:
        shutil.rmtree(chance.choice(old))
    elif kind == "trash":
        (folder / "trash" / "3" / "state").mkdir(parents=True, exist_ok=True)
    elif kind == "half":
        (folder / "999.orbax-checkpoint-tmp" / "state").mkdir(parents=True, exist_ok=True)
    elif kind == "stray":
        (folder / "notes.txt").write_text("mine")
        (folder / "1.corrupt").mkdir(exist_ok=True)


@pytest.mark.parametrize("n_lives", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_p6_best_and_newest_are_kept(tmp_path, start, n_lives):
    """Whatever the losses are, whenever the run is stopped, and whatever befalls the others."""
    for seed in range(n_lives):
        run_dir, chance = tmp_path / str(seed), random.Random(seed)
        vals, kept, keep = life(run_dir, chance, tiny.description(start[0]))
        best, newest = lowest(vals), max(vals)
        with Checkpoints(run_dir, read_only=True) as checkpoints:
            steps = checkpoints.steps()
            assert checkpoints.best() == best, seed
            if best is None:
                assert reader.select_step(checkpoints, "best") == newest, seed
            assert reader.select_step(checkpoints, "latest") == steps[-1] == newest, seed
            assert checkpoints.meta(newest)["step"] == newest
        assert kept | {best or newest} <= set(steps) and len(steps) <= keep + 1, seed
        assert list((run_dir / "checkpoints" / "trash").glob("*")) == [], seed


def test_p6_sampling_takes_the_best(tmp_path):
    """Each checkpoint's model says one symbol, its own, whatever came before."""
    settings = tiny.config(model__n_layer=1, model__bias=True)
    state = tiny.parts(tiny.model_config(n_layer=1), settings)[2]
    with Checkpoints(tmp_path / "run") as checkpoints:
        for step, (symbol, val_nats) in enumerate([(3, 2.0), (5, 1.0), (7, math.nan), (9, 1.5)]):
            params = jax.tree.map(np.zeros_like, state.params)
            # The last layer gives this vector for every input, and it is one symbol's.
            params["ln_f"]["bias"][...] = params["wte"]["embedding"][symbol] = np.eye(15)[0]
            said = at_step(state.replace(params=params), step)
            checkpoints.save(said, tiny.description(settings), val_nats=val_nats)
    flags = ("--step=best", "--prompt=a", "--temperature=0", "--num_samples=1")
    flags += (f"--out_dir={tmp_path / 'run'}", "--max_new_tokens=4")
    sampled = forked.run(tmp_path, "sample", *flags)
    assert (sampled.code, sampled.stdout) == (0, "affff\n---------------\n")


def test_a_checkpoint_that_is_pruned_while_it_is_read_is_looked_for_anew(tmp_path, start):
    """The best and newest are listed, then a newer one takes their place; it is no damage."""
    settings, state = start
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(at_step(state, 3), tiny.description(settings), val_nats=2.0)
    restore, n_calls = Checkpoints.restore, []

    def pruned(self, step):
        """The run goes on to the next step whenever this one is about to be read."""
        n_calls.append(step)
        if len(n_calls) <= pruned.times:
            with Checkpoints(tmp_path, keep=1) as checkpoints:
                checkpoints.save(
                    at_step(state, step + 1), tiny.description(settings), val_nats=1.0 / step
                )
                checkpoints.wait()
        return restore(self, step)

    with mock.patch.object(Checkpoints, "restore", pruned):
        pruned.times = 2
        assert reader.read_checkpoint(str(tmp_path), "latest").step == 5
        assert n_calls == [3, 4, 5]
        pruned.times = 1000
        with pytest.raises(RunError, match="was replaced while it was read; try again"):
            reader.read_checkpoint(str(tmp_path), "latest")


def test_select_step_refuses_what_is_not_there(tmp_path, start):
    saved(tmp_path, start, {4: 1.0, 5: 2.0})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert reader.select_step(checkpoints, "4") == 4
        for wanted in ("77", "-1", "4.0", "", "²"):
            with pytest.raises(UserError, match="must be best, latest or one of 4, 5"):
                reader.select_step(checkpoints, wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, start, bad):
    settings, state = start
    broken = jax.tree.map(np.array, at_step(state, 1))
    broken.params["wte"]["embedding"][...] = broken.params["wte"]["embedding"][...] * bad
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RunError, match="params/wte/embedding is not finite"):
            checkpoints.save(broken, tiny.description(settings), val_nats=1.0)
        assert checkpoints.steps() == []


def test_p12_a_save_that_would_be_skipped_is_an_error(tmp_path, start):
    saved(tmp_path, start, {5: 1.0})
    with pytest.raises(RunError, match="already has step 5"):
        saved(tmp_path, start, {3: 1.0})


@pytest.mark.parametrize("lost", ["manifest.ocdbt", "d", "../meta"])
def test_p6_a_save_that_cannot_be_read_back_costs_no_other(tmp_path, start, lost):
    """The checkpoint before it stays, and the run is told."""
    settings, state = start
    wait = ocp.CheckpointManager.wait_until_finished

    def wait_and_lose(manager):
        wait(manager)
        path = tmp_path / "checkpoints" / "7" / "state" / lost
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(at_step(state, 3), tiny.description(settings), val_nats=2.0)
        checkpoints.wait()
        checkpoints.save(at_step(state, 7), tiny.description(settings), val_nats=1.0)
        with (
            mock.patch.object(ocp.CheckpointManager, "wait_until_finished", wait_and_lose),
            pytest.raises(RunError, match="step 7 was saved but cannot be read back"),
        ):
            checkpoints.wait()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert 3 in checkpoints.steps()
        jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(3).state, at_step(state, 3))


def test_another_models_arrays_are_refused(tmp_path, start):
    settings, state = start
    other = tiny.config(model__n_layer=2)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state, 1), tiny.description(other), val_nats=1.0)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(RunError, match="other arrays than its config"):
            checkpoints.restore(1)


def test_reading_creates_nothing(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        reader.open_for_reading(str(tmp_path / "missing"))
    assert list(tmp_path.iterdir()) == []


def on_devices(n, action, *paths):
    """Calls `action(*paths)` in a process in which JAX has n devices."""
    process = multiprocessing.get_context("forkserver").Process(
        target=_on_devices, args=(n, action, *paths)
    )
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == 0


def _on_devices(n, action, *paths):
    jax.config.update("jax_num_cpu_devices", n)
    assert len(jax.devices()) == n
    action(Layout(jax.devices()).replicated, *paths)


def rewrite(everywhere, source, target):
    with Checkpoints(source, read_only=True) as checkpoints:
        found = checkpoints.restore(1)
    with Checkpoints(target) as checkpoints:
        checkpoints.save(jax.device_put(found.state, everywhere), found.meta, val_nats=1.0)


def read(everywhere, original, *run_dirs):
    """Fails unless each run has the original's arrays, after they have been on all devices."""
    with Checkpoints(original, read_only=True) as checkpoints:
        wanted = checkpoints.restore(1).state
    for run_dir in run_dirs:
        with Checkpoints(run_dir, read_only=True) as checkpoints:
            state = jax.device_put(checkpoints.restore(1).state, everywhere)
        assert all(leaf.sharding == everywhere for leaf in jax.tree.leaves(state))
        tiny.assert_same_bits(state, wanted)


def test_p15_opens_on_any_number_of_devices(tmp_path, start):
    """Written with 1, 2 and 4 devices, read with 1, 2 and 4: the same bits nine times."""
    saved(tmp_path / "original", start, {1: 2.0})
    copies = [tmp_path / str(n) for n in (1, 2, 4)]
    for n, copy in zip((1, 2, 4), copies, strict=True):
        on_devices(n, rewrite, tmp_path / "original", copy)
    for n in (1, 2, 4):
        on_devices(n, read, tmp_path / "original", *copies)
