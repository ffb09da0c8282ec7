"""What is installed is all of the package, and all of it can be imported."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "gptjax").rglob("*.py"))

# Imports the modules that argv names, and says where each came from.
IMPORT = """
import importlib, sys
for name in sys.argv[1:]:
    print(importlib.import_module(name).__file__)
"""


def test_every_wing_is_found():
    """A folder without __init__.py would be left out of what is installed, without a word."""
    find_packages = pytest.importorskip("setuptools").find_packages
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = find_packages(ROOT, **project["tool"]["setuptools"]["packages"]["find"])
    assert sorted(found) == sorted({".".join(path.parent.parts) for path in MODULES})
    assert len(found) > 1


def run(*arguments, **settings):
    """What a command, which must succeed, has printed."""
    done = subprocess.run(
        list(map(str, arguments)), capture_output=True, encoding="utf-8", **settings
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def build_flags():
    """None of isolation where what builds is here already: then no network is needed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (wanted,) = project["build-system"]["requires"]
    name, _, least = wanted.partition(">=")
    try:
        is_here = int(metadata.version(name).partition(".")[0]) >= int(least)
    except metadata.PackageNotFoundError:
        is_here = False
    return ["--no-build-isolation"] if is_here else []


@pytest.fixture
def wheel(tmp_path):
    """The package as it is released, built from a copy, since building leaves files behind."""
    pytest.importorskip("pip")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "gptjax", tmp_path / "gptjax", ignore=ignored)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    flags = ("--quiet", "--no-deps", "--wheel-dir", tmp_path / "dist", *build_flags())
    run(*pip, "wheel", *flags, tmp_path, cwd=tmp_path)
    (path,) = (tmp_path / "dist").iterdir()
    run(*pip, "install", "--quiet", "--no-deps", "--target", tmp_path / "installed", path)
    return path


@pytest.mark.slow
def test_a_wheel_holds_every_module_and_each_can_be_imported(wheel, tmp_path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    assert names == {path.as_posix() for path in MODULES}
    data = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".toml")}
    assert data == {"gptjax/explain/recipes.toml", "gptjax/explain/sentences.toml"}
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    dotted = [".".join(path.with_suffix("").parts) for path in MODULES]
    dotted = [name.removesuffix(".__init__") for name in dotted]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    origins = run(sys.executable, "-c", IMPORT, *dotted, cwd=empty, env=environment)
    assert origins.splitlines() == [str(installed / path) for path in MODULES]
    # Anew, and whatever Python warns of in the sources is an error.
    compiling = (sys.executable, "-W", "error", "-m", "compileall", "-q", "-f")
    assert run(*compiling, installed / "gptjax", cwd=empty) == ""
