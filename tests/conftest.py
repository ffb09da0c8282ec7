"""Every test runs on the CPU, seen by JAX as four devices, with silent broadcasting refused.

`JAX_PLATFORMS=cuda pytest -m cuda -n 0` runs those that need an NVIDIA GPU there.

XLA optimizes little here, since the suite compiles more than it computes; so it does in the
commands that forked.py starts for the default tests. GPTJAX_TEST_OPTIMIZED=1 tests what users run.
The slow tests' commands, and all that are started as from a shell, are compiled as for users.
"""

import os
from pathlib import Path

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


def pytest_configure(config):
    compiling.decide_for_commands(config.option.markexpr)


@pytest.fixture
def x64():
    """Switches float64 on for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
