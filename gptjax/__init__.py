"""gptjax: train small GPTs with JAX on a laptop or a GPU, and know why a run came out as it did."""

from __future__ import annotations

from gptjax.system import interrupt

# First of all: from here on Ctrl-C ends a script of ours at once.
interrupt.end_scripts_at_once()

import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from gptjax.system import versions  # noqa: E402

if TYPE_CHECKING:
    from gptjax.notebook import Run

__version__ = "0.2.0"

# The clock of a run's ledger starts here: what a command imports first. (The operating system's
# start of the process may be that of a shell which worked for minutes before it became us.)
STARTED = time.perf_counter()

versions.bridge_flax()


def open_run(path: str | Path, *, step: str | int = "best") -> Run:
    """A run directory: its config, its log, its losses, its text, its model (docs/python.md).

    `step` is the checkpoint that is meant: best, latest or a number.

    Raises:
      UserError: if there is no run.
    """
    from gptjax.notebook import Run  # JAX is imported only now

    return Run(path, step=step)
