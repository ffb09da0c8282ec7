"""The program that is timed is the one that trains: it makes updates, on the CPUs it was given."""

import io
import json

import compiled_once
import jax
import numpy as np
import tiny

from gptjax.config.config import flat
from gptjax.speed import timed_update
from gptjax.speed.timed_update import TimedUpdate


def test_it_makes_updates():
    timed = TimedUpdate(tiny.config(model__dropout=0.25), tiny.VOCABULARY)
    assert int(timed._state.step) == 1
    assert 0 < timed.seconds(3) < 60
    assert int(timed._state.step) == 4
    params = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(timed._state.params)])
    assert np.isfinite(params).all()


def test_it_does_what_its_input_says(monkeypatch, capsys):
    compiled_once.within(monkeypatch, timed_update)
    chosen = []
    monkeypatch.setattr(timed_update.os, "sched_setaffinity", lambda pid, cpus: chosen.append(cpus))
    monkeypatch.setattr(timed_update.cache, "keep_compiled_programs", lambda: None)
    asked = {"cpus": [3, 5], "config": flat(tiny.config()), "vocab_size": tiny.VOCABULARY}
    monkeypatch.setattr(timed_update.sys, "stdin", io.StringIO(json.dumps(asked) + "\n2\n1\n"))
    timed_update.main()
    assert chosen == [[3, 5]]
    seconds = [float(line) for line in capsys.readouterr().out.splitlines()]
    assert len(seconds) == 3 and all(0 < each < 60 for each in seconds)
