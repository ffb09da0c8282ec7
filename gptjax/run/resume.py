"""What a run starts from: nothing, its own newest checkpoint, or another run's.

A run that goes on may change some knobs; others would make it another experiment. Which ones stands
on each knob: `on_resume`, `fixed_in_fork`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from gptjax.config.config import default_config, flat, from_flat, set_knob, validate
from gptjax.config.knobs import KNOBS
from gptjax.data import corpus
from gptjax.run import pretrained
from gptjax.run.changes import learning_rate_jump
from gptjax.run.checkpoint import Checkpoint, Checkpoints
from gptjax.run.directory import has_checkpoints, is_used
from gptjax.run.inputs import forked_config
from gptjax.run.progress import Notice
from gptjax.run.reader import read_checkpoint
from gptjax.run.runlog import check_nothing_lost
from gptjax.run.template import Damaged
from gptjax.system.errors import RunError, UserError
from gptjax.update.step import TrainState


@dataclasses.dataclass(frozen=True)
class ResumePlan:
    """What a run starts from, and the config it runs with.

    Attributes:
      config: all knobs, checked.
      overrides: names of the knobs given on a command line, now or when the run was started.
      notices: what differs from before, for the user.
      checkpoint: the one it goes on from, None for a new run.
      is_fork: whether that is another run's.
      parent: the run that it was forked from, or the weights that it began with, now or earlier.
      weights: another program's, that it begins with.
    """

    config: ml_collections.ConfigDict
    overrides: list[str]
    notices: list[Notice] = dataclasses.field(default_factory=list)
    checkpoint: Checkpoint | None = None
    is_fork: bool = False
    parent: dict[str, Any] | None = None
    weights: pretrained.Pretrained | None = None

    @property
    def step(self) -> int:
        """Updates made before this process."""
        return self.checkpoint.step if self.checkpoint else 0

    @property
    def is_resumed(self) -> bool:
        """Whether the run in out_dir goes on; a fork is a new run."""
        return self.checkpoint is not None and not self.is_fork

    @property
    def meta(self) -> dict[str, Any] | None:
        """What this very run said of itself before; None for one that begins."""
        return self.checkpoint.meta if self.checkpoint and self.is_resumed else None

    def state(self, n_symbols: int) -> TrainState | None:
        """What the run goes on from, on the host; None for a new one.

        Raises:
          UserError: if the weights are of another vocabulary than a tokenizer's `n_symbols`.
        """
        if self.weights:
            return self.weights.state(self.config, n_symbols)
        return self.checkpoint.state if self.checkpoint else None


def resume_plan(requested: ml_collections.ConfigDict, overrides: Iterable[str]) -> ResumePlan:
    """What `init_from` and the state of `out_dir` amount to; creates nothing.

    Checkpoints newer than the one gone on from are damaged: they are renamed.

    Raises:
      UserError: if the directory is used and the config does not continue what is in it, or for
        knobs that do not go together.
      RunError: if there are checkpoints, but none that is whole.
    """
    run_dir, init_from = Path(requested.out_dir), requested.init_from
    if has_checkpoints(run_dir):
        with Checkpoints(run_dir, read_only=True) as checkpoints:
            if checkpoints.steps():
                return _resumed(requested, set(overrides), checkpoints)
    if init_from == "scratch" and is_used(run_dir):
        raise UserError(
            "out_dir", run_dir, "a run has begun in it", "Choose another --config.out_dir."
        )
    check_nothing_lost(run_dir)
    if pretrained.is_named(init_from):
        return _from_weights(requested, set(overrides))
    validate(requested)
    if init_from in ("auto", "scratch"):
        return ResumePlan(requested, sorted(overrides))
    return _forked(requested, overrides, Path(init_from))


def _resumed(
    requested: ml_collections.ConfigDict, overrides: set[str], checkpoints: Checkpoints
) -> ResumePlan:
    """The run goes on from its newest checkpoint that is whole; never from the beginning."""
    damaged: dict[int, Damaged] = {}
    for step in reversed(checkpoints.steps()):
        try:
            plan = _resumed_from(requested, overrides, checkpoints, step)
        except Damaged as error:
            damaged[step] = error
            continue
        renamed = [
            Notice(
                f"checkpoint {bad} is damaged ({error.reason}); it is now called "
                f"{checkpoints.set_aside(bad).name}",
                "warning",
            )
            for bad, error in damaged.items()
        ]
        return dataclasses.replace(plan, notices=renamed + plan.notices)
    newest = max(damaged)
    raise RunError(
        f"none of the checkpoints {sorted(damaged)} in {requested.out_dir} is whole "
        f"(step {newest}: {damaged[newest].reason}); nothing was changed. Put one back from a "
        "copy, or choose another out_dir"
    )


def _resumed_from(
    requested: ml_collections.ConfigDict, overrides: set[str], checkpoints: Checkpoints, step: int
) -> ResumePlan:
    meta, init_from = checkpoints.meta(step), requested.init_from
    # The command that forked this run goes on with it when it is given again.
    parent = (meta["parent"] or {}).get("init_from", "")
    # Told by what it names: a shell completes a folder's name with a slash.
    if init_from != "auto" and os.path.abspath(init_from) != os.path.abspath(parent):
        raise UserError(
            "out_dir",
            requested.out_dir,
            f"has step {step}; init_from={init_from} needs an unused directory",
            "Continue the run (init_from=auto) or choose another --config.out_dir.",
        )
    was = from_flat(meta["config"], origin="checkpoint")
    config, notices = resumed_config(requested, overrides, flat(was), meta["overrides"], step=step)
    if config.data.source != was.data.source:
        corpus.load_again(config.data.source, meta["corpus"])  # Refuses any but the same text.
    return ResumePlan(
        config,
        sorted(overrides.union(meta["overrides"])),
        notices + learning_rate_jump(was, config, step),
        checkpoints.restore(step),
        parent=meta["parent"],
    )


def _from_weights(requested: ml_collections.ConfigDict, overrides: set[str]) -> ResumePlan:
    """A new run that begins with a GPT-2's weights; their model stays, whatever a file says."""
    weights = pretrained.read(requested.init_from)
    config, notices = weights.config(requested, overrides)
    parent = {"init_from": weights.source, "step": 0, "corpus": ""}
    overrides = overrides.union(weights.knobs)  # So that they stay when the run goes on.
    return ResumePlan(config, sorted(overrides), notices, parent=parent, weights=weights)


def _forked(
    requested: ml_collections.ConfigDict, overrides: Iterable[str], source: Path
) -> ResumePlan:
    is_step = source.parent.name == "checkpoints"
    parent_dir = source.parent.parent if is_step else source
    if not has_checkpoints(parent_dir):
        raise UserError(
            "init_from",
            source,
            "is neither auto, scratch, a run directory nor a checkpoint",
            "GPT-2's weights are gpt2:FOLDER or gpt2:HUB_ID, as gpt2:openai-community/gpt2.",
        )
    step = source.name if is_step else "latest"
    found = read_checkpoint(str(parent_dir), step, flag="init_from")
    was = found.meta["config"]
    for name, wanted in flat(requested).items():
        had = was.get(name, KNOBS[name].default)
        if KNOBS[name].fixed_in_fork and wanted != had:
            raise UserError(
                name, wanted, f"the checkpoint {source} has {had}", "A fork keeps its shape."
            )
    if requested.train.max_iters <= found.step:
        raise UserError(
            "train.max_iters",
            requested.train.max_iters,
            f"the checkpoint {source} is at step {found.step}: a fork would make no update",
            f"Set --config.train.max_iters above {found.step}.",
        )
    parent = {"init_from": str(source), "step": found.step, "corpus": found.meta["corpus"]["name"]}
    config = forked_config(requested, set(overrides), found)
    return ResumePlan(config, sorted(overrides), [], found, is_fork=True, parent=parent)


def resumed_config(
    requested: ml_collections.ConfigDict,
    overrides: Iterable[str],
    stored: Mapping[str, Any],
    stored_overrides: Iterable[str],
    *,
    step: int,
) -> tuple[ml_collections.ConfigDict, list[Notice]]:
    """The config a run goes on with, and a notice for each knob that differs from before.

    Everything is taken from the checkpoint (`stored`, of `step`) but what the user changed since:
    knobs given on the command line now (`overrides`), and those edited in the config file. A knob
    that was given on the command line when the run started need not be repeated.

    Raises:
      UserError: for a change that would make it another experiment.
    """
    config, notices = default_config(), []
    for name, wanted in flat(requested).items():
        was, rule = stored.get(name, KNOBS[name].default), KNOBS[name].on_resume
        is_set_before = name in stored_overrides and name not in overrides
        keeps = rule in ("refused", "content", "shown") and is_set_before
        set_knob(config, name, was if keeps else wanted)
        if wanted == was or rule == "place":
            continue
        if keeps:
            words = f"{name}: {was}, as this run was started (the file says {wanted})"
        elif rule == "refused" or (rule == "content" and not corpus.may_be_the_same(was, wanted)):
            corpus.check_source(flat(requested)["data.source"])
            fix = "Choose another --config.out_dir"
            if not KNOBS[name].fixed_in_fork:
                fork = f"--config.init_from={requested.out_dir} with another out_dir"
                fix += f", or fork the run: {fork}"
            raise UserError(
                name,
                wanted,
                f"the run in {requested.out_dir}, at step {step}, has {was}: "
                "that would be another experiment",
                f"{fix}.",
            )
        else:
            words = f"{name}: {was} → {wanted}"
        notices.append(Notice(words))
    validate(config)
    return config, notices
