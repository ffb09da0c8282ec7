"""A checkpoint may come from anyone: what it says is checked, and nothing in it is run.

What a checkpoint says of itself is JSON with a crc32, which keeps accidents out but not people.
So the crc32 is made right again after each change here: what is tried is all that comes after it.
"""

import copy
import json
import multiprocessing
import os
import pickle
import random
import resource
import shutil
import socket
import time
import traceback
from pathlib import Path

import faults
import forked
import numpy as np
import pytest

from gptjax import evaluate, sample
from gptjax.config.config_file import load_config
from gptjax.run import evaluator, metadata, reader, resume
from gptjax.run.checkpoint import Checkpoints
from gptjax.run.inputs import read_inputs
from gptjax.run.ledger import Ledger
from gptjax.system.errors import RunError, UserError

GOLDEN = Path(__file__).parent.parent / "data" / "golden_0_1_0"
STEP = 400


def nested(depth: int) -> list:
    """A list in a list in a list …"""
    value: list = []
    for _ in range(depth):
        value = [value]
    return value


# Of every JSON type, what no honest description holds in most places.
VALUES = (
    *(None, True, False, -1, 0, 1, 3, 2**31, 2**62, 2**63, -(2**63), 10**400, -(10**400)),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "text", "x" * 1_000_000, "\ud800", "\x1b[2J", "\0", "../../../etc/passwd", "char"),
    *([], {}, [[]], [None], ["x"] * 10_000, [2**62, 2**62], {"": {}}, {"x": 1}, nested(400)),
)

# (path, value, path, value, …): where values matter for a reason of their own.
AIMED = (
    ("config/model.n_layer", 10**9),
    ("config/model.n_layer", 2_000),  # its arrays would fit into memory
    ("config/model.n_layer", 10**400),
    ("config/model.n_embd", 2 * 10**8),
    ("config/model.n_embd", 2 * 10**400),
    ("config/model.n_head", 10**400),
    ("config/model.block_size", 10**9),
    ("config/model.block_size", 10**15),
    (  # In itself all of this agrees; it is 300 GB.
        *("config/model.block_size", 2**31 - 1),
        *("leaves/params/wpe/embedding", [[2**31 - 1, 12], "float32", 0]),
        *("leaves/opt_state/1/0/mu/wpe/embedding", [[2**31 - 1, 12], "float32", 0]),
        *("leaves/opt_state/1/0/nu/wpe/embedding", [[2**31 - 1, 12], "float32", 0]),
    ),
    ("config/model.dropout", float("nan")),
    ("config/model.bias", 0),
    ("config/model.param_dtype", "bfloat16"),
    ("config/train.max_iters", 10**400),
    ("config/optim.lr_decay_iters", 2**40),
    ("config/optim.warmup_iters", 10**400),
    ("config/optim.learning_rate", 1e308),
    ("config/no.such.knob", 1),
    ("config/__class__", "os.system"),
    ("tokenizer/symbols", "".join(map(chr, range(0x10000, 0x10000 + 200_000)))),
    ("tokenizer/symbols", "a"),
    ("tokenizer/symbols", "a" * 23),
    ("tokenizer/symbols", "".join(map(chr, range(0xD800, 0xD800 + 23)))),
    ("tokenizer/symbols", "\0\n\x1b" + "".join(map(chr, range(200, 220)))),
    ("tokenizer/kind", "pickle"),
    ("tokenizer", {"kind": "ids", "vocab_size": 23}),
    ("tokenizer", {"kind": "ids", "vocab_size": 2**40}),
    ("tokenizer", {"kind": "bpe", "tokens": "\n" * 2**22, "merges": ""}),
    ("tokenizer", {"kind": "bpe", "tokens": "a\n" * 2**17, "merges": "a a\n" * 2**18}),
    ("tokenizer", {"kind": "bpe", "tokens": "\ud800", "merges": nested(300)}),
    (
        "tokenizer",
        {"kind": "bpe", "tokens": "\n".join(map(chr, range(33, 33 + 300))), "merges": ""},
    ),
    ("config/data.tokenizer", "/etc/passwd"),
    ("config/data.tokenizer", "gpt2"),
    ("config/model.vocab_multiple", 1000),
    ("leaves", {}),
    ("leaves/step", [[], "int32", 2**40]),
    ("leaves/step", [[], "object", 0]),
    ("leaves/step", [[2**62], "int32", 0]),
    ("leaves/params/wte/embedding", [[2**62, 2**62], "float32", 0]),
    ("leaves/params/wte/embedding", [[23, 12], "no such dtype", 0]),
    ("leaves/../../x", [[], "int32", 0]),
    ("ledger/step_ms_bins", {"999999999": 1}),
    ("ledger/step_ms_bins", {"-9999": 2**62, "9999": 2**62, "٣": 1}),
    ("ledger/seconds", {str(i): -1e299 for i in range(1000)}),
    ("corpus/floor_nats", 10**299),
    ("corpus/fallback_reason", "it cannot be had"),
    ("corpus/fallback_reason", "it cannot be had", "corpus/name", "tfds:tiny_shakespeare"),
    ("parent", {"init_from": 1, "step": 0, "corpus": ""}),
    ("parent", {"init_from": "/", "step": 0, "corpus": "", "more": nested(300)}),
    ("best", {"step": -1, "val_nats": float("nan")}),
    ("best/step", 2**62),
    ("overrides", ["model.n_embd", "\ud800", "\0"]),
    ("format", 10**400),
    ("step", STEP + 1),
    ("step", 2**40),
    ("step", 10**30),
)

# Not the JSON of an object that is signed; a number stands for a file of so many bytes, all zero.
RAW: tuple[bytes | int, ...] = (
    2**31,
    b"",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    b'{"format": 1}',
    b'{"crc32": 1e999}',
    b'{"a": [' + b"{}," * 1_000_000 + b"0]}",
)


def hostile(described: dict, number: int) -> tuple[str, bytes | int, int]:
    """What was done to a description, the file that says so, and the step it is put under."""
    made, words, step = copy.deepcopy(described), [], STEP
    if number < len(RAW):
        return f"raw {RAW[number]!r:.40}", RAW[number], STEP
    if number < len(RAW) + len(AIMED):
        changes = AIMED[number - len(RAW)]
        for path, value in zip(changes[::2], changes[1::2], strict=True):
            put(made, path.split("/", 1), value)
            words.append(f"{path} = {value!r:.40}")
            if path == "step" and value > STEP + 1:
                step = value  # It agrees with the folder's name.
    else:
        chance = random.Random(number)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            path = chance.choice([path for path in places(made) if path])
            kind = chance.choice(("put", "put", "put", "delete", "add"))
            value = chance.choice(VALUES)
            words.append(f"{kind} {'/'.join(path)} {value!r:.40}")
            if kind == "add":
                path = (*path[:-1], f"{path[-1]}2")
            put(made, path, copy.deepcopy(value), delete=kind == "delete")
    return "; ".join(words), json.dumps(metadata.with_checksum(made)).encode(), step


def places(value, path=()):
    """The path of everything in a JSON object."""
    yield path
    for key in value if isinstance(value, dict) else ():
        yield from places(value[key], (*path, key))


def put(parent, path, value, *, delete=False):
    *folders, last = path
    for name in folders:
        parent = parent[name]
    if delete:
        del parent[last]
    else:
        parent[last] = value


def start(plan):
    """What train.py takes from a checkpoint before it compiles anything."""
    read_inputs(plan.config, plan.checkpoint, is_fork=plan.is_fork)
    Ledger(plan.meta["ledger"] if plan.meta else None).to_json()


def used(names: tuple[str, ...]) -> list[str]:
    """The commands that accept the checkpoint in this folder, the network's arithmetic left out."""
    settings = dict(prompt="", prompt_file="", num_samples=1, max_new_tokens=5)
    settings |= dict(temperature=0.0, top_k=0, seed=0, stride=1)
    requested = load_config("config.py", {})
    fork = load_config(
        "config.py", {"init_from": ".", "out_dir": "fork", "train.max_iters": "9999"}
    )
    commands = {
        "sample": lambda: sample.sample(".", step="latest", **settings),
        "evaluate": lambda: evaluate.evaluate(".", step="best", context=0),
        "train": lambda: start(resume.resume_plan(requested, [])),
        "fork": lambda: start(resume.resume_plan(fork, [])),
    }
    accepting = []
    for name in names:
        try:
            commands[name]()
        except (RunError, UserError):
            continue
        accepting.append(name)
    return accepting


class NoEvaluator:
    """The losses of a network that knows everything."""

    def __init__(self, model, context, device):
        pass

    def losses(self, params, tokens, offsets_W):
        return np.zeros(len(offsets_W))


def no_continuations(found, ids, *, num_samples, max_new_tokens, **settings):
    """The first symbol, again and again."""
    yield np.zeros((num_samples, max_new_tokens), np.int32)


def use_all(run_dir, n_cases, names, results):
    """Puts hostile descriptions into the run, one after the other, and uses each.

    Writes a file: the highest memory in kB, and of each case what was done, which commands accept
    it, the traceback of whatever came out but our own errors, and seconds of the processor's time.
    """
    sample.generated_tokens, evaluator.Evaluator = no_continuations, NoEvaluator
    asked = []

    def no_network(*address, **settings):
        asked.append(address)
        raise OSError("no network here")

    socket.getaddrinfo = socket.socket.connect = no_network
    os.chdir(run_dir)
    folder = run_dir / "checkpoints"
    described = json.loads((folder / str(STEP) / "meta" / "metadata").read_text())
    del described["crc32"]
    cases = []
    for number in range(n_cases):
        what, content, step = hostile(described, number)
        with open(folder / str(STEP) / "meta" / "metadata", "wb") as file:
            if isinstance(content, int):
                file.truncate(content)  # Only the file system knows of it.
            else:
                file.write(content)
        os.rename(folder / str(STEP), folder / str(step))
        start, accepting, problem = time.process_time(), [], ""
        try:
            accepting = used(names)
        except Exception:
            problem = traceback.format_exc()
        cases.append([what, accepting, problem, time.process_time() - start])
        os.rename(folder / str(step), folder / str(STEP))  # Nothing has set it aside.
    assert not asked, asked
    peak_kB = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results.write_text(json.dumps([peak_kB, cases]))


@pytest.mark.parametrize(
    ("n_cases", "names"),
    [
        (60, ("sample", "evaluate", "train")),
        pytest.param(500, ("sample", "evaluate", "train", "fork"), marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_p23_a_hostile_description_is_an_error_or_a_checkpoint(tmp_path, n_cases, names):
    """Without a bug's traceback, much time or memory, or a look at the network."""
    shutil.copytree(GOLDEN, tmp_path / "run")
    process = multiprocessing.get_context("forkserver").Process(
        target=use_all, args=(tmp_path / "run", n_cases, names, tmp_path / "results")
    )
    process.start()
    process.join(300)
    process.kill()
    assert process.exitcode == 0
    peak_kB, cases = json.loads((tmp_path / "results").read_text())
    assert [case for case in cases if case[2]] == []
    assert max(seconds for *_, seconds in cases) < 5 and peak_kB < 1_000_000
    # Both happen: some changes are harmless, most are refused by every command.
    accepted = [case for case in cases if len(case[1]) == len(names)]
    refused = [case for case in cases if not case[1]]
    assert len(cases) == n_cases and len(accepted) >= n_cases / 20 and len(refused) >= n_cases / 4


class Marking:
    """An object that makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.fixture
def planted(tmp_path):
    """A run directory full of code that makes the file `marker` when it is run."""
    run_dir, marker = tmp_path / "run", tmp_path / "marker"
    shutil.copytree(GOLDEN, run_dir)
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    pickled = pickle.dumps(Marking(marker))
    for check in (lambda: exec(code), lambda: pickle.loads(pickled)):
        check()
        marker.unlink()
    (run_dir / "config.py").write_text(code)
    (run_dir / "config.json").write_text(code)
    (run_dir / "meta.pkl").write_bytes(pickled)
    np.save(run_dir / "val_tokens.npy", np.array([Marking(marker)]), allow_pickle=True)
    for folder in (run_dir, run_dir / "checkpoints", run_dir / "checkpoints" / str(STEP)):
        for name in ("sitecustomize.py", "conftest.py", "json.py", "gptjax.py"):
            (folder / name).write_text(code)
    path = run_dir / "checkpoints" / str(STEP) / "_CHECKPOINT_METADATA"
    handlers = json.loads(path.read_text())
    handlers["item_handlers"] = dict.fromkeys(handlers["item_handlers"], "gptjax.Marking")
    path.write_text(json.dumps(handlers))
    return run_dir, marker


def test_p23_reading_runs_nothing_of_a_run_directory(planted, tmp_path):
    run_dir, marker = planted
    flags = ("--out_dir=.", "--num_samples=1", "--max_new_tokens=1")
    sampled = forked.run(tmp_path, "sample", *flags, cwd=run_dir)
    assert (sampled.code, sampled.stderr) == (0, "")
    evaluated = forked.run(tmp_path, "evaluate", "--out_dir=.", cwd=run_dir)
    assert evaluated.code == 2 and "val_tokens.npy; cannot be read: Object" in evaluated.stderr
    assert not marker.exists()


def test_p23_training_runs_nothing_of_its_directory_and_touches_nothing_outside(planted, tmp_path):
    """Links lead out of the directory wherever something is written, moved or removed."""
    run_dir, marker = planted
    outside = tmp_path / "outside"
    (outside / "folder").mkdir(parents=True)
    for name in ("file", "folder/file"):
        (outside / name).write_text('{"kind": "train", "step": 1}\n')
    shutil.copytree(run_dir / "checkpoints" / str(STEP), outside / "step")
    for name in ("config.py", "text.txt"):
        shutil.copy(GOLDEN / name, outside)
    checkpoints = run_dir / "checkpoints"
    for link in ("config.json", "metrics.jsonl", "val_tokens.npy"):
        (run_dir / link).unlink()
        (run_dir / link).symlink_to(outside / "file")
        (run_dir / f".{link}.tmp").symlink_to(outside / "file")
    (checkpoints / "trash").symlink_to(outside / "folder")
    (checkpoints / "999.orbax-checkpoint-tmp").symlink_to(outside / "folder")
    (checkpoints / "399").symlink_to(outside / "step")  # an old step, to be pruned
    (checkpoints / "402").symlink_to(outside / "step")  # the newest, which is refused
    half = checkpoints / "998.orbax-checkpoint-tmp"
    half.mkdir()
    (half / "state").symlink_to(outside / "folder")
    before = tree(outside)
    flags = ["train.max_iters=402", "checkpoint.interval=1", "checkpoint.keep=1"]
    ended = forked.run(
        tmp_path,
        "train",
        f"--config={outside / 'config.py'}",
        *(f"--config.{flag}" for flag in flags),
        cwd=run_dir,
        prepare=faults.prepared,
    )
    assert ended.code == 0, ended.stderr
    assert "checkpoint 402 is damaged (meta: the folder is a symbolic link)" in ended.stdout
    assert tree(outside) == before and not marker.exists()
    with Checkpoints(run_dir, read_only=True) as found:
        assert found.steps() == [STEP, 402]
    assert (checkpoints / "402.corrupt").is_symlink() and not half.exists()
    assert not (checkpoints / "trash").is_symlink()
    assert not (run_dir / "config.json").is_symlink()


def tree(folder):
    """Everything in a folder, with contents and times of change."""
    return {
        path: (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in (folder, *folder.rglob("*"))
    }


def test_p23_a_step_that_is_a_link_is_refused(tmp_path):
    """Reading it would be harmless, but what it leads to could be exchanged under a run."""
    run_dir = tmp_path / "run"
    shutil.copytree(GOLDEN, run_dir)
    os.rename(run_dir / "checkpoints" / str(STEP), tmp_path / "elsewhere")
    (run_dir / "checkpoints" / str(STEP)).symlink_to(tmp_path / "elsewhere")
    message = f"checkpoints/{STEP} is damaged: meta: the folder is a symbolic link; use another"
    with reader.open_for_reading(str(run_dir)) as checkpoints:
        assert checkpoints.best() is None
        for read in (checkpoints.meta, checkpoints.restore):
            with pytest.raises(RunError, match=message):
                read(STEP)


def test_p23_a_vocabulary_of_escapes_cannot_drive_a_terminal(tmp_path, monkeypatch):
    """Prompt and text are ESC alone; a terminal gets the letters of its name, a file the symbol."""
    run_dir = tmp_path / "run"
    shutil.copytree(GOLDEN, run_dir)
    path = run_dir / "checkpoints" / str(STEP) / "meta" / "metadata"
    described = json.loads(path.read_text())
    del described["crc32"]
    described["tokenizer"]["symbols"] = "\x1b" + described["tokenizer"]["symbols"][2:] + "é"
    path.write_text(json.dumps(metadata.with_checksum(described)))
    monkeypatch.setattr(sample, "generated_tokens", no_continuations)
    settings = dict(step="best", prompt="\x1b", prompt_file="", num_samples=2, max_new_tokens=2)
    settings |= dict(temperature=0.0, top_k=0, seed=0, stride=1)
    master, slave = os.openpty()
    with open(slave, "w") as terminal, open(tmp_path / "file", "w") as file:
        for stream in (terminal, file):
            monkeypatch.setattr("sys.stdout", stream)
            sample.sample(str(run_dir), **settings)
        monkeypatch.undo()
        shown = os.read(master, 1000).decode()
    os.close(master)
    assert shown.split("\r\n---------------\r\n") == ["\\x1b" * 3] * 2 + [""]
    assert (tmp_path / "file").read_text().split("\n---------------\n") == ["\x1b" * 3] * 2 + [""]
