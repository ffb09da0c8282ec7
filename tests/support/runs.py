"""Runs in this process, and what is compared of them."""

import contextlib
import os
import signal
import time
from unittest import mock

import tiny

from gptjax.config.config import set_knob
from gptjax.data import preparation
from gptjax.device import flops, peak
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.runlog import read_records
from gptjax.train import Trainer, train


def settings(folder, **knobs):
    """A config of a few updates on a text in `folder`; knobs are given as model__n_layer=2."""
    path = folder / "text.txt"
    if not path.exists():
        path.write_text(tiny.TEXT)
    model = dict(n_layer=1, n_head=2, n_embd=6, block_size=5, dropout=0.2)
    values = {f"model__{name}": value for name, value in model.items()}
    return tiny.config(**{**values, "data__source": f"text:{path}", **knobs})


def start(config, out_dir, overrides=()):
    """The exit code of train."""
    config = config.copy_and_resolve_references()
    set_knob(config, "out_dir", str(out_dir))
    with unmeasured():
        return train(config, overrides)


@contextlib.contextmanager
def unmeasured():
    """While inside, no speed is measured and no FLOPs are counted: longer than a run of a test."""
    with (
        mock.patch.object(peak, "matmul_rate", lambda *arguments, **settings: 1e11),
        mock.patch.object(flops, "update_flops", lambda *arguments, **settings: 1e5),
    ):
        yield


@contextlib.contextmanager
def stopped_after(n_updates):
    """While inside, SIGTERM arrives during the update after which `n_updates` are done."""
    chunk = Trainer._make_updates

    def stopping(self, n):
        before = self.n_done
        chunk(self, n)
        if before < n_updates <= self.n_done:
            os.kill(os.getpid(), signal.SIGTERM)

    with mock.patch.object(Trainer, "_make_updates", stopping):
        yield


def steps(out_dir):
    """The steps that have a checkpoint."""
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        return checkpoints.steps()


def newest(out_dir):
    """The newest checkpoint."""
    with Checkpoints(out_dir, read_only=True) as checkpoints:
        return checkpoints.restore(checkpoints.steps()[-1])


def history(out_dir):
    """metrics.jsonl without times and without what is per process."""
    timed = {"seconds", "step_ms", "tokens_per_s", "flops_per_s", "mfu", "mfu_a100"}
    return [
        {name: value for name, value in record.items() if name not in timed}
        for record in read_records(out_dir / "metrics.jsonl")
        if record["kind"] in ("train", "eval")
    ]


def commit_often():
    """In a process of prepare.py: it makes sure of every block, and has time to be killed then."""
    preparation._COMMIT_SECONDS = 0.0
    commit = preparation.Preparation._commit

    def slowly(self, writer, place):
        commit(self, writer, place)
        time.sleep(0.05)

    preparation.Preparation._commit = slowly
