"""Which checkpoints stay on the disk, how the others leave it, and what a new one must show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from gptjax.system.errors import RunError


def superfluous(steps: Iterable[int], *, keep: int, vals: Mapping[int, float]) -> list[int]:
    """The steps that are neither among the newest `keep` nor the one with the lowest of `vals`.

    Orbax's own ranking, best_fn or AnyPreservationPolicy([LatestN, BestN]), needs metrics that it
    writes itself: best_fn forgets the newest checkpoint for a better one (google/orbax#526), takes
    NaN for the best value, and loses the best when its small file of metrics is damaged. And it
    deletes as soon as a save is committed, whether or not it can be read.
    """
    ordered = sorted(steps)
    best = sorted((step for step in ordered if step in vals), key=vals.__getitem__)[:1]
    return [step for step in ordered[:-keep] if step not in best]


def check_listed(state: Path, names: set[str]) -> None:
    """Raises ValueError unless a checkpoint's folder `state` lists the arrays, `a/b`, as written.

    That list is what Orbax left out where it took a path for a pattern (see rescue.py).
    """
    import tensorstore  # Orbax's own storage; only who saves needs it here.

    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}}
    keys = tensorstore.KvStore.open(store).result().list().result()
    listed = {key.decode().removesuffix("/.zarray").replace(".", "/") for key in keys}
    if missing := sorted(names - listed):
        raise ValueError(f"{len(missing)} of {len(names)} arrays are not listed: {missing[0]}")


def check_room(folder: Path, step: int, needed_bytes: int) -> None:
    """Raises RunError when a checkpoint of this size does not fit the disk."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise RunError(
            f"step {step} could not be saved: it needs {needed_bytes:,} bytes, and "
            f"{free_bytes:,} are free in {folder}; "
            "make room, then run the same command to resume"
        )


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
