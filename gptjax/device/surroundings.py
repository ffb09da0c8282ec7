"""What surrounds a run: its text, room for what it writes, what the environment sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from gptjax.data import whereabouts
from gptjax.system import cache, files, room

# What JAX, XLA, CUDA and gptjax itself heed.
_HEEDED = ("CUDA_VISIBLE_DEVICES", "GPTJAX_", "JAX_", "XLA_")

_FALLBACK = "Recipes that want it train on the synthetic text instead"


def data(unreachable: str) -> dict[str, str]:
    """Where Tiny Shakespeare is or comes from; `unreachable` is why it cannot be downloaded."""
    here = whereabouts.tiny_shakespeare()
    if here.problem:
        words = f"{here.where} is no use: {here.problem}"
    elif here.where:
        words = f"{here.where}, sha256 right"
    elif unreachable:
        words = f"not here. {_FALLBACK}, or put it at $GPTJAX_DATA_DIR/tiny_shakespeare/input.txt"
    else:
        words = "not here; train.py will download it (1.1 MB)"
    network = f"no: {unreachable}" if unreachable else "yes, where Tiny Shakespeare is"
    return {"where": here.where, "problem": here.problem, "words": words, "network": network}


def free_room(root: Path, out_dir: Path) -> dict[str, Any]:
    """Memory and disk that are free, and what the cache takes; Linux's files are below `root`."""
    kept = cache.folder()
    return {
        "free_memory_bytes": room.free_memory(root),
        "free_disk_bytes": files.free_space(out_dir),
        "cache_bytes": room.folder_bytes(kept) if kept else 0,
        "cache_is_writable": kept is not None and room.is_writable(kept),
    }


def settings(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Where things are kept between runs, None for nowhere, and the variables that change a run."""
    kept = cache.folder()
    return {
        "cache": str(kept) if kept else None,
        # As `keep_compiled_programs` has set it, or who runs the command.
        "compiled programs": jax.config.values["jax_compilation_cache_dir"],
        "data": environment.get("GPTJAX_DATA_DIR"),
        **{name: environment[name] for name in sorted(environment) if name.startswith(_HEEDED)},
    }
