"""Commands run and timed from outside: our scripts, and those of a nanoGPT checkout."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import queue
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from gptjax.config.config import decay_iters, default_config
from gptjax.data import corpus
from gptjax.system.errors import RunError, UserError

_SCRIPTS = Path(__file__).parent.parent.parent / "scripts"

# "iter 12: loss 2.1, time 31.08ms, mfu 0.07%"
_ITERATION = re.compile(r"^iter (\d+): loss .*, time ([\d.]+)ms")

# Both programs' evaluation lines: "step 250: train …, val 2.40 ± …" and "… val loss 2.40".
_EVALUATION = re.compile(r"^step (\d+): train .*\bval (?:loss )?([\d.]+)")

# For a process that was told to end.
_SECONDS_TO_END = 10.0

# Of nanoGPT's datasets the one that is characters, with a vocabulary of its own.
_SHAKESPEARE = "shakespeare_char"

# Knobs that have no counterpart in nanoGPT: there they are as by default.
_NOT_IN_NANOGPT = (
    "model.norm",
    "model.position",
    "model.mlp",
    "model.qk_norm",
    "model.tie_embeddings",
    "model.token_shift",
    "model.zero_residual",
    "optim.name",
)


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
    with _child(arguments, cwd, environment) as (child, errors), _ended_after(limit, child):
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
            raise _failed(arguments, child.returncode, errors, [line for _, line in lines])
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


class NanoGPT:
    """A checkout of nanoGPT whose own scripts are run, with the settings of one of our configs.

    Its repository stays where it is; what it writes goes to a folder of ours.
    """

    def __init__(self, folder: str, python: str, *, is_compiled: bool, device: str = "cpu"):
        """Raises UserError if `folder` is no checkout; `device` is "cpu" or "cuda"."""
        self._folder, self._python, self._is_compiled = Path(folder), python, is_compiled
        self._device = device
        for name in ("train.py", "sample.py", "model.py"):
            if not (self._folder / name).is_file():
                raise UserError("--nanogpt", folder, f"has no {name}", "Give a nanoGPT checkout.")

    def check(self, config: ml_collections.ConfigDict) -> None:
        """Raises UserError unless it can do the same on the same text, token for token."""
        dataset = str(nanogpt_flags(config)["dataset"])
        if dataset != _SHAKESPEARE:
            return  # The very same files.
        text = corpus.load(config.data.source, fallback="")
        ours = corpus.split(text, corpus.tokenizer(text), config.data).train
        data = self._folder / "data" / dataset
        prepare = f"Run {data / 'prepare.py'} with its Python first."
        try:
            theirs = np.fromfile(data / "train.bin", np.uint16)
        except OSError:
            raise UserError("--nanogpt", data, "is not prepared", prepare) from None
        if not np.array_equal(theirs, ours):
            raise UserError("--nanogpt", data, "holds another text than --config", prepare)

    def train(self, config: ml_collections.ConfigDict, out_dir: str) -> Finished:
        """Its train.py, run to the end of the config's recipe."""
        return run(self._train_command(config, out_dir, {}), cwd=self._folder)

    def train_once(self, config: ml_collections.ConfigDict, out_dir: str) -> Finished:
        """The same for one update, after which its checkpoint is there to sample from."""
        once = {"max_iters": 1, "eval_interval": 1, "always_save_checkpoint": True}
        return run(self._train_command(config, out_dir, once), cwd=self._folder)

    def sample(self, out_dir: str, *, n_tokens: int, dtype: str) -> Finished:
        """Its sample.py on what training left in out_dir: ten samples, as sample.py has."""
        flags = {
            "out_dir": out_dir,
            "num_samples": 10,
            "max_new_tokens": n_tokens,
            "device": self._device,
            "dtype": dtype,
            "compile": self._is_compiled,
        }
        return run(self._command("sample.py", flags), cwd=self._folder)

    @contextlib.contextmanager
    def stepping(self, config: ml_collections.ConfigDict) -> Iterator[Stepping]:
        """Its train.py, held still except during bursts of updates."""
        endless = {"max_iters": 10**9, "eval_interval": 10**9, "eval_iters": 1}
        with tempfile.TemporaryDirectory() as out_dir:
            command = self._train_command(config, out_dir, endless)
            with _child(command, self._folder, {}) as (child, errors):
                yield Stepping(
                    child,
                    lambda code: _failed(command, code, errors),
                    updates_per_line=self._log_interval,
                )

    def _train_command(
        self, config: ml_collections.ConfigDict, out_dir: str, changes: Mapping[str, object]
    ) -> list[str]:
        flags = nanogpt_flags(config) | {
            "out_dir": out_dir,
            "device": self._device,
            "compile": self._is_compiled,
            "log_interval": self._log_interval,
        }
        return self._command("train.py", {**flags, **changes})

    @property
    def _log_interval(self) -> int:
        # On a GPU each line waits for the card: there nanoGPT's own interval.
        return 1 if self._device == "cpu" else 10

    def _command(self, name: str, flags: Mapping[str, object]) -> list[str]:
        return [self._python, name, *(f"--{flag}={value}" for flag, value in flags.items())]


class Stepping:
    """A running train.py of nanoGPT; its process sleeps between bursts."""

    def __init__(self, child: subprocess.Popen[str], failure, *, updates_per_line: int):
        self._child, self._failure, self._updates_per_line = child, failure, updates_per_line
        # Of each line that tells of an update: its time, and the seconds it says.
        self._lines: queue.Queue[tuple[float, float] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._take(3)  # Imports, compilation and the first, slow updates.
        self._hold()

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            match = _ITERATION.match(line)
            if match:
                self._lines.put((time.perf_counter(), float(match[2]) / 1e3))
        self._lines.put(None)

    def _take(self, n: int) -> list[tuple[float, float]]:
        taken = []
        for _ in range(n):
            line = self._lines.get()
            if line is None:
                raise self._failure(self._child.wait())
            taken.append(line)
        return taken

    def _hold(self) -> None:
        self._child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        # What it said last is read by then, and a GPU has done what it was given.
        time.sleep(0.01 if self._updates_per_line == 1 else 0.5)
        while not self._lines.empty():
            self._lines.get()

    def burst(self, n_updates: int) -> float:
        """Seconds of an update, on average over `n_updates` or somewhat more."""
        self._child.send_signal(signal.SIGCONT)
        ((start, _),) = self._take(1)  # The update it was held in.
        lines = self._take(-(-n_updates // self._updates_per_line))
        self._hold()
        if self._updates_per_line == 1:
            return statistics.fmean(seconds for _, seconds in lines)
        # What a line says is of one update, which waits for those before it: the lines' times tell.
        return (lines[-1][0] - start) / (len(lines) * self._updates_per_line)

    def peak_bytes(self) -> int:
        """Most resident memory so far; 0 where the system does not tell."""
        return peak_bytes(self._child.pid)


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


def nanogpt_flags(config: ml_collections.ConfigDict) -> dict[str, object]:
    """nanoGPT's flags for the same experiment.

    Raises:
      UserError: for a knob that nanoGPT has nothing like.
    """
    default = default_config()
    for name in _NOT_IN_NANOGPT:
        section, _, key = name.partition(".")
        if config[section][key] != default[section][key]:
            raise UserError(
                name, config[section][key], "nanoGPT has no such thing", "Give --peer_config."
            )
    model, optim, train = config.model, config.optim, config.train
    kind, _, argument = config.data.source.partition(":")
    return {
        # Joined to its own data folder, which an absolute path is not.
        "dataset": str(Path(argument).absolute()) if kind == "tokens" else _SHAKESPEARE,
        "dtype": model.dtype,
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "block_size": model.block_size,
        "dropout": model.dropout,
        "bias": model.bias,
        "batch_size": train.batch_size // train.grad_accum_steps,
        "gradient_accumulation_steps": train.grad_accum_steps,
        "max_iters": train.max_iters,
        "learning_rate": optim.learning_rate,
        "min_lr": optim.min_lr,
        "decay_lr": optim.schedule == "cosine",
        "warmup_iters": optim.warmup_iters,
        "lr_decay_iters": decay_iters(config),
        "beta1": optim.beta1,
        "beta2": optim.beta2,
        "weight_decay": optim.weight_decay,
        "grad_clip": optim.grad_clip,
        "eval_interval": config.eval.interval,
        "eval_iters": config.eval.iters if config.eval.mode == "random" else 20,
        "always_save_checkpoint": False,
    }


@contextlib.contextmanager
def _child(arguments, cwd, environment):
    """A process, and the file its errors go to; it does not outlive the block."""
    with tempfile.TemporaryFile("w+") as errors:
        try:
            child = subprocess.Popen(
                list(arguments),
                cwd=cwd,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
            )
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise UserError("command", arguments[0], f"cannot be run: {reason}") from error
        try:
            yield child, errors
        finally:
            if child.returncode is None:
                # Asked first, so that it can end what it started; asleep it would not hear.
                child.terminate()
                child.send_signal(signal.SIGCONT)
                try:
                    child.wait(_SECONDS_TO_END)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            assert child.stdout is not None
            child.stdout.close()


def _failed(arguments: Sequence[str], code: int, errors, printed: Sequence[str] = ()) -> RunError:
    errors.seek(0)
    said = [line for line in (*printed, *errors.read().splitlines()) if line.strip()]
    last = said[-1] if said else "it said nothing"
    return RunError(f"{' '.join(arguments[:2])} ended with {code}: {last}")
