"""Other work beside what is measured: the usual case on a laptop."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from gptjax.system import signals

_WORK = "while True: pass"


@contextlib.contextmanager
def busy_cores(n_cores: int) -> Iterator[None]:
    """While inside, as many processes as that keep one core busy each."""
    with contextlib.ExitStack() as stack:
        for _ in range(n_cores):
            process = subprocess.Popen([sys.executable, "-c", _WORK])
            stack.callback(process.wait)
            stack.callback(process.kill)
            stack.enter_context(signals.tidied(process.kill))
        yield
