"""What a run starts from: nothing, its own newest checkpoint, or another run's.

A run that goes on may change some knobs; others would make it another experiment.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_collections

from gptjax.config.config import default_config, flat, from_flat, set_knob, validate
from gptjax.config.knobs import KNOBS
from gptjax.run.checkpoint import Checkpoint, Checkpoints, Damaged, open_for_reading, select_step
from gptjax.run.runlog import is_used
from gptjax.system.errors import RunError, UserError
from gptjax.update.optim import learning_rate

# How a machine computes the same: a run may go on with another value.
_OF_THE_MACHINE = ("model.attention", "model.attention_rows", "model.matmul_precision")

# These name the experiment: a run with another value of one of them is not the same run.
_IDENTITY = (
    "seed",
    "data.source",
    "data.val_fraction",
    "optim.name",
    "optim.master_weights",
    "train.batch_size",
    "train.grad_accum_steps",
) + tuple(name for name in KNOBS if name.startswith("model.") and name not in _OF_THE_MACHINE)

# A fork may change all but what the arrays' shapes and dtypes follow from.
_SHAPE = (
    "model.n_layer",
    "model.n_head",
    "model.n_embd",
    "model.block_size",
    "model.bias",
    "model.param_dtype",
    "model.norm",
    "model.position",
    "model.tie_embeddings",
    "model.vocab_multiple",
    "optim.name",
    "optim.master_weights",
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a run starts from, and the config it runs with.

    `found` is the checkpoint it goes on from, None for a new run; `parent` names another run that
    it was forked from, now or earlier; `lines` tell the user what differs from before.
    """

    config: ml_collections.ConfigDict
    overrides: list[str]
    lines: list[str] = dataclasses.field(default_factory=list)
    found: Checkpoint | None = None
    is_fork: bool = False
    parent: dict[str, Any] | None = None

    @property
    def step(self) -> int:
        """Updates made before this process."""
        return self.found.step if self.found else 0

    @property
    def resumed(self) -> bool:
        """Whether the run in out_dir goes on; a fork is a new run."""
        return self.found is not None and not self.is_fork


def find_origin(requested: ml_collections.ConfigDict, overrides: Iterable[str]) -> Origin:
    """What `init_from` and the state of `out_dir` amount to; creates nothing.

    Checkpoints newer than the one gone on from are damaged: they are renamed.

    Raises:
      UserError: if the directory is used and the config does not continue what is in it.
      RunError: if there are checkpoints, but none that is whole.
    """
    run_dir, init_from = Path(requested.out_dir), requested.init_from
    if (run_dir / "checkpoints").is_dir():
        with Checkpoints(run_dir, read_only=True) as checkpoints:
            if checkpoints.steps():
                return _resumed(requested, set(overrides), checkpoints)
    if init_from == "scratch" and is_used(run_dir):
        raise UserError(
            "out_dir", run_dir, "a run has begun in it", "Choose another --config.out_dir."
        )
    validate(requested)
    if init_from in ("auto", "scratch"):
        return Origin(requested, sorted(overrides))
    return _forked(requested, overrides, Path(init_from))


def _resumed(
    requested: ml_collections.ConfigDict, overrides: set[str], checkpoints: Checkpoints
) -> Origin:
    """The run goes on from its newest checkpoint that is whole; never from the beginning."""
    damaged: dict[int, Damaged] = {}
    for step in reversed(checkpoints.steps()):
        try:
            origin = _resumed_from(requested, overrides, checkpoints, step)
        except Damaged as error:
            damaged[step] = error
            continue
        lines = [
            f"warning: checkpoint {bad} is damaged ({error.reason}); it is now called "
            f"{checkpoints.set_aside(bad).name}"
            for bad, error in damaged.items()
        ]
        return dataclasses.replace(origin, lines=lines + origin.lines)
    newest = max(damaged)
    raise RunError(
        f"none of the checkpoints {sorted(damaged)} in {requested.out_dir} is whole "
        f"(step {newest}: {damaged[newest].reason}); nothing was changed. Put one back from a "
        "copy, or choose another out_dir"
    )


def _resumed_from(
    requested: ml_collections.ConfigDict, overrides: set[str], checkpoints: Checkpoints, step: int
) -> Origin:
    meta, init_from = checkpoints.meta(step), requested.init_from
    # The command that forked this run goes on with it when it is given again.
    if init_from not in ("auto", (meta["parent"] or {}).get("init_from")):
        raise UserError(
            "out_dir",
            requested.out_dir,
            f"has step {step}; init_from={init_from} needs an unused directory",
            "Continue the run (init_from=auto) or choose another --config.out_dir.",
        )
    was = from_flat(meta["config"], origin="checkpoint")
    config, lines = resumed_config(requested, overrides, flat(was), meta["overrides"], step=step)
    jump = learning_rate_jump(was, config, step)
    return Origin(
        config,
        sorted(overrides.union(meta["overrides"])),
        lines + ([f"warning: {jump}"] if jump else []),
        checkpoints.restore(step),
        parent=meta["parent"],
    )


def _forked(requested: ml_collections.ConfigDict, overrides: Iterable[str], source: Path) -> Origin:
    is_step = source.parent.name == "checkpoints"
    parent_dir = source.parent.parent if is_step else source
    if not os.path.isdir(parent_dir / "checkpoints"):
        raise UserError(
            "init_from", source, "is neither auto, scratch, a run directory nor a checkpoint"
        )
    with open_for_reading(str(parent_dir), flag="init_from") as checkpoints:
        step = select_step(checkpoints, source.name if is_step else "latest", flag="init_from")
        found = checkpoints.restore(step)
    was = found.meta["config"]
    for name, wanted in flat(requested).items():
        had = was.get(name, KNOBS[name].default)
        if name in _SHAPE and wanted != had:
            raise UserError(
                name, wanted, f"the checkpoint {source} has {had}", "A fork keeps its shape."
            )
    parent = {"init_from": str(source), "step": step, "corpus": found.meta["corpus"]["name"]}
    return Origin(requested, sorted(overrides), [], found, is_fork=True, parent=parent)


def resumed_config(
    requested: ml_collections.ConfigDict,
    overrides: Iterable[str],
    stored: Mapping[str, Any],
    stored_overrides: Iterable[str],
    *,
    step: int,
) -> tuple[ml_collections.ConfigDict, list[str]]:
    """The config a run goes on with, and a line for each knob that differs from before.

    Everything is taken from the checkpoint (`stored`, of `step`) but what the user changed since:
    knobs given on the command line now (`overrides`), and those edited in the config file. A knob
    that was given on the command line when the run started need not be repeated.

    Raises:
      UserError: for a change that would make it another experiment.
    """
    config, lines = default_config(), []
    for name, wanted in flat(requested).items():
        was = stored.get(name, KNOBS[name].default)
        if name in ("out_dir", "init_from"):
            set_knob(config, name, wanted)
        elif name.startswith("mesh."):  # A matter of the machine, not of the run.
            set_knob(config, name, wanted)
            if wanted != was:
                lines.append(f"{name}: {was} → {wanted}")
        elif wanted == was or (name in stored_overrides and name not in overrides):
            set_knob(config, name, was)
            if wanted != was:
                lines.append(f"{name}: {was}, as this run was started (the file says {wanted})")
        elif name in _IDENTITY:
            raise UserError(
                name,
                wanted,
                f"the run in {requested.out_dir}, at step {step}, has {was}: "
                "that would be another experiment",
                "Choose another --config.out_dir, or fork the run: "
                f"--config.init_from={requested.out_dir} with another out_dir.",
            )
        else:
            set_knob(config, name, wanted)
            lines.append(f"{name}: {was} → {wanted}")
    validate(config)
    return config, lines


def learning_rate_jump(
    before: ml_collections.ConfigDict, now: ml_collections.ConfigDict, step: int
) -> str:
    """A warning when the next update's learning rate jumps by over 1 %, else ""."""
    index = jnp.asarray(step, jnp.int32)
    was, becomes = float(learning_rate(before)(index)), float(learning_rate(now)(index))
    if abs(becomes - was) <= 0.01 * max(was, becomes):
        return ""
    return f"the learning rate of update {step} jumps from {was:.3g} to {becomes:.3g}"
