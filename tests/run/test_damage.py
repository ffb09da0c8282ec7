"""Damaged and exchanged files: a checkpoint comes back with every bit, or not at all."""

import dataclasses
import os
import shutil
from pathlib import Path

import forked
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from gptjax.run import resume
from gptjax.run.checkpoint import Checkpoints
from gptjax.system.errors import RunError

GOLDEN = Path(__file__).parent.parent / "data" / "golden_0_1_0"


@pytest.fixture(scope="module")
def settings():
    return tiny.config(model__n_layer=1, checkpoint__keep=3)


def random_state(settings, *, run, step):
    """A state whose arrays are all noise: no two runs or steps share a leaf, none is compressed."""
    rng = np.random.default_rng([run, step])
    initial = tiny.parts(tiny.model_config(bias=False, n_layer=1), settings)[2]
    noise = jax.tree.map(lambda leaf: rng.normal(0, 9, leaf.shape).astype(leaf.dtype), initial)
    return noise.replace(step=np.asarray(step, np.int32))


def write(run_dir, settings, *, run, steps):
    with Checkpoints(run_dir, keep=3) as checkpoints:
        for step in steps:
            state = random_state(settings, run=run, step=step)
            checkpoints.save(state, tiny.description(settings), val_nats=float(step))


@pytest.fixture(scope="module")
def runs(settings, tmp_path_factory):
    """A folder with two runs, `this` and `other`, alike but for what their arrays hold."""
    folder = tmp_path_factory.mktemp("runs")
    write(folder / "this", settings, run=1, steps=(4, 8))
    write(folder / "other", settings, run=2, steps=(4, 8))
    return folder


@pytest.fixture(scope="module")
def originals(settings, runs):
    """What step 4 of `this` holds: the description, and the arrays as they were made."""
    with Checkpoints(runs / "this", read_only=True) as checkpoints:
        meta = checkpoints.meta(4)
    return meta, [leaf.tobytes() for leaf in tiny.arrays(random_state(settings, run=1, step=4))]


@dataclasses.dataclass
class Tally:
    """What came of restoring step 4 of damaged copies."""

    n_whole: int = 0
    n_refused: int = 0

    def add(self, run_dir, originals, what):
        """Restores step 4, which must give the original bits or an error that says all."""
        folder = run_dir / "checkpoints" / "4"
        try:
            with Checkpoints(run_dir, read_only=True) as checkpoints:
                assert checkpoints.best() in (4, 8), what
                found = checkpoints.restore(4)
        except RunError as error:
            before, _, reason = str(error).partition(" is damaged: ")
            assert before == f"checkpoint {folder}", what
            # The part: one of the two items, or an array's path.
            assert reason.startswith(("meta: ", "state: ", "step: ", "params/", "opt_state/")), what
            assert reason.endswith("use another step of [4, 8]"), what
            self.n_refused += 1
        else:
            meta, leaves = originals
            assert found.meta == meta, what
            assert [leaf.tobytes() for leaf in tiny.arrays(found.state)] == leaves, what
            self.n_whole += 1


def files_of(step_dir):
    """Every file of a checkpoint, relative; array data last, in the order of size."""
    files = [path for path in step_dir.rglob("*") if path.is_file()]
    files.sort(key=lambda path: (path.parent.name == "d", path.stat().st_size))
    return [path.relative_to(step_dir) for path in files]


def counterpart(file, step_dir, other_dir):
    """The content of the other checkpoint's file of the same name, or if its name is random rank.

    Files of array data have random names, and how many there are is a matter of chance.
    """
    if file.parent.name != "d":
        return (other_dir / file).read_bytes()
    mine = [path for path in files_of(step_dir) if path.parent == file.parent]
    theirs = [path for path in files_of(other_dir) if path.parent == file.parent]
    rank = mine.index(file) - len(mine)  # counted from the largest
    return (other_dir / theirs[max(rank, -len(theirs))]).read_bytes()


@pytest.mark.parametrize(
    ("kinds", "n_flips", "n_least"),
    [
        ({"delete", "other run"}, 2, (48, 12)),  # How many are refused depends on how Orbax merged.
        pytest.param(
            {"delete", "halve", "zero", "empty", "other run", "other step"},
            24,
            (300, 120),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["some", "all"],
)
def test_p4_no_damage_of_a_file_gives_wrong_weights(
    runs, originals, tmp_path, kinds, n_flips, n_least
):
    """Orbax by itself loads flipped bits without a word.

    That the commit files, and remains of what Orbax merged, have no effect is as good as refusal.
    """
    this = runs / "this" / "checkpoints"
    rng, tally = np.random.default_rng(0), Tally()
    for file in files_of(this / "4"):
        content = (this / "4" / file).read_bytes()
        other_run = runs / "other" / "checkpoints" / "4"
        damages = {
            "delete": None,
            "halve": content[: len(content) // 2],
            "zero": bytes(len(content)),
            "empty": b"",
            "other run": counterpart(file, this / "4", other_run),
            "other step": counterpart(file, this / "4", this / "8"),
        }
        damages = {kind: damages[kind] for kind in kinds}
        for _ in range(n_flips):
            bit = int(rng.integers(8 * len(content)))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            damages[f"flip of bit {bit}"] = bytes(flipped)
        for kind, damaged in damages.items():
            run_dir = tmp_path / "run"
            shutil.copytree(runs / "this", run_dir)
            path = run_dir / "checkpoints" / "4" / file
            path.unlink() if damaged is None else path.write_bytes(damaged)
            tally.add(run_dir, originals, f"{file}: {kind}")
            shutil.rmtree(run_dir)
    n_cases, n_refused = n_least
    assert tally.n_whole + tally.n_refused >= n_cases and tally.n_refused >= n_refused


def test_p4_no_exchange_of_folders_gives_wrong_weights(runs, originals, tmp_path):
    """Every folder is whole here; they do not belong together, or not under that name."""
    this, other = runs / "this" / "checkpoints", runs / "other" / "checkpoints"
    tally = Tally()
    exchanges = [
        ("4", this / "8"),
        ("4/state", other / "4" / "state"),
        ("4/state", this / "8" / "state"),
        ("4/meta", other / "4" / "meta"),
        ("4/meta", this / "8" / "meta"),
        ("4/state/ocdbt.process_0", other / "4" / "state" / "ocdbt.process_0"),
        ("4/state/d", other / "4" / "state" / "d"),
        ("4/state", this / "4" / "meta"),
    ]
    for number, (target, source) in enumerate(exchanges):
        run_dir = tmp_path / str(number)
        shutil.copytree(runs / "this", run_dir)
        shutil.rmtree(run_dir / "checkpoints" / target)
        shutil.copytree(source, run_dir / "checkpoints" / target)
        tally.add(run_dir, originals, f"{target}: {source}")
    assert tally == Tally(n_whole=0, n_refused=len(exchanges))


def test_p4_a_step_under_another_number_is_refused(runs, tmp_path):
    shutil.copytree(runs / "this", tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    shutil.rmtree(folder / "8")
    os.rename(folder / "4", folder / "8")
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        with pytest.raises(RunError, match="checkpoints/8 is damaged: meta: describes step 4"):
            checkpoints.restore(8)


def test_p4_an_edited_description_is_refused(runs, tmp_path):
    """Nothing else in it would be wrong."""
    shutil.copytree(runs / "this", tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "4" / "meta" / "metadata"
    content = path.read_text()
    path.write_text(content.replace('"optim.learning_rate": 0.001', '"optim.learning_rate": 0.002'))
    assert path.read_text() != content
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        with pytest.raises(RunError, match="is damaged: meta: crc32 differs"):
            checkpoints.meta(4)


def shorten(run_dir, step):
    """Cuts the files that hold a checkpoint's arrays short."""
    for path in (run_dir / "checkpoints" / str(step) / "state").glob("**/d/*"):
        os.truncate(path, path.stat().st_size // 2)


def test_p5_a_step_that_is_damaged_again_is_set_aside_again(settings, tmp_path):
    """Each time the run falls back, and the step saved anew is the one that is found."""
    requested = tiny.config(model__n_layer=1, checkpoint__keep=3, out_dir=str(tmp_path))
    write(tmp_path, settings, run=1, steps=(4, 8))
    for run, name in ((2, "8.corrupt"), (3, "8.corrupt1"), (4, "8.corrupt2")):
        shorten(tmp_path, 8)
        origin = resume.resume_plan(requested, [])
        assert origin.step == 4 and origin.notices[0].text.endswith(f"it is now called {name}")
        write(tmp_path, settings, run=run, steps=(8,))
        found = resume.resume_plan(requested, [])
        assert found.step == 8 and found.notices == []
        tiny.assert_same_bits(found.checkpoint.state, random_state(settings, run=run, step=8))
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()} - {"trash"}
    assert names == {"4", "8", "8.corrupt", "8.corrupt1", "8.corrupt2"}


def test_p5_a_run_without_a_whole_checkpoint_is_not_begun_anew(tmp_path):
    """Exit code 1, with no file changed."""
    run_dir = tmp_path / "run"
    shutil.copytree(GOLDEN, run_dir)
    shorten(run_dir, 400)
    before = contents(run_dir)
    ended = forked.run(tmp_path, "train", "--config=config.py", cwd=run_dir)
    assert ended.code == 1 and ended.stderr.count("\n") == 1
    assert "none of the checkpoints [400] in . is whole (step 400: state: " in ended.stderr
    assert contents(run_dir) == before


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and "__pycache__" not in path.parts
    }


@pytest.mark.parametrize("denied_by", ["Python", "TensorStore"])
def test_p5_what_may_not_be_read_is_not_taken_for_damaged(
    runs, settings, tmp_path, monkeypatch, denied_by
):
    """It stays where it is, and no other is taken for the newest or the best."""
    run_dir = tmp_path / "run"
    shutil.copytree(runs / "this", run_dir)
    settings = settings.copy_and_resolve_references()
    settings.out_dir = str(run_dir)

    def denied(self, step, args):
        if step != 8 or (denied_by == "TensorStore") == ("meta" in args.keys()):
            return restore(self, step, args=args)
        if denied_by == "Python":
            raise PermissionError(13, "Permission denied")
        raise ValueError("PERMISSION_DENIED: Error reading local file")

    restore = ocp.CheckpointManager.restore
    monkeypatch.setattr(ocp.CheckpointManager, "restore", denied)
    with pytest.raises(RunError, match="8 cannot be read: .*(denied|DENIED)"):
        resume.resume_plan(settings, [])
    if denied_by == "Python":
        with Checkpoints(run_dir, read_only=True) as checkpoints:
            with pytest.raises(RunError, match="8 cannot be read"):
                checkpoints.best()
    assert {path.name for path in (run_dir / "checkpoints").iterdir()} >= {"4", "8"}
