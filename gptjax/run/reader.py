"""Reading the checkpoints of a run, finished or running; nothing is written but by rescue."""

from __future__ import annotations

import os
from pathlib import Path

from gptjax.run.checkpoint import Checkpoint, Checkpoints
from gptjax.run.directory import has_checkpoints
from gptjax.run.template import Damaged
from gptjax.system.errors import RunError, UserError

# A run prunes one checkpoint for each that it saves: to be too late for so many is no accident.
_TRIES = 5


def read_checkpoint(out_dir: str, step: str, *, flag: str = "--out_dir") -> Checkpoint:
    """The checkpoint that `--step best|latest|N` names.

    `flag` is what errors name: where the directory was given.

    Raises:
      UserError: if there is no run or no such checkpoint.
      RunError: if the checkpoint is damaged.
    """
    step_flag = "--step" if flag == "--out_dir" else flag
    for _ in range(_TRIES):
        with open_for_reading(out_dir, flag=flag) as checkpoints:
            chosen = select_step(checkpoints, step, flag=step_flag)
            try:
                return checkpoints.restore(chosen)
            except Damaged:
                if os.path.lexists(Path(out_dir, "checkpoints", str(chosen))):
                    raise
        # A run that goes on has a newer one in its place: looked for anew.
    raise RunError(f"step {chosen} of {out_dir} was replaced while it was read; try again")


def run_and_step(out_dir: str, step: str) -> tuple[str, str]:
    """A run directory and a step; `out_dir` may name both: RUN/checkpoints/40.

    Raises:
      UserError: if they name two steps.
    """
    path = Path(out_dir)
    if path.parent.name == "checkpoints" and path.name.isdecimal():
        if step.isdecimal() and int(step) != int(path.name):
            raise UserError("--step", step, f"--out_dir {out_dir} is that of another step")
        return str(path.parent.parent), path.name
    return out_dir, step


def open_for_reading(out_dir: str, *, flag: str = "--out_dir") -> Checkpoints:
    """The checkpoints of a finished or running run; creates nothing.

    `flag` is what errors name: where the directory was given.

    Raises:
      UserError: if there is no run or it has no checkpoint.
    """
    if not has_checkpoints(Path(out_dir)):
        raise UserError(flag, out_dir, "holds no run", "Train one: scripts/train.py")
    checkpoints = Checkpoints(Path(out_dir), read_only=True)
    if not checkpoints.steps():
        raise UserError(flag, out_dir, "has no checkpoint yet")
    return checkpoints


def select_step(checkpoints: Checkpoints, wanted: str, *, flag: str = "--step") -> int:
    """The step that `--step best|latest|N` names.

    Raises:
      UserError: if it names no checkpoint.
    """
    steps = checkpoints.steps()
    if wanted == "latest":
        return steps[-1]
    if wanted == "best":
        # Before the first evaluation there is no best: then the newest is meant.
        best = checkpoints.best()
        return steps[-1] if best is None else best
    if not wanted.isdecimal() or int(wanted) not in steps:
        have = ", ".join(map(str, steps))
        raise UserError(flag, wanted, f"must be best, latest or one of {have}")
    return int(wanted)
