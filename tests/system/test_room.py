"""Memory, the size of folders, and whether they can be written to."""

from pathlib import Path

import machines

from gptjax.system import room


def test_free_memory(tmp_path):
    assert room.free_memory(tmp_path) is None
    tree = {"proc/meminfo": "MemTotal:       24 kB\nMemAvailable:    7 kB"}
    assert room.free_memory(machines.write(tmp_path, tree)) == 7 * 1024


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
