"""All that is to be measured of a GPU, in one go and within a given time.

Each part runs commands of their own, so that one that fails or hangs costs its own figures alone.
What there was no time for, or what failed, stands in the table as not measured, and what each
command said in the folder `logs`.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from gptjax.run.progress import duration
from gptjax.speed.gpu_session import NOT_MEASURED, GPUSession, Part, Row
from gptjax.system import files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError


def measure(
    folder: str,
    parts: Sequence[Part],
    *,
    minutes: float,
    only: str,
    nanogpt: str | None,
    nanogpt_python: str,
    smoke_test: bool,
) -> None:
    """Measures the parts that there is time for and writes `table.md` and the figures.

    Raises:
      UserError: if the folder is in use, or `only` names a part that there is not.
    """
    known = {part.name: part for part in parts}
    chosen = only.split(",") if only else list(known)
    for name in chosen:
        if name not in known:
            raise UserError("--only", name, f"must be of {', '.join(known)}")
    path = Path(folder).absolute()
    if path.exists() and any(path.iterdir()):
        raise UserError("--out_dir", folder, "is in use", "Choose another.")
    path.mkdir(parents=True, exist_ok=True)
    session = GPUSession(
        path,
        minutes=minutes,
        nanogpt=nanogpt,
        nanogpt_python=nanogpt_python,
        is_smoke_test=smoke_test,
    )
    rows: list[Row] = []
    for name in chosen:
        for row in _rows_of(known[name], session):
            rows.append(row)
            # What was measured so far is not lost if the machine is.
            files.write_atomically(path / "table.md", table(rows))
    print(table(rows), end="")


def _rows_of(part: Part, session: GPUSession) -> Iterator[Row]:
    left = session.seconds_left
    if left < part.seconds and not session.is_smoke_test:
        yield Row(part.name, NOT_MEASURED, f"needs {part.seconds:.0f} s, {left:.0f} left")
        return
    print(f"{part.name}: about {duration(part.seconds)}, left {duration(left)}", file=sys.stderr)
    start = time.monotonic()
    session.begin(part)
    try:
        yield from part.measure(session)
    except Exception as error:  # Whatever it is, the other parts are still to be measured.
        yield Row(part.name, NOT_MEASURED, f"{type(error).__name__}: {error}")
    print(f"{part.name}: took {duration(time.monotonic() - start)}", file=sys.stderr)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown has them."""
    lines = ["| what | measured | beside it |", "|---|---|---|"]
    for row in rows:
        cells = (" ".join(cell.replace("|", "/").split()) for cell in dataclasses.astuple(row))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(__file__)
