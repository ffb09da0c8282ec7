"""gptjax: train small GPTs with JAX on a laptop or a GPU, and know why a run came out as it did."""

import time

from gptjax.system import interrupt

# First of all: from here on Ctrl-C ends a script of ours at once.
interrupt.end_scripts_at_once()

from gptjax.system import versions  # noqa: E402

__version__ = "0.2.0"

# The clock of a run's ledger starts here: what a command imports first. (The operating system's
# start of the process may be that of a shell which worked for minutes before it became us.)
STARTED = time.perf_counter()

versions.bridge_flax()
