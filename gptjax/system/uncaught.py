"""A C++ exception that nobody catches, in a thread of a library: a line in place of abort()."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from gptjax.system import signals

# What C++ may call must not be tidied away.
_kept: list[Any] = []


@contextlib.contextmanager
def told(words: Callable[[], str]) -> Iterator[None]:
    """While inside, such an exception ends the process as `words()` says, with exit code 1.

    C++ would end it by abort(), after lines about the library's own insides; so it does if `words`
    is "". That may take its time: only the thread that threw waits. Where C++'s library is another
    than GNU's, nothing changes.
    """
    import ctypes

    try:
        library = ctypes.CDLL("libstdc++.so.6")
    except OSError:
        yield
        return
    set_terminate = library._ZSt13set_terminatePFvvE  # C++'s own name of std::set_terminate.
    set_terminate.argtypes, set_terminate.restype = [ctypes.c_void_p], ctypes.c_void_p
    function = ctypes.CFUNCTYPE(None)

    def end() -> None:
        if said := words():
            signals.end_tidied(said, code=1)
        function(before)()

    handler = function(end)
    _kept.append(handler)
    before = set_terminate(ctypes.cast(handler, ctypes.c_void_p))
    yield  # Who leaves by an exception may still be thrown at until the process has ended.
    set_terminate(before)
