"""A path that is accepted works to the end, whatever characters are in it."""

import os
import shutil
import sys

import pytest
import runs
import tiny

from gptjax.evaluate import evaluate
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.rescue import rescue
from gptjax.system import files
from gptjax.system.errors import UserError

NAMES = {
    "brackets and stars": "[2026] a*b?",
    "backslash and newline": "back\\slash\ntwo lines",
    "address": "gs:",
    "home": "~",
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "every other printable ASCII character": "!\"#$%&'()+,-.0:;<=>@A^_`a{|}",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_p26_a_path_that_is_accepted_works_to_the_end(tmp_path, capsys, name):
    """Trains, saves, prunes, resumes and evaluates there."""
    sys.stdout.reconfigure(errors="backslashreplace")  # As command.run has it.
    folder = tmp_path / name
    folder.mkdir()
    config = runs.settings(tmp_path, checkpoint__interval=2, checkpoint__keep=1)
    with runs.stopped_after(6):
        assert runs.start(config, folder / "run") == 143
    assert runs.start(config, folder / "run") == 0
    assert runs.newest(folder / "run").step == 12
    evaluate(str(folder / "run"), step="latest", context=0)
    assert "val " in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {name, "text.txt"}


def test_p26_arrays_that_orbax_forgot_to_list_are_found(tmp_path, capsys):
    """As gptjax 0.1 left them below a folder with brackets: all there, without the merged list."""
    out_dir = tmp_path / "run"
    config = runs.settings(tmp_path)
    assert runs.start(config, out_dir) == 0
    wanted = runs.newest(out_dir)
    state = out_dir / "checkpoints" / "12" / "state"
    rescue(state.parent)
    assert "list" not in capsys.readouterr().err  # There was nothing to do.
    (state / "manifest.ocdbt").unlink()
    shutil.rmtree(state / "d")
    # Behind a link nothing is written.
    moved = state.rename(tmp_path / "moved")
    state.symlink_to(moved)
    rescue(state.parent)
    assert not (moved / "manifest.ocdbt").exists()
    state.unlink()
    moved.rename(state)
    capsys.readouterr()
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        found = checkpoints.restore(12)
    tiny.assert_same_bits(found.state, wanted.state)
    assert "checkpoint 12 had no list of its arrays; made one" in capsys.readouterr().err
    assert runs.start(config, out_dir) == 0


def test_p26_what_tensorstore_would_write_elsewhere_is_reached_by_a_link(tmp_path, monkeypatch):
    """Under a locale that is not UTF-8 its `ü` is another folder than Python's."""
    folder = tmp_path / "ü"
    with files.plain_path(folder) as plain:
        assert plain == folder
    monkeypatch.setattr(os, "fsencode", lambda path: os.fspath(path).encode("latin-1"))
    with files.plain_path(folder) as plain:
        assert str(plain).isascii()
        assert plain.readlink() == folder


def test_p26_the_link_itself_has_a_plain_path(tmp_path, monkeypatch):
    odd = tmp_path / "[temporary]"
    odd.mkdir()
    monkeypatch.setenv("TMPDIR", str(odd))
    with files.plain_path(tmp_path / "[run]") as plain:
        assert "[" not in str(plain)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with files.plain_path(tmp_path / "[run]") as plain:
        assert plain.is_relative_to(tmp_path)
    assert os.listdir(tmp_path) == ["[temporary]"]


def test_p26_a_path_that_needs_a_link_is_refused_where_none_can_be_made(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    files.check_writable(tmp_path / "run")
    with pytest.raises(
        UserError, match=r"\[run\]; such a path is reached by a link, and no folder"
    ):
        files.check_writable(tmp_path / "[run]")
