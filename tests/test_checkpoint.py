"""Checkpoints come back whole or not at all, and the best and the newest are kept."""

import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from gptjax import checkpoint, description
from gptjax.checkpoint import Checkpoints
from gptjax.errors import RunError, UserError


@pytest.fixture(scope="module")
def start():
    settings = tiny.config()
    model = tiny.model_config(bias=False)
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
    settings = tiny.config(model__param_dtype="bfloat16")
    state = tiny.parts(tiny.model_config(bias=False, param_dtype="bfloat16"), settings)[2]
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


def array_files(folder: Path):
    return sorted(
        path
        for path in (folder / "checkpoints" / "1" / "state").rglob("*")
        if path.is_file() and path.parent.name == "d" and "ocdbt.process_0" in path.parts
    )


def test_no_flipped_bit_of_an_array_is_loaded(tmp_path, start):
    """Orbax by itself loads these without a word."""
    saved(tmp_path, start, {1: 2.0})
    path = max(array_files(tmp_path), key=lambda path: path.stat().st_size)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    silent = refused = 0
    for position in rng.integers(0, len(whole), 25):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            with Checkpoints(tmp_path, read_only=True) as checkpoints:
                found = checkpoints.restore(1)
        except RunError as error:
            assert "is damaged" in str(error) and str(tmp_path) in str(error)
            refused += 1
            continue
        same = zip(tiny.arrays(found.state), tiny.arrays(at_step(start[1], 1)), strict=True)
        silent += any(a.tobytes() != b.tobytes() for a, b in same)
    assert silent == 0 and refused >= 15


@pytest.mark.parametrize("damage", ["delete", "halve", "zero"])
@pytest.mark.parametrize("part", ["array", "meta", "manifest"])
def test_a_damaged_file_is_refused_with_its_name(tmp_path, start, part, damage):
    saved(tmp_path, start, {1: 2.0})
    folder = tmp_path / "checkpoints" / "1"
    path = {
        "array": max(array_files(tmp_path), key=lambda path: path.stat().st_size),
        "meta": folder / "meta" / "metadata",
        "manifest": folder / "state" / "manifest.ocdbt",
    }[part]
    content = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(
            content[: len(content) // 2] if damage == "halve" else b"\0" * len(content)
        )
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(RunError, match="is damaged"):
            checkpoints.restore(1)


def test_an_edited_description_is_refused(tmp_path, start):
    saved(tmp_path, start, {1: 2.0})
    path = tmp_path / "checkpoints" / "1" / "meta" / "metadata"
    described = json.loads(path.read_text())
    described["config"]["optim.learning_rate"] = 5.0
    path.write_text(json.dumps(described))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(RunError, match="crc32"):
            checkpoints.meta(1)


def test_a_newer_format_is_named(tmp_path, start, monkeypatch):
    monkeypatch.setattr(description, "FORMAT", 99)
    saved(tmp_path, start, {1: 2.0})
    monkeypatch.undo()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(RunError, match="needs that version or a later one"):
            checkpoints.restore(1)


@pytest.mark.parametrize(
    "vals",
    [
        {1: 3.0, 2: 1.0, 3: math.nan, 4: 2.0, 5: 2.5},
        {1: 3.0, 2: 2.0, 3: 1.0, 4: 1.5, 5: 4.0},
        {1: 1.0, 2: None, 3: math.inf, 4: None, 5: 1.5},
        {1: None, 2: None, 3: None, 4: None, 5: None},
    ],
)
def test_best_and_newest_are_kept(tmp_path, start, vals):
    saved(tmp_path, start, vals, keep=2)
    finite = {step: val for step, val in vals.items() if val is not None and math.isfinite(val)}
    best = min(finite, key=finite.get) if finite else None
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert set(checkpoints.steps()) >= {4, 5} | ({best} if best else set())
        assert len(checkpoints.steps()) <= 3
        assert checkpoints.best() == best
        assert checkpoint.select_step(checkpoints, "best") == (best or 5)
        assert checkpoint.select_step(checkpoints, "latest") == 5
        assert checkpoint.select_step(checkpoints, "4") == 4
        with pytest.raises(UserError, match="best, latest or one of"):
            checkpoint.select_step(checkpoints, "77")
    assert list((tmp_path / "checkpoints" / "trash").glob("*")) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved(tmp_path, start, bad):
    settings, state = start
    broken = jax.tree.map(np.array, at_step(state, 1))
    broken.params["wte"]["embedding"][...] = broken.params["wte"]["embedding"][...] * bad
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(RunError, match="params/wte/embedding is not finite"):
            checkpoints.save(broken, tiny.description(settings), val_nats=1.0)
        assert checkpoints.steps() == []


def test_a_save_that_would_be_skipped_is_an_error(tmp_path, start):
    saved(tmp_path, start, {5: 1.0})
    with pytest.raises(RunError, match="already has step 5"):
        saved(tmp_path, start, {3: 1.0})


def test_another_models_arrays_are_refused(tmp_path, start):
    settings, state = start
    other = tiny.config(model__n_layer=1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(at_step(state, 1), tiny.description(other), val_nats=1.0)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        with pytest.raises(RunError, match="other arrays than its config"):
            checkpoints.restore(1)


def test_reading_creates_nothing(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        checkpoint.open_for_reading(str(tmp_path / "missing"))
    assert list(tmp_path.iterdir()) == []


_ON_DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
from pathlib import Path
import numpy as np
from gptjax import mesh
from gptjax.checkpoint import Checkpoints, state_leaves
action, folder = sys.argv[2], Path(sys.argv[3])
assert len(jax.devices()) == int(sys.argv[1])
everywhere = mesh.replicated(mesh.data_mesh(jax.devices()))
if action == "rewrite":
    with Checkpoints(Path(sys.argv[4]), read_only=True) as checkpoints:
        found = checkpoints.restore(1)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(jax.device_put(found.state, everywhere), found.meta, val_nats=1.0)
else:
    for written_on in ("1", "2", "4"):
        with Checkpoints(folder / written_on, read_only=True) as checkpoints:
            found = checkpoints.restore(1)
        state = jax.device_put(found.state, everywhere)
        leaf = jax.tree.leaves(state)[1]
        assert len(leaf.sharding.device_set) == int(sys.argv[1])
        for path, value in state_leaves(state).items():
            print(path, np.asarray(value).tobytes().hex())
        print("end")
"""


def test_opens_on_any_number_of_devices(tmp_path, start):
    """Written with 1, 2 and 4 devices, read with 1, 2 and 4: the same bits nine times."""
    saved(tmp_path / "origin", start, {1: 2.0})

    def process(*arguments):
        command = [sys.executable, "-c", _ON_DEVICES, *map(str, arguments)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    for n in (1, 2, 4):
        process(n, "rewrite", tmp_path / str(n), tmp_path / "origin")
    printed = "".join(process(n, "read", tmp_path) for n in (1, 2, 4)).split("end\n")[:-1]
    assert len(printed) == 9 and len(set(printed)) == 1 and "params/wte/embedding" in printed[0]
