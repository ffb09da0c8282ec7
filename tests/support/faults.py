"""What can go wrong within a process, each at a moment of one's choice.

Tests hand these functions to forked.Command as `prepare`, bound to their arguments.
"""

import builtins
import errno
import functools
import io
import itertools
import os
import resource
import shutil
import threading
import time
from pathlib import Path

import jax
import numpy as np
from orbax.checkpoint import CheckpointManager

from gptjax.device import flops, peak
from gptjax.run import checkpoint, directory, retention, runlog
from gptjax.run.program import CompiledTrainer
from gptjax.run.report import Report
from gptjax.system import files
from gptjax.system.programs import Source

# The function in whose midst a fault comes; whether its own work is done before the fault.
MOMENTS = {
    "compile": (Source, "lower", False),
    "update": (CompiledTrainer, "train", False),
    "evaluation": (CompiledTrainer, "losses", False),
    "save": (CheckpointManager, "save", True),  # The arrays are being written in the background.
    "between": (Report, "updates", False),
    "space check": (retention, "check_room", True),
}

CRASHED = 9


def prepared(*faults):
    """Lets all faults loose, in a process that does not measure the machine's speed.

    That and the compiling of small things, which is done once for all, take half of a start's
    time, and no promise here depends on them.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    peak.matmul_rate = lambda device, dtype, **settings: 1e11
    flops.update_flops = lambda *arguments, **settings: 1e5
    for fault in faults:
        fault()


def full_output():
    """What is printed finds a full disk; the machine's speed is not measured."""
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
    prepared()


def note(journal, *words):
    """Adds a line to a file that tells the test what has happened."""
    with open(journal, "a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def noting_saves(journal):
    """Notes each step whose writing has begun."""
    save = CheckpointManager.save

    def noting(self, step, **settings):
        started = save(self, step, **settings)
        note(journal, "saving", step)
        return started

    CheckpointManager.save = noting


def at(moment, n, action, journal=os.devnull):
    """Calls `action` in the n-th call of the moment's function."""
    owner, name, is_after = MOMENTS[moment]
    original, calls = getattr(owner, name), itertools.count(1)

    def disturbed(*arguments, **settings):
        is_due = next(calls) == n
        result = original(*arguments, **settings) if is_after else None
        if is_due:
            note(journal, "fault", time.time())
            action()
        return result if is_after else original(*arguments, **settings)

    setattr(owner, name, disturbed)


def bug():
    raise ZeroDivisionError("a bug")


def leave():
    raise SystemExit(3)


def signalled(number, *others):
    """Signals arrive, one after the other, whatever the first ones bring about."""
    try:
        os.kill(os.getpid(), number)
        time.sleep(0.1)
    finally:
        if others:
            signalled(*others)


def blocked_in_python():
    """Signal handlers run and change nothing."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(30)


def blocked_in_c():
    """A computation of many minutes: no signal handler of Python's runs before it ends."""
    numbers = jax.numpy.ones((200, 200))
    turn = jax.jit(lambda x: jax.lax.fori_loop(0, 10**8, lambda _, y: numbers @ y / 200, x))
    turn(numbers).block_until_ready()


def fill(folder, *, leave=0):
    """Uses up the disk that `folder` is on, but for `leave` bytes."""
    room = shutil.disk_usage(folder).free - leave
    with open(Path(folder) / "filler", "wb", buffering=0) as file:
        try:
            while room > 0:
                room -= file.write(bytes(min(room, 2**20)))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def limit_files(size):
    """From now on no file may grow beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def saves_end_first():
    """No update is made before the save in the background has ended, well or not."""
    train, save = CompiledTrainer.train, CheckpointManager.save
    managers = []

    def saving(self, step, **settings):
        managers[:] = [self]
        return save(self, step, **settings)

    def waiting(self, *arguments):
        while managers and managers[0].is_saving_in_progress():
            time.sleep(0.01)
        return train(self, *arguments)

    CheckpointManager.save, CompiledTrainer.train = saving, waiting


def failing_commit(step, *, written_is_deleted):
    """What commits a step in the background, the renaming of its folder, fails."""
    rename = os.rename

    def failing(source, target, **settings):
        if (Path(target).parent.name, Path(target).name) == ("checkpoints", str(step)):
            if not written_is_deleted:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            shutil.rmtree(source)
        return rename(source, target, **settings)

    os.rename = failing


def crash(folder, n, *, late, journal=os.devnull):
    """Ends the process at its n-th call that changes something below `folder`.

    Before the call, or if it is `late` after it; a line of the log is then written by half. What
    only reads is not counted: between two changes nothing differs. Notes every change in `journal`.
    """
    folder = os.path.abspath(folder)
    calls, lock = itertools.count(1), threading.Lock()

    def is_due(name):
        with lock:  # Orbax changes things from threads of its own.
            number = next(calls)
            note(journal, number, name)
            return number == n

    def is_below(path, dir_fd=None):
        if isinstance(path, int):
            return False
        if dir_fd is not None:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        return os.path.abspath(os.fspath(path)).startswith(folder)

    def crashing(module, name, changes):
        original = getattr(module, name)

        @functools.wraps(original)
        def wrapper(path, *arguments, **settings):
            is_counted = changes(*arguments) and is_below(path, settings.get("dir_fd"))
            if not is_counted or not is_due(name):
                return original(path, *arguments, **settings)
            try:
                if late:
                    original(path, *arguments, **settings)
            finally:
                os._exit(CRASHED)

        setattr(module, name, wrapper)

    for name in ("rename", "replace", "unlink", "remove", "rmdir", "mkdir"):
        crashing(os, name, lambda *arguments: True)
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    crashing(os, "open", lambda flags, *others: flags & writing)

    class Torn(io.FileIO):
        def write(self, line):
            if is_due("write"):
                if late:
                    super().write(line[: len(line) // 2])
                os._exit(CRASHED)
            return super().write(line)

    open_file = builtins.open

    @functools.wraps(open_file)
    def opening(path, mode="r", *arguments, **settings):
        if not set(mode) & set("wax+") or not is_below(path):
            return open_file(path, mode, *arguments, **settings)
        if is_due("open"):
            try:
                if late:
                    open_file(path, mode, *arguments, **settings)
            finally:
                os._exit(CRASHED)
        is_log = mode == "ab" and settings.get("buffering") == 0
        return Torn(path, "ab") if is_log else open_file(path, mode, *arguments, **settings)

    builtins.open = io.open = opening


def live(run_dir, state, description, vals, journal):
    """What a run does to its directory, without the arithmetic: a record and a save for each step.

    `vals` has the val loss of each step; it goes on behind the newest that is there. Notes the
    steps that are known to be on the disk.
    """
    with directory.locked(run_dir):
        newest = _newest(run_dir)
        files.write_atomically(run_dir / "config.json", "{}\n")
        log = runlog.RunLog(run_dir, resumed_step=newest, tensorboard=False)
        with log, checkpoint.Checkpoints(run_dir, keep=1) as checkpoints:
            before = newest
            for step, val_nats in vals.items():
                if newest is not None and step <= newest:
                    continue
                log.append("train", step=step, loss=1.0 / step)
                at_step = state.replace(step=np.asarray(step, np.int32))
                checkpoints.save(at_step, description, val_nats=val_nats)
                if before is not None:  # Each save waits for the one before.
                    note(journal, "saved", before)
                before = step
        note(journal, "saved", before)


def live_until_crash(n, late, changes, *life):
    """`live`, with a crash at the n-th change of the run directory."""
    crash(life[0], n, late=late, journal=changes)
    live(*life)


def _newest(run_dir):
    if not (run_dir / "checkpoints").is_dir():
        return None
    with checkpoint.Checkpoints(run_dir, read_only=True) as checkpoints:
        return max(checkpoints.steps(), default=None)
