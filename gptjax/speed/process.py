"""Commands run and timed from outside, and the memory that they take."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gptjax.system import signals
from gptjax.system.errors import RunError, UserError

_SCRIPTS = Path(__file__).parents[2] / "scripts"

# Both programs' evaluation lines: "step 250: train …, val 2.40 ± …" and "… val loss 2.40".
_EVALUATION = re.compile(r"^step (\d+): train .*\bval (?:loss )?([\d.]+)")

# For a process that was told to end.
_SECONDS_TO_END = 10.0


@dataclasses.dataclass(frozen=True)
class Finished:
    """A command that ended: wall seconds, lines with their times, peak resident bytes."""

    seconds: float
    lines: list[tuple[float, str]]
    peak_bytes: int

    def first(self, pattern: str) -> float:
        """Seconds after the start at which the first line that matches was printed.

        Raises:
          RunError: if there is none.
        """
        for seconds, line in self.lines:
            if re.search(pattern, line):
                return seconds
        raise RunError(f"the command printed no line like {pattern!r}")

    def evaluations(self) -> list[tuple[float, int, float]]:
        """(seconds after the start, step, val) of every evaluation printed, nats per token."""
        matches = [(seconds, _EVALUATION.match(line)) for seconds, line in self.lines]
        return [(s, int(match[1]), float(match[2])) for s, match in matches if match]


def run(
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] = {},
    limit: float | None = None,
    log: Path | None = None,
) -> Finished:
    """Runs a command to its end, or for `limit` seconds, and times each line of its output.

    What it says, errors included, is kept in the file `log`.

    Raises:
      RunError: if it fails, with the last thing it said, or is not done in time.
    """
    start = time.perf_counter()
    with child_process(arguments, cwd, environment) as (child, errors), _ended_after(limit, child):
        assert child.stdout is not None
        lines = [(time.perf_counter() - start, line.rstrip("\n")) for line in child.stdout]
        if log:
            errors.seek(0)
            said = "\n".join(line for _, line in lines)
            log.write_text(f"{' '.join(arguments)}\n{said}\n{errors.read()}")
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            if limit is not None and seconds >= limit:
                raise RunError(f"{' '.join(arguments[:2])} was not done within {limit:.0f} s")
            raise failure_of(arguments, child.returncode, errors, [line for _, line in lines])
    return Finished(seconds, lines, usage.ru_maxrss * 1024)


@contextlib.contextmanager
def _ended_after(seconds: float | None, child: subprocess.Popen[str]) -> Iterator[None]:
    """Asks a process to end, so that it can end those that it started; then makes it."""
    timers = []
    if seconds is not None:
        timers.append(threading.Timer(seconds, child.terminate))
        timers.append(threading.Timer(seconds + _SECONDS_TO_END, child.kill))
    for timer in timers:
        timer.start()
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()


def script(name: str, *arguments: str) -> list[str]:
    """The command line of one of our scripts."""
    return [sys.executable, str(_SCRIPTS / f"{name}.py"), *arguments]


def peak_bytes(pid: int) -> int:
    """Most resident memory of a process so far; 0 where the system does not tell (Linux does)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def gpu_bytes_used() -> int:
    """Memory in use on the first GPU, by whatever process; 0 where nvidia-smi does not tell."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        return int(said.split()[0]) * 2**20
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return 0


@contextlib.contextmanager
def child_process(arguments, cwd, environment, *, is_talked_to=False):
    """A process, and the file its errors go to; it does not outlive the block.

    One that is talked to has a pipe for its stdin; any other has nothing to read there.
    """
    with tempfile.TemporaryFile("w+") as errors:
        try:
            child = subprocess.Popen(
                list(arguments),
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.PIPE if is_talked_to else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError("command", arguments[0], f"cannot be run: {reason}") from error

        try:
            with signals.tidied(functools.partial(_make_end, child, seconds=0.5)):
                yield child, errors
        finally:
            if child.returncode is None:
                _make_end(child, seconds=_SECONDS_TO_END)
                child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # What was still to be written to it.
                        pipe.close()


def _make_end(child: subprocess.Popen[str], *, seconds: float) -> None:
    """Asks a process to end, so that it can end what it has started; then kills it."""
    deadline = time.monotonic() + seconds
    # Popen's own methods would take the exit code from who waits for it.
    with contextlib.suppress(ChildProcessError, ProcessLookupError):
        os.kill(child.pid, signal.SIGTERM)
        os.kill(child.pid, signal.SIGCONT)  # Asleep it would not hear.
        while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if time.monotonic() > deadline:
                os.kill(child.pid, signal.SIGKILL)
            time.sleep(0.01)


def failure_of(
    arguments: Sequence[str], code: int, errors, printed: Sequence[str] = ()
) -> RunError:
    """The error for a command that ended with a code, with the last thing it said."""
    errors.seek(0)
    said = [line for line in (*printed, *errors.read().splitlines()) if line.strip()]
    last = said[-1] if said else "it said nothing"
    return RunError(f"{' '.join(arguments[:2])} ended with {code}: {last}")


@contextlib.contextmanager
def busy_cores(n_cores: int) -> Iterator[None]:
    """While inside, as many processes as that keep one core busy each."""
    with contextlib.ExitStack() as stack:
        for _ in range(n_cores):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
            stack.enter_context(signals.tidied(process.kill))
        yield
