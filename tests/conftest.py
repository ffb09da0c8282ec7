"""Every test runs on the CPU, seen by JAX as four devices, with silent broadcasting refused.

`JAX_PLATFORMS=cuda pytest -m cuda -n 0` runs those that need an NVIDIA GPU there, `pytest -m quick`
those for the moment before a commit.

XLA optimizes little here, since the suite compiles more than it computes; so it does in most of the
commands that the default tests start. GPTJAX_TEST_OPTIMIZED=1 tests what users run, and so do the
commands of the slow tests.
"""

import os
import subprocess
from pathlib import Path
from unittest import mock

# Before JAX starts: child processes inherit these as well.
os.environ["JAX_PLATFORMS"] = {None: "cpu", "cuda": "cuda,cpu"}.get(
    os.environ.get("JAX_PLATFORMS"), os.environ.get("JAX_PLATFORMS", "")
)
# Commands run beside this process, and each must find memory on a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# What one test has compiled no other compiles again, in whatever process.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
    Path(__file__).parent.parent / ".pytest_cache" / "xla"
)
# Made-up rates of devices must not become the peaks of whoever runs the tests.
os.environ["GPTJAX_CACHE_DIR"] = str(Path(__file__).parent.parent / ".pytest_cache" / "home")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import compiling
import jax
import pytest

jax.config.update("jax_num_cpu_devices", 4)
if os.environ["JAX_PLATFORMS"] == "cpu" and compiling.flags_here():
    users_flags = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = compiling.flags_here()
    jax.devices()  # XLA reads its flags here, once; child processes must not see them.
    del os.environ["XLA_FLAGS"]
    if users_flags is not None:
        os.environ["XLA_FLAGS"] = users_flags
jax.config.update("jax_numpy_rank_promotion", "raise")


# Modules that take too long for the moment before a commit, or start processes without importing
# what does. Every other is quick, but for its slow tests, unless it imports one of STARTERS.
NOT_QUICK = {"test_export_weights", "test_flops", "test_gpu_bench", "test_import_weights"}
NOT_QUICK |= {"test_core_sweep", "test_not_finite", "test_paths"}
STARTERS = {"forked", "multiprocessing", "subprocess"}


def pytest_configure(config):
    compiling.decide_for_commands(config.option.markexpr)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the quick tests; before pytest looks at -m."""
    for item in items:
        is_long = item.module.__name__ in NOT_QUICK or STARTERS & vars(item.module).keys()
        if not is_long and not any(item.get_closest_marker(name) for name in ("slow", "cuda")):
            item.add_marker(pytest.mark.quick)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A quick test starts no process."""
    if not item.get_closest_marker("quick"):
        return (yield)

    def refuse(*arguments, **settings):
        raise AssertionError(f"{item.nodeid} starts a process: see NOT_QUICK in conftest.py")

    with mock.patch.object(subprocess.Popen, "__init__", refuse):
        return (yield)


@pytest.fixture
def x64():
    """Switches float64 on for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
