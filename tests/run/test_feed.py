"""Tokens on the device and tokens gathered for each call: the same updates, to the bit."""

import json
import threading
import time

import forked
import numpy as np
import pytest
import runs
import tiny

from gptjax.data import token_files
from gptjax.run import feed
from gptjax.system.errors import UserError

VOCABULARY = 50


def write(folder, n_train=1009, n_val=211):
    """A folder of token files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, n_tokens in (("train", n_train), ("val", n_val)):
        rng.integers(0, VOCABULARY, n_tokens).astype("<u2").tofile(folder / f"{name}.bin")
    meta = {"vocab_size": VOCABULARY, "name": "fifty", "entropy_nats": None}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def settings(folder, **knobs):
    model = dict(n_layer=1, n_head=2, n_embd=6, block_size=5)
    values = {f"model__{name}": value for name, value in model.items()}
    values |= dict(train__max_iters=9, checkpoint__interval=4, data__source=f"tokens:{folder}")
    return tiny.config(**{**values, "train__batch_size": 12, **knobs})


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    """A run whose tokens lie on the device."""
    folder = tmp_path_factory.mktemp("resident")
    write(folder / "tokens")
    assert runs.start(settings(folder / "tokens"), folder / "run") == 0
    return folder


@pytest.fixture
def nothing_fits(monkeypatch):
    """No tokens stay on a device, and of windows few go there together."""
    monkeypatch.setattr(feed, "_MOST_RESIDENT_BYTES", 0)
    monkeypatch.setattr(feed, "_CALL_BYTES", 4 * 12 * 6 * 2)
    monkeypatch.setattr(feed, "_MOST_IN_BLOCK", 3)


@pytest.mark.parametrize("knobs", [{}, {"train__grad_accum_steps": 2, "mesh__data": 2}])
def test_gathered_tokens_give_the_same_run(resident, tmp_path, nothing_fits, monkeypatch, knobs):
    if knobs:
        with monkeypatch.context() as here:
            here.setattr(feed, "_MOST_RESIDENT_BYTES", 2**30)
            assert runs.start(settings(resident / "tokens", **knobs), tmp_path / "resident") == 0
    config = settings(resident / "tokens", **knobs)
    with runs.stopped_after(5):  # In the midst of a block that was gathered.
        assert runs.start(config, tmp_path / "run") == 128 + 15
    assert runs.start(config, tmp_path / "run") == 0
    wanted = tmp_path / "resident" if knobs else resident / "run"
    found = runs.newest(tmp_path / "run")
    tiny.assert_same_bits(found.state.params, runs.newest(wanted).state.params)
    assert runs.history(tmp_path / "run") == runs.history(wanted)


def test_an_id_that_is_none_is_told_when_it_is_met(tmp_path, nothing_fits, monkeypatch):
    folder = write(tmp_path / "tokens")
    monkeypatch.setattr(token_files, "_MOST_READ", 0)
    monkeypatch.setattr(token_files, "_N_PARTS", 1)
    monkeypatch.setattr(token_files, "_PART", 2)
    ids = np.fromfile(folder / "train.bin", "<u2")
    ids[1:] = VOCABULARY
    ids.tofile(folder / "train.bin")
    words = "tokens:fifty: train has the id 50, and the vocabulary 50 ids; prepare it anew"
    with pytest.raises(feed.RunError, match=words):
        runs.start(settings(folder), tmp_path / "run")


def test_followers_are_counted_of_what_lies_on_the_device_alone(tmp_path, nothing_fits):
    config = settings(write(tmp_path / "tokens"), model__followers=2)
    with pytest.raises(UserError, match="at most 1 GiB"):
        runs.start(config, tmp_path / "run")


def test_what_is_asked_for_next_is_made_meanwhile():
    made, done = [], threading.Event()

    def make(first, n_updates):
        made.append((first, n_updates))
        if first >= 8:
            done.set()
        return np.arange(first, first + n_updates)

    ahead = feed.Ahead(make, 4)
    assert ahead.take(5, 3).tolist() == [5, 6, 7]
    assert done.wait(30) and made == [(4, 4), (8, 4)]
    assert ahead.take(8, 2).tolist() == [8, 9]
    assert ahead.take(10, 5).tolist() == [10, 11, 12, 13, 14]
    assert ahead.take(2, 3).tolist() == [2, 3, 4]  # Whatever is asked for.
    assert sorted(set(made)) == [(0, 4), (4, 4), (8, 4), (12, 4), (16, 4)]


def test_how_much_goes_to_the_devices():
    class Ids:
        def __init__(self, n_tokens):
            self.nbytes, self.dtype, self._n = 2 * n_tokens, np.dtype(np.uint16), n_tokens

        def __len__(self):
            return self._n

    config = settings("x", train__batch_size=480, model__block_size=1023)
    for n_tokens, most in ((1000, 99), (10**10, 2)):
        inputs = feed.Inputs(None, None, feed.Splits(Ids(n_tokens), Ids(10), None), "")
        assert feed.most_updates(config, inputs, 99) == most
        n_bytes = 2 * n_tokens + 20 if most == 99 else 2 * 480 * 1024 * 2
        assert feed.device_bytes(config, inputs, most) == n_bytes


@pytest.mark.slow
def test_twenty_gigabytes_are_trained_on_in_little_memory(tmp_path):
    """The file is a hole: it takes no space."""
    folder = write(tmp_path / "tokens", n_val=20_011)
    with open(folder / "train.bin", "r+b") as file:
        file.truncate(20 * 10**9)
    model = ("n_layer=4", "n_head=4", "n_embd=128", "block_size=256")
    knobs = [f"--config.model.{knob}" for knob in model]
    knobs += ["--config.train.max_iters=20", "--config.train.batch_size=12"]
    knobs += [f"--config.data.source=tokens:{folder}", f"--config.out_dir={tmp_path / 'run'}"]
    knobs += ["--config.eval.max_tokens=2048"]
    config = forked.SCRIPTS.parent / "configs" / "shakespeare_char.py"
    command = forked.Command(tmp_path, "train", f"--config={config}", *knobs)
    most_kib = 0
    while command.is_running():
        try:
            status = open(f"/proc/{command.pid}/status").read()
            most_kib = max(most_kib, int(status.split("VmHWM:")[1].split()[0]))
        except (OSError, IndexError):
            pass  # It has just ended.
        time.sleep(0.1)
    ended = command.wait(1)
    assert (ended.code, ended.stderr) == (0, "")
    assert 0 < most_kib * 1024 < 1.5e9
