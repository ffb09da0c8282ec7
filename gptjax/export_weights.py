"""A checkpoint of a run, written for another program: nanoGPT, or transformers as a GPT-2."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from gptjax.data.corpus import SHAKESPEARE_SHA256
from gptjax.device.devices import available_devices
from gptjax.run import (
    directory,
    gpt2_folder,
    nanogpt_checkpoint,
    safetensors_file,
    torch_file,
)
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.reader import read_checkpoint, run_and_step
from gptjax.system import files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError
from gptjax.system.output import printable

_FLAG = "--to"

# What nanoGPT's train.py is to be told when it goes on: the rest is in the ckpt.pt, or as it likes.
_TOLD = (
    "dataset block_size batch_size gradient_accumulation_steps dropout learning_rate max_iters "
    "beta1 beta2 weight_decay grad_clip decay_lr warmup_iters lr_decay_iters min_lr"
).split()


def export_weights(out_dir: str, *, step: str, to: str, dataset: str) -> None:
    """Writes the checkpoint that `step` names to the new file or folder `to`.

    "hf" is the folder hf of the run, "hf:FOLDER" another, for transformers; all else a file for
    nanoGPT, with AdamW's state. `dataset` is nanoGPT's name of the text, a folder in its data/; ""
    is what the run tells.

    Raises:
      UserError: if there is no such checkpoint, or the other program has no such model.
    """
    kind, _, folder = to.partition(":")
    if kind == "hf":
        _for_transformers(out_dir, step, folder)
    else:
        _for_nanogpt(out_dir, step, Path(to), dataset)


def _for_transformers(out_dir: str, step: str, to: str) -> None:
    """Writes config.json and model.safetensors into a new folder."""
    available_devices()  # Asked for here, a backend that is missing is a clear error.
    out_dir, step = run_and_step(out_dir, step)
    folder = Path(to).expanduser() if to else Path(out_dir, "hf")
    files.check_writable(folder, flag=_FLAG)
    directory.check_empty(folder, flag=_FLAG)
    safetensors_file.check_library(folder, flag=_FLAG)
    found = read_checkpoint(out_dir, step)
    with directory.made_whole(folder, flag=_FLAG) as building:
        n_tensors = gpt2_folder.write(found, building)
    print(printable(f"{folder}: {n_tensors} tensors after {found.step} updates"))
    load = f"transformers.AutoModelForCausalLM.from_pretrained({str(folder.absolute())!r})"
    print(printable(f"in Python: {load}"))


def _for_nanogpt(out_dir: str, step: str, path: Path, dataset: str) -> None:
    """Writes a ckpt.pt."""
    files.check_folder_of(_FLAG, str(path))
    if path.exists():
        raise UserError(_FLAG, path, "is there already", f"Choose another {_FLAG}.")
    torch_file.check_torch(path, flag=_FLAG)
    available_devices()  # Asked for here, a backend that is missing is a clear error.
    out_dir, step = run_and_step(out_dir, step)
    found = read_checkpoint(out_dir, step)
    folder = os.path.dirname(os.path.abspath(path))
    dataset = dataset or _dataset(found)
    content = nanogpt_checkpoint.content(found, dataset=dataset, out_dir=folder)
    torch_file.write(path, content, flag=_FLAG)
    flags = content["config"]
    print(f"{path}: {len(content['model'])} tensors and AdamW's state after {found.step} updates")
    if path.name != "ckpt.pt":
        print("nanoGPT looks for it as ckpt.pt in its out_dir")
    warmup = found.meta["config"]["optim.warmup_iters"]
    if not flags["decay_lr"] and found.step < warmup:
        print(f"WARNING: nanoGPT has no warmup at a constant rate; {warmup - found.step} are left")
    where = f"--out_dir={folder}"
    told = ["--init_from=resume", where, *(f"--{flag}={flags[flag]}" for flag in _TOLD)]
    print(printable(f"in nanoGPT: {shlex.join(['python', 'sample.py', where])}"))
    print(printable(f"go on: {shlex.join(['python', 'train.py', *told])}"))


def _dataset(found: Checkpoint) -> str:
    """nanoGPT's name of a run's text.

    Raises:
      UserError: if the run does not tell.
    """
    corpus = found.meta["corpus"]
    kind, _, argument = corpus["requested"].partition(":")
    if corpus["sha256"] == SHAKESPEARE_SHA256:
        return "shakespeare_char"
    if kind == "tokens":  # nanoGPT joins it to its data/, which leaves an absolute path as it is.
        return str(Path(argument).absolute())
    words = "the run does not tell which folder of nanoGPT's data/ holds this text"
    fix = "Give its name: --dataset NAME."
    raise UserError("--dataset", f"{corpus['name']!r:.60}", words, fix)


if __name__ == "__main__":
    run_script(__file__)
