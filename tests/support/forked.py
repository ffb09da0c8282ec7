"""gptjax's commands in processes that need not import everything anew.

A server that has imported gptjax, but has not started JAX, forks for each command: the script then
runs as from a shell, with arguments, folder, environment and a process number of its own.
What JAX reads when it is imported (JAX_PLATFORMS) cannot be changed so.
"""

import dataclasses
import multiprocessing
import os
import runpy
import sys
import time
from pathlib import Path

import compiling

import gptjax

SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["gptjax.train", "gptjax.sample", "gptjax.evaluate", "tiny"])


@dataclasses.dataclass(frozen=True)
class Result:
    """What a process left: `code` is negative when a signal killed it."""

    code: int
    stdout: str
    stderr: str
    seconds: float


class Command:
    """A script running in a process of its own."""

    def __init__(self, folder, script, *arguments, cwd=None, environment=None, prepare=None):
        """Starts it; stdout and stderr go to files in `folder`, which stay there.

        `prepare`, a function of a module that the process can import, is called before the script.
        """
        self._start = time.monotonic()
        self.stdout, self.stderr = Path(folder, "stdout"), Path(folder, "stderr")
        environment = dict(os.environ) if environment is None else environment
        environment = compiling.environment() | environment
        self._process = _SERVER.Process(
            target=_run,
            args=(
                str(SCRIPTS / f"{script}.py"),
                [str(argument) for argument in arguments],
                str(self.stdout),
                str(self.stderr),
                str(cwd or os.getcwd()),
                environment,
                prepare,
            ),
        )
        self._process.start()
        self.pid = self._process.pid

    def is_running(self) -> bool:
        return self._process.is_alive()

    def send(self, signal_number: int) -> bool:
        """Whether the signal found it running; it may have ended since one looked."""
        try:
            os.kill(self.pid, signal_number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout: float = 60) -> Result:
        """Its result; fails, and kills it, if it has not ended after `timeout` seconds."""
        self._process.join(timeout)
        seconds = time.monotonic() - self._start
        if self._process.is_alive():
            self._process.kill()
            raise AssertionError(f"still running after {timeout} s: {self.stderr.read_text()}")
        return Result(
            self._process.exitcode, self.stdout.read_text(), self.stderr.read_text(), seconds
        )


def run(folder, script, *arguments, **settings) -> Result:
    """A command run to its end."""
    return Command(folder, script, *arguments, **settings).wait()


def _run(script, arguments, stdout, stderr, folder, environment, prepare):
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    # Anew, since the names may be bound to what the server had for them.
    sys.stdout, sys.stderr = open(1, "w", encoding="utf-8"), open(2, "w", encoding="utf-8")
    sys.__stdout__ = sys.stdout
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [script, *arguments]
    gptjax.STARTED = time.perf_counter()
    if prepare is not None:
        prepare()
    runpy.run_path(script, run_name="__main__")
