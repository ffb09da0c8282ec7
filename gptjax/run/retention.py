"""Which checkpoints stay on the disk, and how the others leave it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbax.checkpoint.checkpoint_managers import preservation_policy


class NewestAndBest(preservation_policy.PreservationPolicy):
    """Preserves the newest `keep` checkpoints and the one with the lowest of `vals`.

    Orbax's own ranking, best_fn or AnyPreservationPolicy([LatestN, BestN]), needs metrics that it
    writes itself: best_fn forgets the newest checkpoint for a better one (google/orbax#526),
    takes NaN for the best value, and loses the best when its small file of metrics is damaged.
    `vals` holds the finite losses by step and is kept by the owner.
    """

    def __init__(self, keep: int, vals: Mapping[int, float]):
        self._keep, self._vals = keep, vals

    def should_preserve(
        self,
        checkpoints: Sequence[Any],
        *,
        context: preservation_policy.PreservationContext,
    ) -> Sequence[bool]:
        del context
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        known = [step for step in steps if step in self._vals]
        kept = {*steps[-self._keep :], *sorted(known, key=self._vals.__getitem__)[:1]}
        return [checkpoint.step in kept for checkpoint in checkpoints]


def set_aside(folder: Path) -> Path:
    """Renames the folder of a damaged checkpoint to a name that Orbax overlooks; the new name."""
    names = (folder.with_name(f"{folder.name}.corrupt{n}") for n in ("", *range(1, 1000)))
    aside = next(name for name in names if not os.path.lexists(name))
    os.rename(folder, aside)
    return aside


def empty_trash(checkpoints: Path) -> None:
    """Deletes what Orbax has moved to trash/, which is how it removes old steps at once."""
    trash = checkpoints / "trash"
    if trash.is_symlink():  # Orbax would move old steps to where it leads.
        trash.unlink()
    # The folder itself stays: Orbax's thread may be about to move a step into it.
    for deleted in trash.glob("*"):
        shutil.rmtree(deleted, ignore_errors=True)
