"""The text, the room and the environment of a run."""

from pathlib import Path

import machines

from gptjax.data.whereabouts import Whereabouts
from gptjax.device import surroundings


def data(monkeypatch, here, unreachable):
    monkeypatch.setattr(surroundings.whereabouts, "tiny_shakespeare", lambda: here)
    return surroundings.data(unreachable)


def test_the_text_is_here_damaged_to_be_had_or_not(monkeypatch):
    found = data(monkeypatch, Whereabouts("/data/input.txt", ""), "no answer within 3 s")
    assert found["words"] == "/data/input.txt, sha256 right"
    assert found["network"] == "no: no answer within 3 s"
    found = data(monkeypatch, Whereabouts("/data/input.txt", "sha256 mismatch"), "")
    assert found["words"] == "/data/input.txt is no use: sha256 mismatch"
    found = data(monkeypatch, Whereabouts("", ""), "")
    assert found["words"].startswith("not here; train.py will download it")
    found = data(monkeypatch, Whereabouts("", ""), "no answer within 3 s")
    assert "train on the synthetic text instead" in found["words"]


def test_room(tmp_path, monkeypatch):
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path / "cache"))
    machines.write(tmp_path / "cache" / "gptjax" / "compiled", {"a": "123", "b/c": "12345"})
    tree = {"proc/meminfo": "MemTotal: 8 kB\nMemFree: 1 kB\nMemAvailable:    5 kB\nBuffers: 2 kB"}
    found = surroundings.free_room(machines.write(tmp_path, tree), tmp_path / "out" / "run")
    assert (found["free_memory_bytes"], found["cache_bytes"]) == (5 * 1024, 4 + 6)
    assert found["cache_is_writable"] and found["free_disk_bytes"] > 0
    assert not (tmp_path / "out").exists()


def test_without_a_home_nothing_is_kept(tmp_path, monkeypatch):
    for name in ("GPTJAX_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    found = surroundings.free_room(tmp_path, tmp_path)
    assert found["cache_is_writable"] is False and found["cache_bytes"] == 0
    assert surroundings.settings({})["cache"] is None


def test_only_what_changes_a_run_is_told_of_the_environment(monkeypatch):
    monkeypatch.setenv("GPTJAX_CACHE_DIR", "elsewhere")
    names = ("XLA_FLAGS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "HOME", "MY_JAX_X", "TOKEN")
    found = surroundings.settings({**dict.fromkeys(names, "a"), "CUDA_VISIBLE_DEVICES": ""})
    assert list(found)[3:] == ["CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "XLA_FLAGS"]
    assert found["CUDA_VISIBLE_DEVICES"] == "" and found["data"] is None
    assert found["cache"] == str(Path("elsewhere") / "gptjax")
