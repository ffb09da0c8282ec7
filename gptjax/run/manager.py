"""Orbax's CheckpointManager, set up for one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax


def manager(orbax: Any, folder: Path, *, read_only: bool) -> Any:
    """A CheckpointManager for a folder that is there, unless it is only read."""
    # A run's other processes neither write nor wait.
    index = jax.process_index()
    options = orbax.CheckpointManagerOptions(
        # Deleting is not atomic, renaming is: old steps go to trash/, which our own code empties.
        todelete_subdir=None if read_only else "trash",
        cleanup_tmp_directories=not read_only,
        create=False,
        read_only=read_only,
        multiprocessing_options=orbax.options.MultiprocessingOptions(
            primary_host=index,
            active_processes={index},
            barrier_sync_key_prefix=f"process{index}",
        ),
    )
    return orbax.CheckpointManager(folder, options=options)
