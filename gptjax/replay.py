"""The same updates on several devices or precisions: how far they drift apart, and if it matters.

All start from one checkpoint and see the same batches and dropout masks, so that the device or the
precision is all that differs. Nothing is written into the run directory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

from gptjax.config.config import from_flat
from gptjax.data import batches
from gptjax.device.devices import available_devices
from gptjax.device.memory import micro_batches
from gptjax.explain.drift import Drift, distance, print_updates, print_val
from gptjax.explain.variant import Variant, device_of, specs_of
from gptjax.run.evaluator import random_windows
from gptjax.run.inputs import read_inputs, read_val_ids
from gptjax.run.progress import counted
from gptjax.run.reader import read_checkpoint, run_and_step
from gptjax.system import cache, files
from gptjax.system.command import run_script
from gptjax.system.errors import RunError, UserError
from gptjax.system.output import printable, waiting
from gptjax.update.optim import learning_rate

# Enough of val to tell a difference that matters from one that does not, in seconds on a CPU.
_VAL_TOKENS = 20_000


def replay(out_dir: str, *, devices: str, step: str, updates: int, json: str | None) -> None:
    """Prints how far updates from a checkpoint drift apart between `devices`, given as `cpu,cuda`.

    Raises:
      UserError: for a device that is not there, or a run that cannot be replayed.
      RunError: if the first update differs by more than rounding, or a number is not finite.
    """
    specs = specs_of(devices)
    if updates < 1:
        raise UserError("--updates", updates, "must be ≥ 1")
    files.check_folder_of("--json", json)
    cache.keep_compiled_programs()
    available_devices()  # Keeps the CPU in reach beside a GPU that JAX_PLATFORMS asks for.
    platforms = [device_of(spec).platform for spec in specs]
    out_dir, step = run_and_step(out_dir, step)
    found = read_checkpoint(out_dir, step)
    config = from_flat(found.meta["config"], origin="checkpoint")
    inputs = read_inputs(config, found)
    val_ids = read_val_ids(Path(out_dir), found.meta["val_sha256"])
    # The reference's, since each micro-batch draws dropout masks of its own.
    n_micro = micro_batches(config, platforms[0], 1)
    variants = [Variant(spec, config, found.state, inputs, n_micro=n_micro) for spec in specs]
    name = printable(inputs.corpus.name)
    print(f"{out_dir} step {found.step} on {name}; updates from there: {updates}")
    for variant in variants:
        print(f"  {variant.spec}: {variant.device.device_kind}, {variant.precision_name}")
    last, max_iters = found.step + updates, config.train.max_iters
    if last > max_iters:
        rate = float(learning_rate(config)(np.int32(last - 1)))
        print(f"the run's own end is step {max_iters}; the last update here has rate {rate:.3g}")
    loss_RN, grad_norm_RN, distance_RN = _make_updates(
        variants, config, range(found.step, last), n_tokens=inputs.n_tokens["train"]
    )
    block_size = config.model.block_size
    offsets_W = batches.sweep_offsets(
        n_tokens=len(val_ids), block_size=block_size, max_tokens=_VAL_TOKENS
    )
    val_RW = np.stack([variant.losses(val_ids, offsets_W) for variant in variants])
    drift = Drift(variants, loss_RN, grad_norm_RN, distance_RN, val_RW)
    others = range(1, len(variants))
    for i in others:
        print_updates(drift, i)
    print_val(drift, n_tokens=len(offsets_W) * block_size, unit=inputs.tokenizer.unit)
    if json:
        results = {"out_dir": out_dir, "step": found.step, "corpus": inputs.corpus.name}
        results["replicas"] = drift.to_json()
        files.write_atomically(Path(json), files.pretty_json(results))
    if problems := [problem for i in others if (problem := drift.problem(i))]:
        raise RunError("; ".join(problems))


def _make_updates(
    variants: Sequence[Variant], config: ml_collections.ConfigDict, steps: range, *, n_tokens: int
) -> np.ndarray:
    """Makes the updates of `steps`; losses, gradient norms and distances, each of axes RN."""
    numbers_N3R: list[list[list[float]]] = []
    for index in counted(steps, len(steps), "updates", is_first_slow=True):
        offsets_B = random_windows(config, "train", n_tokens, index, 1)
        # Started on all devices before any is waited for.
        with contextlib.nullcontext() if numbers_N3R else waiting("compiling"):
            metrics = [variant.update(offsets_B) for variant in variants]
        losses = [float(each["loss"][0]) for each in metrics]
        grad_norms = [float(each["grad_norm"][0]) for each in metrics]
        if not np.isfinite([losses, grad_norms]).all():
            names = ", ".join(variant.spec for variant in variants)
            raise RunError(
                f"update {index - steps.start + 1} is not finite: losses {losses} and gradient "
                f"norms {grad_norms} on {names}"
            )
        reference = variants[0].state.params
        distances = [distance(variant.state.params, reference) for variant in variants]
        numbers_N3R.append([losses, grad_norms, distances])
    return np.array(numbers_N3R).transpose(1, 2, 0)


if __name__ == "__main__":
    run_script(__file__)
