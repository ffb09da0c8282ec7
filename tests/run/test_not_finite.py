"""A run in which a number is no longer finite stops before any of it is saved.

The fault is put into the function that the training loop compiles, so that what runs is the real
compiled update with one number in it wrong. There is no NaN in a batch: tokens are integers, and an
id that is no symbol cannot get past the tokenizer. What a bad batch would do a bad row of the
embedding does.
"""

import contextlib
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from gptjax.run.checkpoint import Checkpoints
from gptjax.run.evaluator import Loss
from gptjax.run.program import CompiledTrainer
from gptjax.run.runlog import read_records
from gptjax.run.template import state_leaves
from gptjax.system.errors import RunError
from gptjax.update import step

LOG_INTERVAL = 2


def settings(folder, **knobs):
    """A run that is logged after 2, 4, …, saved after 4, 8, 12 and evaluated after 5, 10, 12."""
    intervals = dict(log__interval=LOG_INTERVAL, checkpoint__interval=4, checkpoint__keep=9)
    return runs.settings(folder, **{**intervals, **knobs})


@contextlib.contextmanager
def compiled_with(change):
    """While inside, `change(real train_step, its arguments)` is what a run compiles."""
    real = step.train_step

    def changed(graph, tx, key, state, x_ABT, y_ABT, *others, **named):
        def same_others(*inputs):
            return real(*inputs, *others, **named)

        return change(same_others, graph, tx, key, state, x_ABT, y_ABT)

    with mock.patch.object(step, "train_step", changed):
        yield


def where_now(tree, is_now, bad):
    """The tree with the first value of every float leaf replaced by `bad` where `is_now`."""

    def broken(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        first = (0,) * leaf.ndim
        return leaf.at[first].set(jnp.where(is_now, jnp.asarray(bad, leaf.dtype), leaf[first]))

    return jax.tree.map(broken, tree)


def bad_embedding(update, bad=math.nan):
    """From update `update` on one token's row of the embedding is bad."""

    def change(real, graph, tx, key, state, x_ABT, y_ABT):
        row = state.params["wte"]["embedding"][...]
        is_now = state.step == update
        state.params["wte"]["embedding"][...] = row.at[3].set(jnp.where(is_now, bad, row[3]))
        return real(graph, tx, key, state, x_ABT, y_ABT)

    return compiled_with(change)


def bad_gradient(update, bad=math.nan):
    """In update `update` the gradient is bad, but the loss is not."""

    @jax.custom_vjp
    def passed_on(losses_BT, factor):
        return losses_BT

    passed_on.defvjp(
        lambda losses_BT, factor: (losses_BT, factor),
        lambda factor, gradient_BT: (gradient_BT * factor, jnp.zeros_like(factor)),
    )
    losses = step.next_token_losses

    def change(real, graph, tx, key, state, x_ABT, y_ABT):
        factor = jnp.where(state.step == update, bad, 1.0)
        with mock.patch.object(
            step, "next_token_losses", lambda *inputs: passed_on(losses(*inputs), factor)
        ):
            return real(graph, tx, key, state, x_ABT, y_ABT)

    return compiled_with(change)


def bad_loss(update, bad=math.inf):
    """In update `update` the loss is bad, but the gradient is not."""
    losses = step.next_token_losses

    def change(real, graph, tx, key, state, x_ABT, y_ABT):
        more = jnp.where(state.step == update, bad, 0.0)
        with mock.patch.object(step, "next_token_losses", lambda *inputs: losses(*inputs) + more):
            return real(graph, tx, key, state, x_ABT, y_ABT)

    return compiled_with(change)


def bad_result(update, part, bad=math.nan):
    """Loss and gradient of update `update` are good, but `part` of what it makes is bad."""

    def change(real, graph, tx, key, state, x_ABT, y_ABT):
        now = state.step == update
        state, metrics = real(graph, tx, key, state, x_ABT, y_ABT)
        return state.replace(**{part: where_now(getattr(state, part), now, bad)}), metrics

    return compiled_with(change)


@contextlib.contextmanager
def bad_evaluation(at_step, split, bad=math.nan):
    """The loss measured at step `at_step` on a split is bad; the weights are good."""
    real = CompiledTrainer.losses

    def losses(self, *, step):
        found = real(self, step=step)
        return found | {split: Loss(bad, bad)} if step == at_step else found

    with mock.patch.object(CompiledTrainer, "losses", losses):
        yield


def check_stopped(out_dir, error, *, update, bad_step):
    """The run ended at the fault; nothing that is on disk knows of it."""
    words = str(error)
    assert type(error).exit_code == 1
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        found = {number: checkpoints.restore(number) for number in checkpoints.steps()}
        best = checkpoints.best()
    for number, checkpoint in found.items():
        for path, leaf in state_leaves(checkpoint.state).items():
            assert np.isfinite(np.asarray(leaf, np.float64)).all(), f"step {number}: {path}"
    assert found and all(number <= bad_step for number in found)
    # The best is that of the finite losses measured, and it is there.
    records = read_records(out_dir / "metrics.jsonl")
    vals = {r["step"]: r["val_loss"] for r in records if r["kind"] == "eval" and r["step"] in found}
    assert best == min(vals, key=vals.get) and math.isfinite(vals[best])
    assert found[max(found)].meta["best"] == {"step": best, "val_nats": vals[best]}
    # What is said is what can be looked up: where, how bad, and where it was last well.
    assert f"update {update}" in words
    assert "loss " in words and "gradient norm " in words and "learning rate 0.0" in words
    assert f"the last good checkpoint is step {max(found)}." in words
    assert records[-1] == {"kind": "end", "step": records[-1]["step"], "reason": words}
    return records[-1]["step"]


def stopped(folder, out_dir, fault, **knobs):
    with fault, pytest.raises(RunError) as caught:
        runs.start(settings(folder, **knobs), out_dir)
    return caught.value


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        pytest.param(bad_embedding, "update 7 is not finite: loss nan, ", id="embedding"),
        pytest.param(bad_gradient, "update 7 is not finite: loss 3.", id="gradient"),
        pytest.param(
            bad_loss,
            "update 7 is not finite: loss inf, gradient norm 0.",
            id="loss",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_p13_a_bad_number_in_an_update_stops_the_run(tmp_path, fault, said):
    error = stopped(tmp_path, tmp_path / "run", fault(7))
    assert str(error).startswith(said)
    ended = check_stopped(tmp_path / "run", error, update=7, bad_step=7)
    # The update is in the chunk that ends where the next line of the log is due.
    assert 7 - LOG_INTERVAL < ended <= 7


@pytest.mark.parametrize(
    ("update", "last", "said"),
    [
        # The next update finds it.
        (6, 7, "update 7 is not finite: loss nan, "),
        # The save that is due after it finds it.
        (7, 7, "params/blocks/0/attention/out/kernel is not finite at step 8, after update 7: "),
        # The evaluation that is due after it finds it.
        (9, 9, "the train loss at step 10 is nan, after update 9: loss 3."),
    ],
)
@pytest.mark.slow
def test_p13_a_bad_weight_after_a_good_update_stops_the_run(tmp_path, update, last, said):
    error = stopped(tmp_path, tmp_path / "run", bad_result(update, "params"))
    assert str(error).startswith(said)
    ended = check_stopped(tmp_path / "run", error, update=last, bad_step=update)
    assert update - LOG_INTERVAL < ended <= update + LOG_INTERVAL


def test_p13_bad_float32_masters_of_bfloat16_weights_are_not_saved(tmp_path):
    """The moments of the optimizer as well: nothing of the state is left out."""
    error = stopped(
        tmp_path,
        tmp_path / "run",
        bad_result(7, "opt_state", math.inf),
        model__param_dtype="bfloat16",
        model__dtype="bfloat16",
    )
    assert "opt_state/masters/" in str(error) and "is not finite at step 8" in str(error)
    check_stopped(tmp_path / "run", error, update=7, bad_step=7)


@pytest.mark.parametrize("split", ["val", pytest.param("train", marks=pytest.mark.slow)])
def test_p13_a_bad_evaluation_stops_the_run(tmp_path, split):
    error = stopped(tmp_path, tmp_path / "run", bad_evaluation(10, split))
    assert str(error).startswith(f"the {split} loss at step 10 is nan, after update 9: loss 3.")
    assert check_stopped(tmp_path / "run", error, update=9, bad_step=9) == 10


@pytest.mark.parametrize(
    ("update", "n_micro"),
    [
        pytest.param(update, n_micro, marks=[pytest.mark.slow] if update or n_micro > 1 else [])
        for update in (0, 1, 4, 5, 11)
        for n_micro in (1, 2)
    ],
)
def test_p13_at_any_update_of_any_chunk(tmp_path, update, n_micro):
    out_dir = tmp_path / "run"
    knobs = dict(train__grad_accum_steps=n_micro, log__interval=5, checkpoint__interval=5)
    error = stopped(tmp_path, out_dir, bad_gradient(update), **knobs)
    assert str(error).startswith(f"update {update} is not finite: ")
    check_stopped(out_dir, error, update=update, bad_step=update)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [bad_embedding, bad_gradient, bad_loss])
def test_p13_with_bfloat16_weights(tmp_path, fault):
    knobs = dict(model__param_dtype="bfloat16", model__dtype="bfloat16")
    error = stopped(tmp_path, tmp_path / "run", fault(7), **knobs)
    assert str(error).startswith("update 7 is not finite: ")
    check_stopped(tmp_path / "run", error, update=7, bad_step=7)


@pytest.mark.slow
def test_p13_a_run_whose_first_evaluation_is_bad_says_that_nothing_is_saved(tmp_path):
    error = stopped(tmp_path, tmp_path / "run", bad_evaluation(0, "val"))
    assert "the val loss at step 0 is nan" in str(error)
    assert "there is no checkpoint yet" in str(error)
    assert runs.steps(tmp_path / "run") == []
