"""The run directory's lock, its files and its log, against accidents and against links."""

import os

import pytest

from gptjax import runlog
from gptjax.errors import UserError


def test_a_lock_that_is_a_link_is_refused_and_leads_nowhere(tmp_path):
    run_dir, other = tmp_path / "run", tmp_path / "other"
    run_dir.mkdir()
    other.write_text("mine")
    (run_dir / ".lock").symlink_to(other)
    with pytest.raises(UserError, match="cannot be opened"):
        with runlog.locked(run_dir):
            pass
    assert other.read_text() == "mine"


def test_a_temporary_file_that_is_a_link_leads_nowhere(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / ".config.json.tmp").symlink_to(other)
    runlog.write_atomically(tmp_path / "config.json", "{}")
    assert other.read_text() == "mine" and (tmp_path / "config.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "other"]


def test_a_directory_that_is_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    for out_dir in (tmp_path / "link", tmp_path / "link" / "run"):
        with pytest.raises(UserError, match="is a link to nothing"):
            runlog.check_writable(out_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_the_lock_of_a_process_that_failed_to_start_is_not_taken_for_ours(tmp_path, monkeypatch):
    """Between our opening the file and locking it, its owner removes it and another makes one."""
    run_dir = tmp_path / "run"
    flock = runlog.fcntl.flock

    def slow(descriptor, operation):
        monkeypatch.undo()
        os.unlink(run_dir / ".lock")
        flock(descriptor, operation)

    monkeypatch.setattr(runlog.fcntl, "flock", slow)
    with runlog.locked(run_dir):
        with pytest.raises(UserError, match="is in use"):
            with runlog.locked(run_dir):
                pass
    assert not run_dir.exists()


def test_where_a_run_has_begun_the_lock_stays(tmp_path):
    with runlog.locked(tmp_path / "run"):
        runlog.write_atomically(tmp_path / "run" / "config.json", "{}")
    assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_too_little_space_is_told_with_both_numbers(tmp_path):
    runlog.check_space(tmp_path / "new" / "run", 1)
    with pytest.raises(UserError, match=r"need 1,000,000,000,000,000 bytes, and [0-9,]+ are free"):
        runlog.check_space(tmp_path / "new" / "run", 10**15)
    assert list(tmp_path.iterdir()) == []
