"""What Orbax and TensorStore print beside what they raise: left out, since gptjax tells it."""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any


@functools.cache
def orbax_in_silence() -> Any:
    """Orbax, imported only now: a fifth of a second that XLA may have for itself.

    From here on its loggers are still, and so are late calls of their callbacks: it warns of each
    array that it restores as numpy, which is what is wanted here, and logs what it raises as well.
    """
    import orbax.checkpoint

    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.unraisablehook = _report_unraisable
    return orbax.checkpoint


def _report_unraisable(unraisable: Any) -> None:
    """Leaves out what TensorStore says when it fails after Orbax has closed its event loop.

    The failure itself is raised; only the late calls of its callbacks would be printed.
    """
    if "Event loop is closed" not in str(unraisable.exc_value):
        sys.__unraisablehook__(unraisable)
