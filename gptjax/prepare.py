"""Writes token files to train on: a folder of train.bin, val.bin and meta.json."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gptjax.data import markov, nanogpt_meta, token_files
from gptjax.run.progress import counted
from gptjax.system import files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError, did_you_mean

DATASETS = ("markov",)

# Between two lines that say how far it is.
_LINE_SECONDS = 2.0

# Streams of markov.chains: what validates is drawn from chains of its own.
_STREAMS = {token_files.TRAIN: 1, token_files.VAL: 2}


def prepare(
    dataset: str, *, out_dir: str, n_tokens: int, seed: int, val_fraction: float, n_val: int
) -> None:
    """Writes `n_tokens` tokens of a dataset, of which the last are for validation.

    They are `n_val` or, if that is 0, a share of `val_fraction`. train.bin comes last: a folder
    that has one is complete.

    Raises:
      UserError: for an unknown dataset, a number out of range or a folder that is in use.
    """
    if dataset not in DATASETS:
        known = f"unknown dataset; must be one of {', '.join(DATASETS)}"
        hint = did_you_mean(dataset, DATASETS)
        fix = hint or "nanoGPT's folders need no preparation: --config.data.source=tokens:DIR."
        raise UserError("--dataset", dataset, known, fix)
    if not 2 <= n_tokens <= token_files.MOST_TOKENS:
        raise UserError("--n_tokens", n_tokens, f"must be from 2 to {token_files.MOST_TOKENS}")
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
