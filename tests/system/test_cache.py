"""Compiled programs are kept for the next process, and change nothing in it."""

import os
import subprocess
import sys
from pathlib import Path

import compiling
import jax
import pytest
import tiny
from runs import history, newest, settings

from gptjax.config.config import flat
from gptjax.system import cache

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"


def train(folder, name, *, says="", **environment):
    """A run of a few updates in a process of its own; returns its folder."""
    config = settings(folder)
    path = folder / "config.py"
    lines = [f"    set_knob(config, {key!r}, {value!r})" for key, value in flat(config).items()]
    path.write_text(
        "from gptjax.config import default_config, set_knob\n"
        "def get_config():\n    config = default_config()\n"
        + "\n".join(lines)
        + "\n    return config\n"
    )
    out_dir = folder / name
    command = [sys.executable, SCRIPTS / "train.py", f"--config={path}"]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("JAX_COMP")
    }
    done = subprocess.run(
        [*command, f"--config.out_dir={out_dir}"],
        env={**compiling.environment(), **inherited, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stderr if says else not done.stderr
    return out_dir


def kept(folder):
    return sorted(path.name for path in folder.rglob("compiled/*/*-cache"))


# Compiled with little optimization by default, and in the slow tests as for users.
@pytest.mark.parametrize("form", ["quick", pytest.param("for users", marks=pytest.mark.slow)])
def test_the_second_process_compiles_nothing_and_computes_the_same(tmp_path, form):
    home = tmp_path / "cache"
    cold = train(tmp_path, "cold", GPTJAX_CACHE_DIR=str(home))
    programs = kept(home)
    assert len(programs) >= 2
    warm = train(tmp_path, "warm", GPTJAX_CACHE_DIR=str(home))
    assert kept(home) == programs
    without = train(tmp_path, "without", GPTJAX_CACHE_DIR=str(home), GPTJAX_COMPILE_CACHE="0")
    for other in (warm, without):
        tiny.assert_same_bits(newest(other).state, newest(cold).state)
        assert history(other) == history(cold)


@pytest.mark.slow
def test_it_is_moved_and_switched_off_by_the_environment(tmp_path):
    train(tmp_path, "off", GPTJAX_CACHE_DIR=str(tmp_path / "a"), GPTJAX_COMPILE_CACHE="0")
    assert not kept(tmp_path / "a")
    own = tmp_path / "own"
    train(tmp_path, "own", GPTJAX_CACHE_DIR=str(tmp_path / "b"), JAX_COMPILATION_CACHE_DIR=str(own))
    assert not kept(tmp_path / "b") and list(own.glob("*-cache"))


@pytest.mark.slow
def test_a_damaged_program_is_compiled_again(tmp_path):
    home = tmp_path / "cache"
    first = train(tmp_path, "first", GPTJAX_CACHE_DIR=str(home))
    for path in home.rglob("*-cache"):
        path.write_bytes(path.read_bytes()[:100])
    again = train(tmp_path, "again", says="Error reading persistent", GPTJAX_CACHE_DIR=str(home))
    tiny.assert_same_bits(newest(again).state, newest(first).state)


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = jax.config.jax_compilation_cache_dir
    cache.keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"GPTJAX_CACHE_DIR": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a/gptjax"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/gptjax"),
        ({"HOME": "/c"}, "/c/.cache/gptjax"),
        ({}, None),
    ],
)
def test_the_folder(monkeypatch, environment, wanted):
    for name in ("GPTJAX_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cache.folder() == (Path(wanted) if wanted else None)


def test_a_process_with_fewer_cores_has_programs_of_its_own(tmp_path, monkeypatch):
    """XLA splits work over the cores as it compiles, and JAX's key tells nothing of them."""
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    before = jax.config.jax_compilation_cache_dir
    folders = []
    try:
        for n_cores in (2, 12, 2):
            monkeypatch.setattr(cache, "n_cores", lambda n_cores=n_cores: n_cores)
            cache.keep_compiled_programs()
            folders.append(jax.config.jax_compilation_cache_dir)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert folders[0] == folders[2] != folders[1]
    assert Path(folders[1]).parent == tmp_path / "gptjax" / "compiled"


def test_a_home_that_may_not_be_looked_into_is_done_without(tmp_path, monkeypatch):
    """As in a container whose user is not the one that HOME belongs to."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path / "home"))
    for name in ("GPTJAX_COMPILE_CACHE", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)

    def denied(path, **_):
        if str(path).startswith(str(tmp_path / "home")):
            raise PermissionError(13, "Permission denied")
        return stat(path)

    stat = os.stat
    monkeypatch.setattr(os, "stat", denied)
    monkeypatch.setattr(os, "access", lambda *_: False)
    cache.keep_compiled_programs()
    assert jax.config.jax_compilation_cache_dir == before


def test_the_oldest_go_when_there_is_too_much(tmp_path):
    (tmp_path / "folder").mkdir()
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    cache.prune(tmp_path, most_bytes=40)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d", "folder"]
    cache.prune(tmp_path, most_bytes=25)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "folder"]
    cache.prune(tmp_path / "missing", most_bytes=0)
