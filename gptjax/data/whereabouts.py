"""Where Tiny Shakespeare is on this machine, and whether it is whole; no network is asked."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from gptjax.data import corpus, datasets
from gptjax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Whereabouts:
    """`where` is "" if it is not here; `problem` is what is wrong with the copy, or ""."""

    where: str
    problem: str


def tiny_shakespeare() -> Whereabouts:
    """The copy that a run would use, in GPTJAX_DATA_DIR or prepared by TFDS, its sha256 checked."""
    folder = os.environ.get("GPTJAX_DATA_DIR", "")
    file = Path(folder) / "tiny_shakespeare" / "input.txt"
    prepared = datasets.prepared_shakespeare()
    if folder and file.exists():
        where = str(file)
    elif prepared.is_dir():
        where = str(prepared)
    else:
        return Whereabouts("", "")
    try:
        corpus.load("tiny_shakespeare", fallback="")
    except UserError as error:
        return Whereabouts(where, str(error))
    return Whereabouts(where, "")


def unreachable() -> str:
    """Why Tiny Shakespeare could not be downloaded now, within a few seconds; "" if it could."""
    try:
        datasets.probe(corpus.SHAKESPEARE_URL)
    except datasets.Offline as error:
        return str(error)
    return ""
