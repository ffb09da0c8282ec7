"""What tracing gives is kept, and used again only if it is whole and what is wanted."""

import functools
import itertools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptjax.system import cache, interrupt, programs
from gptjax.system.programs import Source

DIGEST = cache.source_digest

X_NM = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("GPTJAX_COMPILE_CACHE", raising=False)
    monkeypatch.setattr(programs, "runs_script_of_ours", lambda: True)
    # Whoever runs this may have saved a file a second ago.
    monkeypatch.setattr(cache, "source_digest", lambda: "digest")
    return tmp_path / "gptjax"


def source(made_of="tripled", *, function=None, **settings):
    """A source of a program that is traced when `times` is called."""
    calls = itertools.count(1)

    def tripled(state, by):
        tripled.n_traced = next(calls)
        return {"x": 3 * state["x"], "sum": state["x"].sum() + 0 * by}

    tripled.n_traced = 0
    function = function or tripled
    shapes = ({"x": jax.ShapeDtypeStruct((2, 3), jnp.float32)}, np.int32(0))
    returns = {"x": 0, "sum": 0}
    settings = {"device": jax.devices()[0]} | settings
    return Source(function, shapes, returns=returns, made_of=made_of, **settings)


def check(made):
    """Compiles it and checks what it returns; tells whether it has been traced."""
    found = made.compile()({"x": jnp.asarray(X_NM)}, np.int32(1))
    np.testing.assert_array_equal(found["x"], 3 * X_NM)
    assert float(found["sum"]) == X_NM.sum()
    return bool(made.function.n_traced)


def the_file(folder):
    (path,) = folder.glob("traced/*")
    return path


def test_it_is_traced_once(folder):
    assert not source().is_kept and check(source())
    assert source().is_kept and not check(source())
    assert source().can_be_kept and not source(device=None).can_be_kept


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:40],
        lambda content: b"",
        lambda content: bytes([content[0] ^ 1]) + content[1:],
        lambda content: content[:60] + bytes([content[60] ^ 64]) + content[61:],
        lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    ],
)
def test_a_damaged_one_is_traced_anew(folder, damage):
    check(source())
    the_file(folder).write_bytes(damage(the_file(folder).read_bytes()))
    assert not source().is_kept and check(source())
    assert source().is_kept and not check(source())


def test_anothers_is_not_used(folder):
    check(source())
    (folder.parent / "other").write_bytes(the_file(folder).read_bytes())
    the_file(folder).unlink()
    other = source("tripled otherwise")
    assert check(other)
    (folder.parent / "other").replace(the_file(folder))
    assert not source("tripled otherwise").is_kept


@pytest.mark.parametrize("what", ["version", "source", "processor", "cores"])
def test_a_stale_one_is_not_used(monkeypatch, what):
    check(source())
    changed = {
        "version": (jax, "__version__", "0.0.1"),
        "source": (cache, "source_digest", lambda: "another"),
        "processor": (cache, "processor", lambda field: "other"),
        "cores": (cache, "n_cores", lambda: 1000),
    }
    monkeypatch.setattr(*changed[what])
    assert not source().is_kept


def test_source_that_was_written_since_the_start_is_not_trusted(monkeypatch):
    """What was imported may be older, and would be kept as the new source's program."""
    check(source())
    monkeypatch.setattr(cache, "source_digest", DIGEST.__wrapped__)
    monkeypatch.setattr(interrupt, "STARTED", time.time() + 3600)
    assert check(source()) and source().is_kept
    monkeypatch.setattr(interrupt, "STARTED", 0.0)
    assert not source().is_kept and not source().can_be_kept and check(source())


def test_what_is_only_about_the_cache_is_no_part_of_it(folder):
    check(source())
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    try:
        assert source().is_kept
    finally:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


def test_settings_of_jax_are_part_of_it():
    check(source())
    with jax.default_matmul_precision("highest"):  # Holds in this thread, for a while.
        assert not source().is_kept
    with jax.debug_nans(True):
        assert not source().is_kept
    assert source().is_kept


def test_where_nothing_can_be_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GPTJAX_COMPILE_CACHE", "0")
    assert not source().can_be_kept
    assert check(source()) and check(source())
    monkeypatch.delenv("GPTJAX_COMPILE_CACHE")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(tmp_path / "file"))
    assert check(source()) and check(source())


def test_another_program_keeps_nothing(folder, monkeypatch):
    """It may have changed a function that is traced."""
    monkeypatch.undo()
    monkeypatch.setenv("GPTJAX_CACHE_DIR", str(folder.parent))
    assert check(source()) and check(source())
    assert not list(folder.glob("traced/*"))


def test_without_a_device_nothing_is_kept(folder):
    """As on several devices."""
    assert check(source(device=None)) and check(source(device=None))
    assert not list(folder.glob("traced/*"))


@pytest.mark.parametrize("kept", [False, True])
def test_what_is_donated_is_used_again(kept):
    if kept:
        check(source(donated=(0,)))
    program = source(donated=(0,)).compile()
    state = {"x": jnp.array(X_NM)}
    program(state, np.int32(1))
    assert state["x"].is_deleted()
    assert program.executable.memory_analysis().alias_size_in_bytes == X_NM.nbytes


def test_it_is_the_program_that_jit_makes():
    """A loop, a product, a random number: to the bit what has not been kept."""

    def function(state, by):
        def body(i, x_NM):
            noise_NM = jax.random.normal(jax.random.key(i), x_NM.shape)
            return jnp.tanh(x_NM @ (x_NM.T @ x_NM)) + 0.1 * noise_NM

        x_NM = jax.lax.fori_loop(0, by, body, state["x"])
        return {"x": x_NM, "sum": jax.nn.logsumexp(x_NM)}

    arguments = ({"x": jnp.asarray(X_NM)}, np.int32(7))
    wanted = jax.jit(function)(*arguments)
    for _ in range(2):
        found = source("loop", function=function).compile()(*arguments)
        np.testing.assert_array_equal(found["x"], wanted["x"])
        np.testing.assert_array_equal(found["sum"], wanted["sum"])


def test_what_comes_back_is_checked():
    def function(state, by):
        return state["x"]

    with pytest.raises(TypeError, match="came back"):
        source("wrong", function=function).compile()


def test_nothing_of_it_is_run_that_is_pythons(folder, monkeypatch):
    """Nothing is unpickled."""
    check(source())
    monkeypatch.setattr("pickle.loads", functools.partial(pytest.fail, "unpickled"))
    monkeypatch.setattr("pickle.load", functools.partial(pytest.fail, "unpickled"))
    assert not check(source())


def test_only_so_many_are_kept(folder, monkeypatch):
    assert check(source("old"))
    old = the_file(folder)
    os.utime(old, (1, 1))
    monkeypatch.setattr(programs, "_MOST_BYTES_KEPT", old.stat().st_size)
    assert check(source("new")) and the_file(folder) != old
