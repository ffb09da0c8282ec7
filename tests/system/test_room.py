"""Memory, the size of folders, and whether they can be written to."""

from pathlib import Path

import machines
import pytest

from gptjax.system import room


def test_free_memory(tmp_path):
    assert room.free_memory(tmp_path) is None
    tree = {"proc/meminfo": "MemTotal:       24 kB\nMemAvailable:    7 kB"}
    assert room.free_memory(machines.write(tmp_path, tree)) == 7 * 1024


def test_cpus_at_work(tmp_path, monkeypatch):
    def stat(*ticks):
        lines = [" ".join(map(str, ("cpu ", *ticks, 0, 0))), "cpu0 1", "cpu1 1", "cpu2 1", "intr 5"]
        machines.write(tmp_path, {"proc/stat": "\n".join(lines)})

    # Of 100 ticks 40 are idle and 20 wait for a disk: two fifths of three CPUs are at work.
    stat(10, 20, 30, 40, 50, 60, 70, 80)
    later = (20, 21, 40, 80, 70, 65, 72, 92)
    monkeypatch.setattr(room.time, "sleep", lambda seconds: stat(*later))
    assert room.busy_cpus(tmp_path, seconds=1) == pytest.approx(3 * 0.4)
    assert room.busy_cpus(tmp_path, seconds=1) == 0, "no tick has passed"
    assert room.busy_cpus(tmp_path / "missing", seconds=1) == 0


def test_the_size_of_a_folder(tmp_path):
    assert room.folder_bytes(tmp_path / "missing") == 0
    machines.write(tmp_path, {"a": "12", "b/c/d": "1234"})
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert room.folder_bytes(tmp_path) == 3 + 5 + len(str(tmp_path / "nowhere"))


def test_whether_a_folder_can_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    assert room.is_writable(tmp_path / "a" / "b") and not (tmp_path / "a").exists()
    assert not room.is_writable(tmp_path / "file" / "a")
    assert not room.is_writable(Path("/proc/self/fd"))
