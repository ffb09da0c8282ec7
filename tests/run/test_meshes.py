"""The same run on any mesh: losses, gradients, evaluations and checkpoints."""

import itertools
import multiprocessing
import os

import compiling
import jax
import numpy as np
import pytest
import runs
import tiny

from gptjax.config.config import model_config
from gptjax.device.devices import choose_devices
from gptjax.device.mesh import Layout
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.evaluator import Evaluator
from gptjax.run.inputs import read_inputs
from gptjax.run.program import compile_trainer

# (data, fsdp), up to eight devices.
MESHES = [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (1, 4), (1, 8), (2, 2), (2, 4), (4, 2)]


def on_mesh(folder, mesh, **knobs):
    """The program of a run on a mesh; its batch of 16 splits over eight devices."""
    values = dict(model__n_embd=24, model__n_layer=2, model__dropout=0.0, train__batch_size=16)
    values |= dict(mesh__data=mesh[0], mesh__fsdp=mesh[1], **knobs)
    config = runs.settings(folder, **values)
    with runs.unmeasured():
        return compile_trainer(
            config, read_inputs(config), choose_devices(jax.devices(), config)
        ), config


def numbers(program, first=0, n_updates=4):
    """Losses and gradient norms of the next updates, then the losses of both splits."""
    metrics_K = program.train(program.batches(first, n_updates), n_updates)
    losses = program.losses(step=first + n_updates)
    return np.concatenate([*metrics_K.values(), [loss.mean for loss in losses.values()]])


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(2, 2)])
def test_a_mesh_makes_one_devices_updates(tmp_path, mesh):
    """Data and FSDP at once, two micro-batches; the slow test has every mesh."""
    accumulated = dict(train__grad_accum_steps=2)
    one, _ = on_mesh(tmp_path, (1, 1), **accumulated)
    other, _ = on_mesh(tmp_path, mesh, **accumulated)
    np.testing.assert_allclose(numbers(other), numbers(one), rtol=2e-5)
    kinds = {leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(other.state)}
    assert kinds == {True, False}


def test_devices_share_an_evaluation():
    """Each of four reads a quarter of the windows: as much work for one as one of one."""
    model = model_config(tiny.config(), tiny.VOCABULARY)

    def compiled(n_devices):
        layout = Layout(jax.devices()[:n_devices])
        params = layout.placed(jax.eval_shape(lambda: tiny.parts(model, tiny.config())[2].params))
        tokens = jax.ShapeDtypeStruct((9000,), np.uint8, sharding=layout.replicated)
        source = Evaluator(model, 7, layout).source(params, tokens, 1000)
        program = source.compile()
        return source.arguments[2].shape, program.executable.cost_analysis()["flops"]

    (one_CB, one_flops), (four_CB, four_flops) = compiled(1), compiled(4)
    assert four_CB[1] == 4 * one_CB[1] and four_CB[0] == -(-1000 // four_CB[1])
    # XLA counts the body of the loop over batches once: what a device does of one.
    assert four_flops == pytest.approx(one_flops, rel=0.05)


def in_a_process_of_eight(action, *arguments):
    process = multiprocessing.get_context("forkserver").Process(
        target=_with_eight, args=(action, *arguments)
    )
    process.start()
    process.join(900)
    process.kill()
    assert process.exitcode == 0


def _with_eight(action, *arguments):
    os.environ["XLA_FLAGS"] = compiling.flags_here()
    jax.config.update("jax_num_cpu_devices", 8)
    action(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        dict(train__grad_accum_steps=2, model__remat=True, model__scan_layers=True),
        dict(optim__name="muon", model__bias=True),
        dict(model__param_dtype="bfloat16"),
    ],
    ids=lambda knobs: "-".join(knobs) or "plain",
)
def test_every_mesh_makes_the_same_updates(tmp_path, knobs):
    in_a_process_of_eight(same_updates, tmp_path, knobs)


def same_updates(folder, knobs):
    tolerance = 2e-3 if "model__param_dtype" in knobs else 2e-5
    wanted = None
    for mesh in MESHES:
        found = numbers(on_mesh(folder, mesh, **knobs)[0])
        wanted = found if wanted is None else wanted
        np.testing.assert_allclose(found, wanted, rtol=tolerance, err_msg=str(mesh))


@pytest.mark.slow
def test_p15_a_checkpoint_of_any_mesh_goes_on_on_any_other(tmp_path):
    in_a_process_of_eight(every_pair, tmp_path)


def every_pair(folder):
    """Saved by each of four meshes, restored by each: the same bits, the same losses."""
    meshes, after = [(1, 1), (8, 1), (1, 8), (2, 2)], {}
    made = {mesh: on_mesh(folder, mesh) for mesh in meshes}
    programs = {mesh: program for mesh, (program, _) in made.items()}
    config = made[1, 1][1]
    said = tiny.description(config) | {"tokenizer": read_inputs(config).tokenizer.to_json()}
    for mesh, program in programs.items():
        numbers(program)
        (folder / f"{mesh}").mkdir()
        with Checkpoints(folder / f"{mesh}") as checkpoints:
            checkpoints.save(program.state, said, val_nats=1.0)
        after[mesh] = numbers(program, first=4)
    for source, target in itertools.product(meshes, meshes):
        with Checkpoints(folder / f"{source}", read_only=True) as checkpoints:
            found = checkpoints.restore(4)
        program = programs[target]
        program.state = program._layout.put(found.state)
        tiny.assert_same_bits(program.state, found.state)
        assert int(program.state.step) == 4
        went_on = numbers(program, first=4)
        np.testing.assert_allclose(went_on, after[source], rtol=2e-5, err_msg=f"{source}, {target}")
        if source == target:
            np.testing.assert_array_equal(went_on, after[source])
