"""How arrays lie over devices, and what that makes of an update."""

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec, SingleDeviceSharding

from gptjax.config.config import model_config
from gptjax.device import kernels
from gptjax.device.devices import choose_devices
from gptjax.device.mesh import Layout
from gptjax.run.functions import start_source, update_source
from gptjax.system.errors import UserError

MESHES = [(1, 1), (2, 1), (4, 1), (2, 2), (1, 2), (1, 4)]  # data, fsdp


def layout(data, fsdp):
    return Layout(jax.devices()[: data * fsdp], fsdp)


def test_one_device_has_no_mesh():
    """Its programs are those that know nothing of meshes."""
    one = layout(1, 1)
    here = SingleDeviceSharding(jax.devices()[0])
    assert one.device == jax.devices()[0] and one.replicated == here
    assert one.split_last_axis(3) == here and one.of_state((6, 5)) == here
    shapes = jax.eval_shape(lambda: {"a": np.zeros((2, 3)), "b": np.int32(1)})
    assert {leaf.sharding for leaf in jax.tree.leaves(one.placed(shapes))} == {here}


@pytest.mark.parametrize(
    ("fsdp", "shape", "split"),
    [
        (2, (6, 10), (None, "fsdp")),  # the longest
        (2, (10, 6), ("fsdp",)),
        (2, (9, 6), (None, "fsdp")),  # the only one that divides
        (4, (8, 8), ("fsdp",)),
        (4, (12,), ("fsdp",)),
        (4, (6, 10), ()),  # none: the same on each
        (2, (), ()),
        (1, (8, 8), ()),
    ],
)
def test_the_longest_axis_that_divides_is_split(fsdp, shape, split):
    found = layout(4 // fsdp, fsdp).of_state(shape)
    assert found.spec == PartitionSpec(*split)


def test_a_weight_and_its_moments_lie_alike():
    config = tiny.config(model__n_embd=12, model__n_head=2, optim__name="adamw")
    state = layout(1, 4).placed(start_source(config, model_config(config, 11)).returns)
    by_shape = {}
    for leaf in jax.tree.leaves(state):
        by_shape.setdefault(leaf.shape, set()).add(leaf.sharding)
    assert all(len(shardings) == 1 for shardings in by_shape.values())
    assert by_shape[(12, 48)] == {layout(1, 4).of_state((12, 48))}
    assert not by_shape[(12, 48)].pop().is_fully_replicated


@pytest.mark.parametrize(("data", "fsdp"), MESHES)
def test_a_batch_is_split_over_both_axes(data, fsdp):
    over = layout(data, fsdp)
    placed = jax.device_put(np.arange(3 * 8).reshape(3, 8), over.split_last_axis(2))
    sizes = {shard.data.shape for shard in placed.addressable_shards}
    assert sizes == {(3, 8 // (data * fsdp))}
    seen = {shard.data[0, 0].item() for shard in placed.addressable_shards}
    assert len(seen) == data * fsdp  # no device has another's part


@pytest.mark.parametrize(("data", "fsdp"), MESHES)
def test_what_is_put_is_what_was_given(data, fsdp):
    given = {"a": np.arange(24.0, dtype=np.float32).reshape(4, 6), "b": np.float32(3)}
    put = layout(data, fsdp).put(given)
    tiny.assert_same_bits(put, given)
    sizes = {shard.data.shape for shard in put["a"].addressable_shards}
    assert sizes == {(4, 6) if fsdp == 1 else (4, 3) if fsdp == 2 else (1, 6)}


def argument_bytes(data, fsdp):
    """What the compiled update holds on each device when it starts."""
    config = tiny.config(model__n_embd=48, model__n_layer=1, train__batch_size=8)
    model = kernels.with_attention(model_config(config, 16), "xla", jax.devices()[0])
    over = layout(data, fsdp)
    tokens = jax.ShapeDtypeStruct((100,), np.uint8, sharding=over.replicated)
    inputs = (tokens, start_source(config, model).returns, (3, 1, 8))
    source = update_source(config, model, over, inputs)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(source.arguments[1]))
    found = source.compile().executable.memory_analysis()
    return found.argument_size_in_bytes, found.alias_size_in_bytes, state


@pytest.mark.slow
def test_fsdp_divides_the_memory_of_the_state():
    """By XLA's own account of the compiled update, state and all that is donated."""
    whole, donated, state = argument_bytes(4, 1)
    split, donated_split, _ = argument_bytes(1, 4)
    assert donated == pytest.approx(state, rel=0.01) and whole >= state
    assert whole - split == pytest.approx(0.75 * state, rel=0.05)
    assert donated_split == pytest.approx(state / 4, rel=0.05)


@pytest.mark.parametrize(
    ("n_found", "mesh", "words"),
    [
        (4, dict(data=9), "mesh.data: 9; there are only 4 devices"),
        (4, dict(fsdp=8), "mesh.fsdp: 8; there are only 4 devices"),
        (4, dict(data=4, fsdp=2), "mesh.data: 4; times mesh.fsdp 2 is 8, and there are only 4"),
        (4, dict(data=0, fsdp=3), "mesh.fsdp: 3; does not divide the 4 devices. .*mesh.data=1"),
        (4, dict(data=0, fsdp=2), "micro-batch of 6 does not split over 4 devices.*fsdp=1"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(n_found, mesh, words):
    config = tiny.config(**{f"mesh__{name}": value for name, value in {"data": 0, **mesh}.items()})
    with pytest.raises(UserError, match=words):
        choose_devices([None] * n_found, config)


@pytest.mark.parametrize(
    ("mesh", "n_devices"), [((0, 2), 4), ((1, 2), 2), ((0, 1), 4), ((2, 1), 2), ((1, 4), 4)]
)
def test_a_mesh_takes_data_times_fsdp_devices(mesh, n_devices):
    config = tiny.config(mesh__data=mesh[0], mesh__fsdp=mesh[1], train__batch_size=8)
    assert len(choose_devices(list(range(4)), config)) == n_devices
