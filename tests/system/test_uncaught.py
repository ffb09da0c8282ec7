"""C++ exceptions thrown where nobody catches them: in a thread that C started."""

import contextlib
import ctypes
import signal
import subprocess
import sys

import pytest


def has_library():
    with contextlib.suppress(OSError):
        return bool(ctypes.CDLL("libstdc++.so.6"))
    return False


pytestmark = pytest.mark.skipif(not has_library(), reason="needs GNU's C++ library")

PROGRAM = """
import ctypes, time
from gptjax.system import uncaught

def throw():
    thrower = ctypes.cast(ctypes.CDLL("libstdc++.so.6")._ZSt17__throw_bad_allocv, ctypes.c_void_p)
    ctypes.CDLL(None).pthread_create(ctypes.byref(ctypes.c_ulong()), None, thrower, None)
    time.sleep(60)

def words():
    time.sleep(0.1)
    return "error: process 1 is gone"

"""


def ended(lines):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + lines], capture_output=True, text=True, timeout=50
    )


def test_it_ends_the_process_with_a_line():
    found = ended("with uncaught.told(words):\n    throw()")
    assert (found.returncode, found.stderr) == (1, "gptjax: error: process 1 is gone\n")


def test_outside_it_is_as_ever():
    found = ended("with uncaught.told(words):\n    pass\nthrow()")
    assert found.returncode == -signal.SIGABRT and "bad_alloc" in found.stderr


def test_without_words_it_is_as_ever():
    found = ended("with uncaught.told(lambda: ''):\n    throw()")
    assert found.returncode == -signal.SIGABRT and "bad_alloc" in found.stderr
