"""A nanoGPT checkout: its own scripts, run and timed with the settings of one of our configs."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import ml_collections
import numpy as np

from gptjax.config.config import flat
from gptjax.config.knobs import KNOBS
from gptjax.config.nanogpt_flags import flags_of
from gptjax.data import corpus, splits
from gptjax.speed.process import Finished, child_process, failure_of, peak_bytes, run
from gptjax.system.errors import UserError
from gptjax.system.files import temporary_folder

# "iter 12: loss 2.1, time 31.08ms, mfu 0.07%"
_ITERATION = re.compile(r"^iter (\d+): loss .*, time ([\d.]+)ms")

# Of nanoGPT's datasets the one that is characters, with a vocabulary of its own.
_SHAKESPEARE = "shakespeare_char"


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
        ours = splits.split(text, splits.tokenizer(text, config.data), config.data).train
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
        """Its train.py, held still except while updates are timed."""
        endless = {"max_iters": 10**9, "eval_interval": 10**9, "eval_iters": 1}
        with temporary_folder() as out_dir:
            command = self._train_command(config, out_dir, endless)
            with child_process(command, self._folder, {}) as (child, errors):
                yield Stepping(
                    child,
                    lambda code: failure_of(command, code, errors),
                    updates_per_line=self._log_interval,
                )

    def _train_command(
        self, config: ml_collections.ConfigDict, out_dir: str | Path, changes: Mapping[str, object]
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
    """A running train.py of nanoGPT; its process sleeps unless it is timed."""

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

    def time_updates(self, n_updates: int) -> float:
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


def nanogpt_flags(config: ml_collections.ConfigDict) -> dict[str, object]:
    """nanoGPT's flags for the same experiment.

    Raises:
      UserError: for a knob that nanoGPT has nothing like.
    """
    values = flat(config)
    for name, knob in KNOBS.items():
        if knob.nanogpt is None and values[name] != knob.default:
            raise UserError(name, values[name], "nanoGPT has no such thing", "Give --peer_config.")
    kind, _, argument = config.data.source.partition(":")
    # Joined to its own data folder, which an absolute path is not.
    dataset = str(Path(argument).absolute()) if kind == "tokens" else _SHAKESPEARE
    return flags_of(config) | {"dataset": dataset, "always_save_checkpoint": False}
