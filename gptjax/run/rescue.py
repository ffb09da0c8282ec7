"""Checkpoints that were written under a path which Orbax took for a pattern: made readable."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

from gptjax.system.files import plain_path


def rescue(step_folder: Path) -> None:
    """Makes up for a merge that was skipped, if it was, and says so.

    Orbax writes a process' arrays into a folder of its own and then merges what the folders list.
    Up to gptjax 0.1 that was left out below a folder such as `[2026]`: every array is there, and
    no list of them. This is Orbax's own merge, on a plain path.
    """
    state = step_folder / "state"
    if state.is_symlink():  # What it leads to is not ours to write into.
        return
    is_skipped = not (state / "manifest.ocdbt").exists() and any(state.glob("ocdbt.process_*"))
    if not is_skipped:
        return
    # Of Orbax's own modules, which may move: only who needs them depends on where they are.
    from etils import epath
    from orbax.checkpoint._src.serialization.ocdbt_utils import merge_ocdbt_per_process_files
    from orbax.checkpoint._src.serialization.tensorstore_utils import get_ts_context

    with plain_path(state) as plain, contextlib.suppress(Exception):  # Then it is damaged.
        merge = merge_ocdbt_per_process_files(
            epath.Path(plain), get_ts_context(use_ocdbt=True), use_zarr3=False
        )
        asyncio.run(merge)
        words = f"checkpoint {step_folder.name} had no list of its arrays; made one"
        print(f"gptjax: {words}", file=sys.stderr)
