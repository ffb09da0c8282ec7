"""A checkpoint of nanoGPT, made a run directory that goes on as any other."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from gptjax.config.config import GPTConfig, flat, model_config, padded_vocabulary
from gptjax.config.config_file import home_expanded
from gptjax.config.knobs import KNOBS
from gptjax.data import batches, nanogpt_meta, token_files
from gptjax.data.tokenizer import CharTokenizer
from gptjax.device import kernels
from gptjax.device.devices import available_devices, machine
from gptjax.device.formula import formula_flops
from gptjax.device.mesh import Layout
from gptjax.model.gpt import n_parameters
from gptjax.run import directory, nanogpt_checkpoint, runlog
from gptjax.run.checkpoint import Checkpoint, Checkpoints
from gptjax.run.evaluator import Evaluator, Loss, mean_loss
from gptjax.run.inputs import VAL_TOKENS, Inputs, read_inputs
from gptjax.run.ledger import Ledger
from gptjax.run.nanogpt_checkpoint import NanoGPTCheckpoint
from gptjax.run.progress import count
from gptjax.run.records import run_record
from gptjax.run.resume import ResumePlan
from gptjax.run.saver import Saver
from gptjax.system import cache, files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError
from gptjax.system.output import printable
from gptjax.update.step import TrainState
from gptjax.update.torch_adamw import next_rate

# Vocabularies are padded to multiples from here on: of smaller ones too many would seem to fit.
_PADDINGS = (64, 128, 256, 512, 1024)

# Tokens of val by which text and weights are seen to belong together.
_CHECKED_TOKENS = 8192

# More than chance and another choice of windows make of the same loss, nats.
_SUSPICIOUS_NATS = 0.3

# Characters of a line that names nanoGPT's flags.
_LONGEST_LIST = 500


def import_weights(ckpt: str, out_dir: str, *, data: str) -> None:
    """Makes a run directory of nanoGPT's `ckpt`: weights, AdamW's state, schedule and settings.

    `data` is the text or the tokens it was trained on: a data.source, or a folder of nanoGPT's.

    Raises:
      UserError: if the file is not nanoGPT's, the data is not its own, or the directory is used.
    """
    run_dir = Path(out_dir)
    files.check_writable(run_dir, flag="--out_dir")
    directory.check_empty(run_dir)
    found = nanogpt_checkpoint.read(Path(ckpt))
    config = found.config(out_dir)
    config.data.source = _source(data, found)
    inputs = read_inputs(config)
    config.model.vocab_multiple = _padding(inputs, found)
    model = model_config(config, inputs.tokenizer.vocab_size)
    state = found.state(config, model)
    directory.check_space(run_dir, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
    cache.keep_compiled_programs()
    devices, _ = available_devices()
    loss = _val_loss(model, inputs, state)
    with directory.made_whole(run_dir) as folder:
        _write(folder, found, config, model, inputs, state, devices[:1])
    _tell(run_dir, found, inputs, state, loss)


def _source(data: str, found: NanoGPTCheckpoint) -> str:
    """The data.source that `data` is; of a folder with a meta.pkl the text that has its characters.

    Raises:
      UserError: if there is no telling what the ids stand for.
    """
    if not data:
        advice = "Give the text: --data text:PATH, or nanoGPT's folder: --data nanoGPT/data/NAME."
        if found.vocab_size == 65:
            advice += " Tiny Shakespeare, of 65 characters, is --data tiny_shakespeare."
        if found.vocab_size >= token_files.GPT2_VOCABULARY:
            advice = "Give nanoGPT's folder of train.bin and val.bin: --data nanoGPT/data/NAME."
        words = f"{found.vocab_size} symbols of nanoGPT's dataset {found.dataset!r:.60}"
        raise UserError("--data", words, "a ckpt.pt does not hold what they stand for", advice)
    folder = Path(data)
    if not folder.is_dir():
        return home_expanded(data)
    if not (folder / token_files.PICKLED_META).exists():
        return f"tokens:{folder}"
    text = folder / "input.txt"
    symbols = nanogpt_meta.symbols(folder / token_files.PICKLED_META, flag="--data")
    fix = "Give the text that it was made of: --data text:PATH."
    if not text.is_file():
        raise UserError("--data", folder, "has no input.txt beside its meta.pkl", fix)
    try:
        characters = CharTokenizer.of_text(text.read_bytes().decode()).symbols
    except (OSError, ValueError) as error:
        raise UserError("--data", text, "cannot be read as UTF-8 text") from error
    if characters != symbols:
        words = "its characters, in order, are not those of the meta.pkl beside it"
        raise UserError("--data", text, words, fix)
    return f"text:{text}"


def _padding(inputs: Inputs, found: NanoGPTCheckpoint) -> int:
    """model.vocab_multiple; raises UserError if the vocabulary is not the checkpoint's."""
    n_symbols = inputs.tokenizer.vocab_size
    for multiple in (1, *_PADDINGS):
        if padded_vocabulary(n_symbols, multiple) == found.vocab_size:
            return multiple
    words = f"the checkpoint knows {found.vocab_size}"
    named = f"{inputs.corpus.name}, of {n_symbols} symbols"
    raise UserError("--data", named, words, "Give what it was trained on.")


def _val_loss(model: GPTConfig, inputs: Inputs, state: TrainState) -> Loss:
    """The loss on a few windows of val."""
    device, ids = jax.devices()[0], np.asarray(inputs.splits.val)
    model = kernels.for_evaluation(model, device, n_tokens=model.block_size)
    offsets_W = batches.sweep_offsets(
        n_tokens=len(ids), block_size=model.block_size, max_tokens=_CHECKED_TOKENS
    )
    evaluator = Evaluator(model, model.block_size, Layout([device]))
    with kernels.matmul_precision(model):
        params = jax.device_put(state.params)
        return mean_loss(evaluator.losses(params, jnp.asarray(ids), offsets_W))


def _write(
    folder: Path,
    found: NanoGPTCheckpoint,
    config: ml_collections.ConfigDict,
    model: GPTConfig,
    inputs: Inputs,
    state: TrainState,
    devices: list[jax.Device],
) -> None:
    """Writes a run that has made nanoGPT's updates: its log, its val split and its checkpoint."""
    parent = {"init_from": str(found.path), "step": found.step, "corpus": found.dataset}
    # Whatever a config file says when the run goes on, these stay as they are.
    kept = sorted(name for name in KNOBS if name not in ("out_dir", "init_from"))
    begun = Checkpoint(found.step, {}, state)
    plan = ResumePlan(config, kept, checkpoint=begun, is_fork=True, parent=parent)
    is_measured = found.val_nats is not None
    best = {"step": found.step if is_measured else -1, "val_nats": found.val_nats}
    with runlog.RunLog(folder, resumed_step=None, tensorboard=False) as log:
        _log(log, plan, found, model, inputs, state, devices)
    files.write_atomically(folder / "config.json", files.pretty_json(flat(config)))
    files.write_array(folder / VAL_TOKENS, inputs.splits.val)
    with Checkpoints(folder) as checkpoints:
        saver = Saver(checkpoints, plan, inputs, Ledger(), machine(devices))
        saver.save(state, best=best, val_nats=found.val_nats)
        saver.wait()


def _log(
    log: runlog.RunLog,
    plan: ResumePlan,
    found: NanoGPTCheckpoint,
    model: GPTConfig,
    inputs: Inputs,
    state: TrainState,
    devices: list[jax.Device],
) -> None:
    """The records of a run of which no more is known than where nanoGPT's updates have led."""
    config, step = plan.config, found.step
    n_tokens, n_params = config.train.batch_size * model.block_size, n_parameters(state.params)
    n_flops = formula_flops(
        n_layer=model.n_layer,
        n_embd=model.n_embd,
        block_size=model.block_size,
        n_params=n_params,
        n_tokens=n_tokens,
    )
    costs = {"n_params": n_params, "formula_flops_per_update": n_flops}
    imported = {"program": "nanoGPT", "file": str(found.path), "dataset": found.dataset}
    log.append("run", **run_record(plan, inputs, costs, devices), imported=imported)
    seconds = Ledger().run_seconds()
    unknown = dict.fromkeys("loss grad_norm step_ms tokens_per_s flops_per_s mfu mfu_a100".split())
    spent = {"tokens_seen": step * n_tokens, "flops_total": step * n_flops, "seconds": seconds}
    log.append("train", step=step, lr=next_rate(config, max(step - 1, 0)), **unknown, **spent)
    if found.val_nats is not None:
        losses = {"val_loss": found.val_nats, "best_val": found.val_nats, "seconds": seconds}
        log.append("eval", step=step, train_loss=None, train_sem=None, val_sem=None, **losses)
    log.append("end", step=step, reason="imported")


def _tell(
    run_dir: Path, found: NanoGPTCheckpoint, inputs: Inputs, state: TrainState, loss: Loss
) -> None:
    """Says what was made of what, and what was not carried over."""
    n_params, unit = count(n_parameters(state.params)), inputs.tokenizer.unit
    corpus = printable(inputs.corpus.name)
    print(f"{run_dir}: {n_params} parameters and AdamW's state after {found.step} updates")
    theirs = "" if found.val_nats is None else f", where nanoGPT measured {found.val_nats:.4f}"
    print(f"val {loss} nats/{unit} on up to {_CHECKED_TOKENS:,} tokens of {corpus}{theirs}")
    if found.val_nats is not None and loss.mean > found.val_nats + _SUSPICIOUS_NATS:
        print(f"WARNING: that is far more; were these weights trained on {corpus}?")
    left_out = printable(", ".join(found.left_out)[:_LONGEST_LIST])
    print(f"not carried over: {left_out}; batches are drawn as gptjax draws them")
    is_done = found.values["train.max_iters"] <= found.step
    more = f" --config.train.max_iters=N, N above {found.step}" if is_done else ""
    command = "python scripts/train.py --config configs/shakespeare_char.py"
    print(printable(f"go on: {command} --config.out_dir={run_dir}{more}"))


if __name__ == "__main__":
    run_script(__file__)
