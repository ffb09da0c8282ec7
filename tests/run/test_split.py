"""Checkpoints of a state that is split over processes."""

import functools
import operator
from types import SimpleNamespace

import jax
import ml_dtypes
import numpy as np
import processes
import pytest
import runs

from gptjax.device.mesh import Layout
from gptjax.run import split
from gptjax.run.template import NotFinite, crc32
from gptjax.system import hosts


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return processes.Several(tmp_path_factory.mktemp)


def leaves():
    """Arrays that two pairs of devices split along each axis, or not at all."""
    chance, lay = np.random.default_rng(3), Layout(jax.devices()[:4], n_fsdp=2)
    shapes = {"rows": (10, 3), "columns": (3, 7, 14), "odd": (5, 7), "scalar": ()}
    values = {name: np.asarray(chance.normal(size=s), np.float32) for name, s in shapes.items()}
    values["rows"][2:5] = -0.0
    values["narrow"] = chance.normal(size=(6, 5)).astype(ml_dtypes.bfloat16)
    values["step"] = np.asarray(7, np.int32)
    return values, lay.put(values)


def part(leaf, index):
    """What one of four processes has of an array, each with a device."""
    device = jax.devices()[index]
    shards = [shard for shard in leaf.addressable_shards if shard.device == device]
    return SimpleNamespace(shape=leaf.shape, dtype=leaf.dtype, addressable_shards=shards)


class Processes:
    """The first of four processes, to which all have said what they have."""

    leads = True

    def __init__(self, arrays):
        self._arrays = arrays

    def gather(self, own):
        parts = [[part(leaf, index) for leaf in self._arrays] for index in (1, 2, 3)]
        return [own, *([split.own_sum(leaf) for leaf in others] for others in parts)]


def described_by_four(arrays):
    first = {name: part(leaf, 0) for name, leaf in arrays.items()}
    return split.described(first, Processes(arrays.values()))


def test_sums_of_parts_are_those_of_the_whole():
    values, arrays = leaves()
    wanted = {
        name: [list(value.shape), str(value.dtype), crc32(value)] for name, value in values.items()
    }
    assert split.described(arrays, hosts.alone()) == wanted
    assert described_by_four(arrays) == wanted
    # Of the arrays that are split, two processes write; of the others one.
    writers = [split.own_sum(part(arrays["rows"], index)) is not None for index in range(4)]
    assert sum(writers) == 2 and split.own_sum(part(arrays["odd"], 3)) is None
    changed = {**arrays, "rows": -arrays["rows"]}
    assert described_by_four(changed)["rows"] != wanted["rows"]


def test_one_crc32_of_many_parts():
    chance = np.random.default_rng(1)
    for n_parts in (1, 2, 3, 8):
        whole = chance.integers(0, 256, n_parts * 5, np.uint8)
        parts = np.zeros((n_parts, *whole.shape), np.uint8)
        for number, each in enumerate(parts):
            each[number::n_parts] = whole[number::n_parts]
        assert functools.reduce(operator.or_, parts).tolist() == whole.tolist()
        sums = [crc32(each) for each in parts]
        assert split.summed(sums, crc32(np.zeros_like(whole))) == crc32(whole)


@pytest.mark.parametrize("name", ["rows", "columns", "scalar"])
def test_a_bad_number_in_any_part_is_refused(name):
    values, arrays = leaves()
    values[name].reshape(-1)[-1] = np.inf
    arrays[name] = Layout(jax.devices()[:4], n_fsdp=2).put(values[name])
    with pytest.raises(NotFinite, match=f"{name} is not finite"):
        described_by_four(arrays)


def test_one_process_never_has_a_split_state():
    assert not split.is_split(leaves()[1])


@pytest.mark.slow
def test_each_process_writes_its_part_and_one_alone_goes_on(several, tmp_path):
    """`newest` compares each array with the crc32 of what the processes had."""
    run, same = tmp_path / "run", ("optim.lr_decay_iters=18", "log.interval=1")
    knobs = (*same, "mesh.fsdp=2", "checkpoint.interval=5", "checkpoint.keep=2")
    left = several.run(2, run, "train.max_iters=10", *knobs)
    assert [found.code for found in left] == [0, 0], left
    assert {5, 10} <= set(runs.steps(run))
    for step in runs.steps(run):
        folder = run / "checkpoints" / str(step) / "state"
        assert {path.name for path in folder.glob("ocdbt.process_*")} == {
            "ocdbt.process_0",
            "ocdbt.process_1",
        }
    whole = runs.newest(run)
    assert whole.step == 10 and len(whole.meta["leaves"]) > 20
    # On other meshes it goes on as the run of one process that was never stopped.
    several.one(run, 1, *same, "train.max_iters=15")
    left = several.run(2, run, "train.max_iters=18", *knobs)
    assert [found.code for found in left] == [0, 0], left
    several.one(tmp_path / "one", 2, *same)
    processes.assert_same_run(run, tmp_path / "one")
