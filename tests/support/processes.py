"""train.py as several processes of one run, on this machine."""

import os
import random
import socket
import time

import compiling
import forked
import numpy as np
import runs
import tiny

from gptjax.system import hosts

# How long anything may take on a machine that others use as well: nothing here is a race.
SECONDS = 600

CONFIG = """
from gptjax.config.config import default_config

def get_config():
    config = default_config()
    config.update(
        data=dict(source="text:{text}"),
        model=dict(n_layer=1, n_head=2, n_embd=8, block_size=5, dropout=0.2),
        optim=dict(warmup_iters=2),
        train=dict(max_iters=18, batch_size=8, updates_per_dispatch=1),
        eval=dict(interval=5, max_tokens=50),
        checkpoint=dict(interval=4),
        log=dict(interval=3),
    )
    return config
"""


class Several:
    """Starts train.py as so many processes of one run."""

    def __init__(self, make_folder):
        self._make_folder, self.folder = make_folder, make_folder("files")
        self.config, text = self.folder / "config.py", self.folder / "text.txt"
        self.config.write_text(CONFIG.format(text=text))
        text.write_text(tiny.TEXT)
        # How well a program is optimized makes no difference to who is gone.
        own = {"GPTJAX_CACHE_DIR": str(self.folder), "XLA_FLAGS": compiling.LITTLE}
        self.environment = {**os.environ, **own}

    def start(self, n, out_dir, *knobs, own=None, only=None, wait=SECONDS, port=0, prepare=None):
        """The processes, running; `own` are arguments of single ones, `only` those that start.

        `prepare` is called in each before the script.
        """
        port = port or free_port()
        place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={n}", f"--wait={wait}"]
        return [
            self._command(
                out_dir,
                knobs,
                *place,
                f"--process_id={index}",
                *(own or {}).get(index, ()),
                prepare=prepare,
            )
            for index in (range(n) if only is None else only)
        ]

    def run(self, n, out_dir, *knobs, **settings):
        """What the processes left."""
        return ends(self.start(n, out_dir, *knobs, **settings))

    def one(self, out_dir, n_devices, *knobs):
        """The run of one process that has as many devices."""
        found = self._command(out_dir, (f"mesh.cpu_devices={n_devices}", *knobs)).wait(SECONDS)
        assert found.code == 0, found.stderr

    def _command(self, out_dir, knobs, *arguments, prepare=None):
        knobs = [f"--config.{knob}" for knob in (f"out_dir={out_dir}", *knobs)]
        arguments = (f"--config={self.config}", *knobs, *arguments)
        logs = self._make_folder("logs")
        settings = dict(environment=self.environment, prepare=prepare)
        return forked.Command(logs, "train", *arguments, **settings)


def in_haste():
    """In a process of train.py: when it cannot end by itself, it does not try for long."""
    hosts._GRACE_SECONDS = 3.0


def ends(commands):
    return [command.wait(SECONDS) for command in commands]


def free_port():
    """A port that nobody listens on, of those that are not given out to whoever asks for any."""
    while True:
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", random.SystemRandom().randrange(10_000, 32_768)))
            except OSError:
                continue
            return free.getsockname()[1]


def wait_until(is_so, commands):
    """Returns once `is_so()`; fails when a command ends before."""
    until = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < until and all(c.is_running() for c in commands), [
            command.stderr.read_text() for command in commands
        ]
        time.sleep(0.05)


def newest_listed(out_dir):
    """The newest step that has a checkpoint, −1 without any; while others write."""
    names = [path.name for path in (out_dir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=-1)


def numbers(out_dir):
    """Losses, gradient norms and evaluations, by step."""
    names = ("loss", "grad_norm", "train_loss", "val_loss")
    found = {(r["kind"], r["step"]): [r.get(n, 0) for n in names] for r in runs.history(out_dir)}
    return list(found), np.array(list(found.values()))


def assert_same_run(out_dir, other):
    """To rounding: XLA may add up gradients in another order."""
    found, wanted = numbers(out_dir), numbers(other)
    assert found[0] == wanted[0]
    np.testing.assert_allclose(found[1], wanted[1], rtol=2e-5)
