"""Which versions of JAX and its companions are let in, and what is said of the others."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import gptjax
from gptjax.system import versions
from gptjax.system.errors import UserError

GOOD = {
    "jax": "0.11.2",
    "jaxlib": "0.11.2",
    "flax": "0.12.12",
    "optax": "0.2.8",
    "orbax-checkpoint": "0.12.8",
    "ml-collections": "1.1.0",
}


@pytest.fixture
def installed(monkeypatch):
    """Lets a test say which versions are installed."""

    def install(**changes):
        found = GOOD | {name.replace("_", "-"): version for name, version in changes.items()}

        def version(name):
            if found.get(name) is None:
                raise metadata.PackageNotFoundError(name)
            return found[name]

        monkeypatch.setattr(versions.metadata, "version", version)

    return install


def test_the_table_is_pyprojects():
    project = tomllib.loads((Path(__file__).parent.parent.parent / "pyproject.toml").read_text())
    asked = {line.partition(">=")[0]: line for line in project["project"]["dependencies"]}
    for name, (first, below) in versions.SUPPORTED.items():
        if name != "jaxlib":  # comes with jax
            assert asked[name] == f"{name}>={first},<{below}"


def test_the_version_is_pyprojects_and_has_its_changes_told():
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())
    assert project["project"]["version"] == gptjax.__version__
    assert f"## {gptjax.__version__}" in (root / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("script", ["train", "sample", "evaluate", "doctor"])
def test_a_system_without_fcntl_is_told_in_one_line(tmp_path, script):
    """Windows has none; the script runs as from a shell, with the module hidden."""
    path = Path(__file__).parents[2] / "scripts" / f"{script}.py"
    code = (
        "import runpy, sys; sys.modules['fcntl'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    flags = {"train": ["--config", "x.py"], "doctor": []}.get(script, ["--out_dir", "x"])
    command = [sys.executable, "-c", code, str(path), *flags]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    line = "gptjax: error: platform: linux; gptjax needs Linux or macOS. On Windows run it in WSL2."
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line + "\n")
    assert list(tmp_path.iterdir()) == []


def test_what_is_installed_here_is_let_in():
    versions.check()


@pytest.mark.parametrize("jax", ["0.10.2", "0.11.0", "0.11.2", "0.11.3.dev20261101"])
def test_versions_within_the_bounds_are_let_in(installed, jax):
    installed(jax=jax, jaxlib=jax, jax_cuda13_plugin=jax, jax_cuda13_pjrt=jax)
    versions.check()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jax": "0.10.1"}, "jax: 0.10.1; must be ≥ 0.10.2 and < 0.12"),
        ({"jax": "0.12.0"}, "jax: 0.12.0; must be ≥ 0.10.2 and < 0.12"),
        ({"flax": "0.12.7"}, "flax: 0.12.7; must be ≥ 0.12.8 and < 0.13"),
        ({"optax": None}, "optax: not installed; gptjax needs optax>=0.2.8,<0.3"),
        (
            {"jax_cuda13_pjrt": "0.11.1"},
            "jax-cuda13-pjrt: 0.11.1; does not belong to",
        ),
    ],
)
def test_another_version_is_one_clear_error(installed, changes, words):
    installed(**changes)
    with pytest.raises(UserError) as error:
        versions.check()
    assert words in str(error.value) and "pip install" in str(error.value)


def test_other_versions_can_be_tried(installed, monkeypatch):
    monkeypatch.setenv("GPTJAX_ANY_VERSION", "1")
    installed(jax="0.12.0", jaxlib="0.12.0", jax_cuda13_pjrt="0.11.1")
    versions.check()
    installed(optax=None)
    with pytest.raises(UserError, match="optax: not installed"):
        versions.check()


def test_a_flax_older_than_jax_finds_the_class_it_derives_from(installed, monkeypatch):
    hijax = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "jax.experimental", SimpleNamespace(hijax=hijax))

    def flax_is_imported():
        monkeypatch.setattr(sys, "meta_path", [])
        versions.bridge_flax()
        (finder,) = sys.meta_path
        assert finder.find_spec("numpy", None) is None and not vars(hijax)
        assert finder.find_spec("flax", None) is None

    installed()
    flax_is_imported()
    assert not hasattr(hijax, "HiPrimitive")
    installed(flax="0.12.9")
    flax_is_imported()
    assert type("Derived", (hijax.HiPrimitive,), {})("name").name == "name"
    assert type("Derived", (hijax.MutableHiType,), {"__slots__": ["own"]})
