"""The same updates on several devices or precisions: how far they drift apart, and if it matters.

All start from one checkpoint and see the same batches and dropout masks, so that the device or the
precision is all that differs. Nothing is written into the run directory.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import nnx
from rich.console import Console
from rich.table import Table

from gptjax.config.config import from_flat, micro_batches
from gptjax.data import batches, corpus
from gptjax.device import mesh
from gptjax.evaluate import Loss, mean_loss, read_val_ids
from gptjax.explain.variant import Replica, device_of, specs_of
from gptjax.run import checkpoint, runlog
from gptjax.run.metadata import stored_tokenizer
from gptjax.run.progress import duration
from gptjax.system import cache
from gptjax.system.command import printable
from gptjax.system.errors import RunError, UserError
from gptjax.update.optim import learning_rate

# Enough of val to tell a difference that matters from one that does not, in seconds on a CPU.
_VAL_TOKENS = 20_000

# Words about progress come at most this often, seconds.
_LINE_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class Drift:
    """What came of the updates; axes R replicas, the first of which is the reference, N updates.

    `distance_RN` is the norm of the parameters' difference from the reference's, as a part of
    theirs; `val_RW` are the losses of val's windows after the last update.
    """

    replicas: Sequence[Replica]
    loss_RN: np.ndarray
    grad_norm_RN: np.ndarray
    distance_RN: np.ndarray
    val_RW: np.ndarray

    def differences(self, i: int) -> dict[str, np.ndarray]:
        """Of replica `i` from the reference, axis N: nats, and parts of the reference's norms."""
        grad_norm_N = self.grad_norm_RN[0]
        # A text of one symbol has no gradient.
        whole_N = np.where(grad_norm_N > 0, grad_norm_N, 1)
        return {
            "loss": np.abs(self.loss_RN[i] - self.loss_RN[0]),
            "grad_norm": np.abs(self.grad_norm_RN[i] - grad_norm_N) / whole_N,
            "params": self.distance_RN[i],
        }

    def print_updates(self, i: int) -> None:
        """Prints how replica `i` drifts: a table of updates 1, 2, 5, 10, … and the last."""
        reference, differences = self.replicas[0].spec, self.differences(i)
        n_updates, pair = self.loss_RN.shape[1], f"{self.replicas[i].spec} against {reference}"
        table = Table("update", f"loss on {reference}", "differs by", title=pair)
        table.add_column("gradient norm by")
        table.add_column("parameters by")
        marks = (digit * 10**power for power in range(len(str(n_updates))) for digit in (1, 2, 5))
        for number in [*(mark for mark in marks if mark < n_updates), n_updates]:
            row = (f"{values_N[number - 1]:.1e}" for values_N in differences.values())
            table.add_row(str(number), f"{self.loss_RN[0, number - 1]:.5f}", *row)
        Console(highlight=False).print(table)
        loss_N, params_N = differences["loss"], differences["params"]
        if not any(values_N.any() for values_N in differences.values()):
            print(f"{pair}: not one digit of a loss, gradient norm or parameter differs")
        else:
            print(
                f"{pair}: the losses of update 1 differ by {loss_N[0]:.1e}, of update {n_updates} "
                f"by {loss_N[-1]:.1e}; parameters by {params_N[-1]:.1e} of their norm"
            )
        if problem := self.problem(i):
            print(problem)

    def problem(self, i: int) -> str:
        """What is wrong if update 1, of the same weights and batch, differs too much; else ""."""
        replica, reference = self.replicas[i], self.replicas[0]
        tolerance = max(replica.precision.tolerance, reference.precision.tolerance)
        found, allowed = self.differences(i)["loss"][0], tolerance * self.loss_RN[0, 0]
        if found <= allowed:
            return ""
        return (
            f"{replica.spec} against {reference.spec}: update 1 differs by {found:.1e}, more than "
            f"rounding explains (at most {allowed:.1e}): one of the two is wrong"
        )

    def val_difference(self, i: int) -> Loss:
        """Val's loss less the reference's; the standard error is that of pairs of windows."""
        return mean_loss(self.val_RW[i] - self.val_RW[0])

    def print_val(self, *, n_tokens: int, unit: str) -> None:
        """Prints the loss that each replica ends with, and whether the difference matters."""
        reference = mean_loss(self.val_RW[0])
        print(f"val after the last update, on {n_tokens:,} tokens, nats/{unit}:")
        for i, replica in enumerate(self.replicas):
            val, words = mean_loss(self.val_RW[i]), ""
            if i:
                difference = self.val_difference(i)
                is_within = abs(difference.mean) <= reference.sem
                words = (
                    f", {difference.mean:+.1e} ± {difference.sem:.1e} from the reference: "
                    f"{'within' if is_within else 'larger than'} one standard error of val"
                )
            print(f"  {replica.spec}: {val.mean:.4f} ± {val.sem:.4f}{words}")

    def to_json(self) -> list[dict[str, Any]]:
        """All numbers, by replica."""
        return [
            {
                "spec": replica.spec,
                "device": replica.device.device_kind,
                "precision": replica.precision_name,
                "loss": self.loss_RN[i].tolist(),
                "grad_norm": self.grad_norm_RN[i].tolist(),
                "val": _finite(mean_loss(self.val_RW[i])),
                "differences": {name: v.tolist() for name, v in self.differences(i).items()},
                "val_difference": _finite(self.val_difference(i)),
                "problem": self.problem(i),
            }
            for i, replica in enumerate(self.replicas)
        ]


def replay(out_dir: str, *, devices: str, step: str, updates: int, json: str | None) -> None:
    """Prints how far updates from a checkpoint drift apart between `devices`, given as `cpu,cuda`.

    Raises:
      UserError: for a device that is not there, or a run that cannot be replayed.
      RunError: if the first update differs by more than rounding, or a number is not finite.
    """
    specs = specs_of(devices)
    if updates < 1:
        raise UserError("--updates", updates, "must be ≥ 1")
    if json and not Path(json).absolute().parent.is_dir():
        raise UserError("--json", json, "its folder does not exist")
    cache.keep_compiled_programs()
    mesh.available_devices()  # Keeps the CPU in reach beside a GPU that JAX_PLATFORMS asks for.
    platforms = [device_of(spec).platform for spec in specs]
    with checkpoint.open_for_reading(out_dir) as checkpoints:
        found = checkpoints.restore(checkpoint.select_step(checkpoints, step))
    config = from_flat(found.meta["config"], origin="checkpoint")
    tokenizer = stored_tokenizer(found.meta)
    text = corpus.load_again(config.data.source, found.meta["corpus"])
    ids = corpus.split(text, tokenizer, config.data).train
    val_ids = read_val_ids(Path(out_dir), found.meta["val_sha256"])
    # The reference's, since each micro-batch draws dropout masks of its own.
    sizes = {"n_micro": micro_batches(config, platforms[0], 1), "vocab_size": tokenizer.vocab_size}
    replicas = [Replica(spec, config, found.state, ids, **sizes) for spec in specs]

    print(f"{out_dir} step {found.step} on {printable(text.name)}; updates from there: {updates}")
    for replica in replicas:
        print(f"  {replica.spec}: {replica.device.device_kind}, {replica.precision_name}")
    last, max_iters = found.step + updates, config.train.max_iters
    if last > max_iters:
        rate = float(learning_rate(config)(np.int32(last - 1)))
        print(f"the run's own end is step {max_iters}; the last update here has rate {rate:.3g}")
    loss_RN, grad_norm_RN, distance_RN = _updated(
        replicas, config, range(found.step, last), n_tokens=len(ids)
    )
    block_size = config.model.block_size
    offsets_W = batches.sweep_offsets(
        n_tokens=len(val_ids), block_size=block_size, max_tokens=_VAL_TOKENS
    )
    val_RW = np.stack([replica.losses(val_ids, offsets_W) for replica in replicas])
    drift = Drift(replicas, loss_RN, grad_norm_RN, distance_RN, val_RW)
    others = range(1, len(replicas))
    for i in others:
        drift.print_updates(i)
    drift.print_val(n_tokens=len(offsets_W) * block_size, unit=tokenizer.unit)
    if json:
        results = {"out_dir": out_dir, "step": found.step, "corpus": text.name}
        results["replicas"] = drift.to_json()
        runlog.write_atomically(Path(json), runlog.pretty_json(results))
    if problems := [problem for i in others if (problem := drift.problem(i))]:
        raise RunError("; ".join(problems))


def _updated(
    replicas: Sequence[Replica], config: ml_collections.ConfigDict, steps: range, *, n_tokens: int
) -> np.ndarray:
    """Makes the updates of `steps`; losses, gradient norms and distances, each of axes RN."""
    numbers_N3R = []
    for index in _counted(steps):
        offsets_B = batches.offsets(
            config.seed,
            "train",
            index,
            1,
            n_tokens=n_tokens,
            block_size=config.model.block_size,
            batch_size=config.train.batch_size,
        )
        # Started on all devices before any is waited for.
        metrics = [replica.update(offsets_B) for replica in replicas]
        losses = [float(each["loss"][0]) for each in metrics]
        grad_norms = [float(each["grad_norm"][0]) for each in metrics]
        if not np.isfinite([losses, grad_norms]).all():
            names = ", ".join(replica.spec for replica in replicas)
            raise RunError(
                f"update {index - steps.start + 1} is not finite: losses {losses} and gradient "
                f"norms {grad_norms} on {names}"
            )
        reference = replicas[0].state.params
        distances = [_distance(replica.state.params, reference) for replica in replicas]
        numbers_N3R.append([losses, grad_norms, distances])
    return np.array(numbers_N3R).transpose(1, 2, 0)


def _counted(steps: range) -> Iterator[int]:
    """The steps; says on stderr now and then how many are made and how long the others take."""
    start = said = time.monotonic()
    for n_done, index in enumerate(steps):
        now = time.monotonic()
        if n_done == 1:  # The first has compiled the others as well.
            start = now
        elif now - said >= _LINE_SECONDS:
            said, left = now, (now - start) / (n_done - 1) * (len(steps) - n_done)
            print(f"{n_done} of {len(steps)} updates, left {duration(left)}", file=sys.stderr)
        yield index


def _distance(params: nnx.State, reference: nnx.State) -> float:
    """The norm of the parameters' difference, as a part of the reference's norm."""
    squared_difference = squared = 0.0
    for leaf, wanted in zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True):
        wide = np.asarray(wanted).astype(np.float64)
        squared_difference += float(np.square(np.asarray(leaf).astype(np.float64) - wide).sum())
        squared += float(np.square(wide).sum())
    return math.sqrt(squared_difference / squared)


def _finite(loss: Loss) -> dict[str, float | None]:
    """A loss as JSON has it: of a single window there is no standard error."""
    values = dataclasses.asdict(loss)
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
