"""Writes token files to train on: of documents, in shards, or drawn, as train.bin and val.bin."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.config.config_file import home_expanded
from gptjax.config.knobs import KNOBS
from gptjax.data import manifest as manifests
from gptjax.data import markov, nanogpt_meta, shards, token_files
from gptjax.data.manifest import MANIFEST
from gptjax.data.preparation import STATE, Order, Preparation, Progress
from gptjax.run import directory
from gptjax.run.progress import count, counted, duration
from gptjax.system import files
from gptjax.system.cache import n_cores
from gptjax.system.command import run_script
from gptjax.system.errors import UserError

# More than any machine has cores.
_MOST_PROCESSES = 1024

# They are drawn in memory.
_MOST_DRAWN = 2**31 - 1

# Between two lines that say how far it is.
_LINE_SECONDS = 2.0

# Streams of markov.chains: what validates is drawn from chains of its own.
_STREAMS = {token_files.TRAIN: 1, token_files.VAL: 2}


def choose(*, dataset: str, from_nanogpt: str, check: str, **settings: Any) -> None:
    """Does what the flags ask for.

    Raises:
      UserError: if they do not say what, or for whatever the functions below raise it for.
    """
    out_dir, val_fraction = settings["out_dir"], settings["val_fraction"]
    if from_nanogpt:
        describe_nanogpt(from_nanogpt)
    elif check:
        check_shards(check)
    elif not (dataset and out_dir):
        what = "--dataset and --out_dir, or --from_nanogpt or --check, are missing"
        raise UserError("command line", what, "see --help")
    elif dataset == "markov":
        drawn = {name: settings[name] for name in ("n_tokens", "seed", "n_val")}
        draw(dataset, out_dir=out_dir, val_fraction=val_fraction, **drawn)
    else:
        asked = {name: settings[name] for name in ("field", "shard_tokens")}
        asked["tokenizer"] = home_expanded(settings["tokenizer"])
        order = Order(home_expanded(dataset), val_fraction=val_fraction, **asked)
        prepare(order, out_dir=out_dir, processes=settings["processes"])


def prepare(order: Order, *, out_dir: str, processes: int) -> None:
    """Writes the shards of documents; goes on where the same command was cut short.

    Raises:
      UserError: for documents that cannot be had or read, a number out of range, or a folder that
        is in use.
    """
    if not 0 < order.val_fraction < 1:
        raise UserError("--val_fraction", order.val_fraction, "must be in (0, 1)")
    tokenizer = KNOBS["data.tokenizer"]
    if not tokenizer.holds(order.tokenizer):
        raise UserError("--tokenizer", order.tokenizer, tokenizer.rule)
    if order.shard_tokens < 1:
        raise UserError("--shard_tokens", order.shard_tokens, "must be ≥ 1")
    if not 0 <= processes <= _MOST_PROCESSES:
        raise UserError("--processes", processes, f"must be from 0 to {_MOST_PROCESSES}")
    folder = Path(out_dir)
    files.check_writable(folder, flag="--out_dir")
    if (folder / MANIFEST).exists():
        raise UserError("--out_dir", folder, "is prepared already", "Choose another --out_dir.")
    if not (folder / STATE).exists():
        _check_unused(folder)
    work = Preparation(order, folder, processes or n_cores())
    if n_before := work.n_done:
        print(f"{folder} was begun before: going on behind {n_before:,} {work.unit}")
    with directory.locked(folder):
        _told(work.run(_say), n_before, work.unit)
    manifest = manifests.read(folder)
    print(
        f"{folder}: {manifest.n_tokens('train'):,} train and {manifest.n_tokens('val'):,} val "
        f"tokens of {manifest.tokenizer.vocab_size:,} symbols, {manifest.n_documents:,} documents"
    )
    if work.n_empty:
        print(f"{work.n_empty:,} documents had no text and were left out")


def check_shards(folder: str) -> None:
    """Reads all shards of a folder and compares them with the manifest.

    Raises:
      UserError: naming the first file that differs.
    """
    manifest = manifests.read(Path(folder))
    n_shards = sum(map(len, manifest.shards.values()))
    for _ in counted(shards.check(Path(folder), manifest), n_shards, "shards"):
        pass
    print(f"{folder}: {n_shards:,} shards are as {MANIFEST} says")


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _told(steps: Iterable[Progress], n_before: int, unit: str) -> None:
    """Goes through the work, and says on stderr how far it is."""
    start = said = time.monotonic()
    for step in steps:
        now = time.monotonic()
        if now - said < _LINE_SECONDS or step.n_done >= step.n_all:
            continue
        said, per_s = now, (step.n_done - n_before) / (now - start)
        left = duration((step.n_all - step.n_done) / per_s) if per_s else "?"
        _say(
            f"{step.n_done:,} of {step.n_all:,} {unit} ({step.n_done / step.n_all:.0%}), "
            f"{step.n_tokens:,} tokens, {count(per_s)} {unit}/s, left {left}"
        )


def draw(
    dataset: str, *, out_dir: str, n_tokens: int, seed: int, val_fraction: float, n_val: int
) -> None:
    """Writes `n_tokens` tokens of known entropy, of which the last are for validation.

    They are `n_val` or, if that is 0, a share of `val_fraction`. train.bin comes last: a folder
    that has one is complete.

    Raises:
      UserError: for a number out of range or a folder that is in use.
    """
    if not 2 <= n_tokens <= _MOST_DRAWN:
        raise UserError("--n_tokens", n_tokens, f"must be from 2 to {_MOST_DRAWN}")
    if not 0 <= seed < 2**32:
        raise UserError("--seed", seed, "must be an integer in [0, 2**32)")
    if not 0 < val_fraction < 1:
        raise UserError("--val_fraction", val_fraction, "must be in (0, 1)")
    if not 0 <= n_val < n_tokens:
        raise UserError("--n_val", n_val, f"must be ≥ 0 and < n_tokens {n_tokens}")
    folder = Path(out_dir)
    _check_unused(folder)
    needed, free = n_tokens * token_files.DTYPE.itemsize, files.free_space(folder)
    if free < needed:
        raise UserError("--out_dir", folder, f"{needed:,} bytes are needed, {free:,} are free")
    n_val = n_val or min(n_tokens - 1, max(1, round(n_tokens * val_fraction)))
    # Built before the folder is made, so that what is interrupted leaves nothing.
    table = markov.successors(seed)
    sizes = {token_files.VAL: n_val, token_files.TRAIN: n_tokens - n_val}
    drawn = {file: _joined(table, file, n, seed) for file, n in sizes.items()}
    meta = token_files.meta_json(
        vocab_size=token_files.GPT2_VOCABULARY,
        name=f"{dataset}-{seed}",
        entropy_nats=markov.entropy_nats(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    files.write_atomically(folder / token_files.META, files.pretty_json(meta))
    for file, ids in drawn.items():
        files.write_atomically(folder / file, ids.data)
    print(
        f"{folder}: {sizes[token_files.TRAIN]:,} train and {n_val:,} val tokens of "
        f"{token_files.GPT2_VOCABULARY:,} symbols; entropy {markov.entropy_nats():.4f} nats/token"
    )


def describe_nanogpt(folder: str) -> None:
    """Writes the meta.json of a nanoGPT folder whose vocabulary stands in a meta.pkl.

    Raises:
      UserError: if there is no such file, it is no plain data, or there is a meta.json already.
    """
    path = Path(folder) / token_files.META
    vocab_size = nanogpt_meta.vocabulary_size(Path(folder) / token_files.PICKLED_META)
    if path.exists():
        raise UserError("--from_nanogpt", path, "is there already")
    name = Path(folder).absolute().name
    meta = token_files.meta_json(vocab_size=vocab_size, name=name, entropy_nats=None)
    files.write_atomically(path, files.pretty_json(meta))
    print(f"{path}: {vocab_size:,} symbols; train with --config.data.source=tokens:{folder}")


def _check_unused(folder: Path) -> None:
    files.check_writable(folder, flag="--out_dir")
    if folder.exists() and any(folder.iterdir()):
        raise UserError("--out_dir", folder, "is not empty", "Choose another --out_dir.")


def _joined(table: np.ndarray, file: str, n_tokens: int, seed: int) -> np.ndarray:
    """The chains of a file, one behind the other, cut to `n_tokens`."""
    chains = markov.chains(table, n_tokens, seed, stream=_STREAMS[file])
    told = counted(chains, n_tokens, f"tokens of {file}", every=_LINE_SECONDS, size=np.size)
    blocks = list(told)
    return np.concatenate(blocks, axis=1).reshape(-1)[:n_tokens]


if __name__ == "__main__":
    run_script(__file__)
