"""Checkpoints of every version so far keep opening, wherever they have been copied to.

tests/data/golden_X_Y_Z is a run directory as gptjax X.Y.Z left it; beside it are its config and
its text, the first 60 lines of tiny.TEXT. It was made, in an empty /tmp/golden_X_Y_Z with these
two files (Orbax notes the absolute path), by

    python .../scripts/train.py --config=config.py && rm -r .lock checkpoints/trash __pycache__

What it must give was printed by that version's commands. A release that changes the format adds a
directory and a line in RECORDED; it changes none.
"""

import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path

import faults
import forked
import numpy as np
import pytest

from gptjax.config.config_file import load_config
from gptjax.run import metadata, reader, resume, template
from gptjax.run.checkpoint import Checkpoints
from gptjax.system.errors import RunError

DATA = Path(__file__).parent.parent / "data"


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What a golden run gives.

    `parameters` is the sha256 of its weights; `text` is the greedy continuation of `prompt`, in
    which each symbol's logit is at least 4 above the second best: no rounding can change it.
    """

    step: int
    parameters: str
    val: str
    prompt: str
    text: str


RECORDED = {
    "golden_0_1_0": Recorded(
        step=400,
        parameters="8211992c60dc9838cf757c1441c012a2d981e42186e26c9d87ef114adea15d67",
        val="0.5042",
        prompt="7: the 3",
        text=" cats sat on ",
    )
}


@pytest.fixture(params=RECORDED)
def golden(request, tmp_path):
    """A copy of a golden run, and what is recorded of it."""
    shutil.copytree(DATA / request.param, tmp_path / "copy")
    return tmp_path / "copy", RECORDED[request.param]


def test_p16_every_golden_run_is_small_and_names_no_place():
    folders = {path.name: path for path in DATA.glob("golden_*")}
    assert folders.keys() == RECORDED.keys()
    for name, folder in folders.items():
        files = [path for path in folder.rglob("*") if path.is_file()]
        files = [path for path in files if "__pycache__" not in path.parts]
        assert sum(path.stat().st_size for path in files) < 100_000
        for path in files:
            places = re.findall(rb"/(?:home|root|work|Users|tmp)\b[\w./]*", path.read_bytes())
            assert all(place.startswith(f"/tmp/{name}/".encode()) for place in places), path


def test_p16_opens_with_the_bits_it_was_written_with(golden):
    run_dir, recorded = golden
    with reader.open_for_reading(str(run_dir)) as checkpoints:
        assert checkpoints.steps() == [recorded.step] and checkpoints.best() == recorded.step
        found = checkpoints.restore(recorded.step)
    assert f"{found.meta['val_nats']:.4f}" == recorded.val
    digest = hashlib.sha256()
    for path, leaf in sorted(template.state_leaves(found.state).items()):
        if path.startswith("params/"):
            digest.update(f"{path} {leaf.shape} {leaf.dtype}".encode() + np.asarray(leaf).tobytes())
    assert digest.hexdigest() == recorded.parameters


def test_p16_goes_on_training(golden, tmp_path):
    run_dir, recorded = golden
    last = recorded.step + 2
    flags = ("--config=config.py", f"--config.train.max_iters={last}")
    ended = forked.run(tmp_path, "train", *flags, cwd=run_dir, prepare=faults.prepared)
    assert ended.code == 0, ended.stderr
    assert f"resumed at step {recorded.step}" in ended.stdout and "corrupt" not in ended.stdout
    with Checkpoints(run_dir, read_only=True) as checkpoints:
        assert checkpoints.steps()[-1] == last
        assert checkpoints.meta(last)["best"]["step"] == recorded.step


def test_p15_p16_a_copy_that_cannot_be_written_to_is_sampled_and_evaluated(golden, tmp_path):
    """At another path, of another owner so to say; nothing is created there."""
    run_dir, recorded = golden
    for path in (*run_dir.rglob("*"), run_dir):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = files(run_dir)
    prepare = functools.partial(bound_by_permissions, run_dir)
    flags = (f"--prompt={recorded.prompt}", "--temperature=0", "--num_samples=1")
    flags += (f"--max_new_tokens={len(recorded.text)}", f"--out_dir={run_dir}")
    try:
        sampled = forked.run(tmp_path, "sample", *flags, cwd=run_dir, prepare=prepare)
        evaluated = forked.run(
            tmp_path, "evaluate", "--out_dir=.", "--step=latest", cwd=run_dir, prepare=prepare
        )
    finally:
        for path in (run_dir, *run_dir.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    assert (sampled.code, sampled.stderr) == (0, "")
    assert sampled.stdout == recorded.prompt + recorded.text + "\n---------------\n"
    assert (evaluated.code, evaluated.stderr) == (0, "")
    assert f"val {recorded.val} ±" in evaluated.stdout
    assert files(run_dir) == before


def bound_by_permissions(folder):
    """Gives up root's power to write where it may not, for this process."""
    if os.geteuid() == 0:
        # Linux's capset: version 3 of its header, this process, no capabilities of any kind.
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0
    with pytest.raises(PermissionError):
        (folder / "probe").touch()
    with pytest.raises(PermissionError):
        (folder / "config.json").open("ab")


def files(folder):
    """Every path with its time of change; reading changes neither."""
    return {path: path.lstat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_p16_a_format_to_come_is_named_and_left_alone(tmp_path):
    """Whatever else it holds; it is not taken for damage, which would be set aside."""
    run_dir = tmp_path / "run"
    shutil.copytree(DATA / "golden_0_1_0", run_dir)
    path = run_dir / "checkpoints" / "400" / "meta" / "metadata"
    content = {"format": metadata.FORMAT + 1, "gptjax": "9.8.7", "news": [1, 2, 3]}
    path.write_text(json.dumps(metadata.with_checksum(content)))
    before = files(run_dir)
    message = "checkpoints/400 was written by gptjax 9.8.7; it needs that version or a later one"
    sampled = forked.run(tmp_path, "sample", "--out_dir=.", "--step=latest", cwd=run_dir)
    assert (sampled.code, sampled.stdout) == (1, "")
    assert re.fullmatch(f"gptjax: error: checkpoint .*/{message}\n", sampled.stderr)
    requested = load_config(str(run_dir / "config.py"), {"out_dir": str(run_dir)})
    with pytest.raises(RunError, match=message):
        resume.resume_plan(requested, [])
    assert files(run_dir) == before
