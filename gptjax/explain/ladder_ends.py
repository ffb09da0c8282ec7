"""The two experiments of a ladder: config files, run directories, logs that tell their settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from gptjax.config.config import flat, from_flat, validate
from gptjax.config.config_file import load_config
from gptjax.config.knobs import KNOBS
from gptjax.explain.ladder_steps import comparable
from gptjax.explain.series import Series
from gptjax.explain.sources import read_series
from gptjax.system.errors import UserError

# What a log of another program must tell: all that it has a setting for and that moves a loss.
_NEEDED = tuple(
    name
    for name, knob in KNOBS.items()
    if (knob.nanogpt and knob.in_digest)
    or name in ("data.source", "train.batch_size", "optim.lr_decay_iters")
)

# Texts that are known by their name alone.
_TEXTS = ("tiny_shakespeare", "synthetic")


@dataclasses.dataclass(frozen=True)
class End:
    """An experiment.

    Attributes:
      label: what it is called.
      values: its `comparable` knobs.
      max_tokens: of val, that it was evaluated on; 0 for all.
      corpus_sha256: of the text that it was trained on; "" where that is not known.
    """

    label: str
    values: dict[str, Any]
    max_tokens: int
    corpus_sha256: str = ""


def read_end(flag: str, argument: str) -> End:
    """The experiment that an argument names.

    Raises:
      UserError: if there is none, or one of its settings is not known; `flag` is what gave it.
    """
    if not argument.endswith(".py"):
        return _of_series(flag, argument, read_series(argument))
    path = Path(argument).expanduser()
    if not path.is_file():
        raise UserError(flag, argument, "no such file", "Give a config file or a run directory.")
    config = load_config(str(path), {})
    validate(config)
    return _end(flag, path.stem, flat(config))


def _of_series(flag: str, argument: str, series: Series) -> End:
    known = {name: fact.value for name, fact in series.facts.items() if name in KNOBS}
    corpus = series.value("corpus")
    if corpus == "synthetic" or (corpus in _TEXTS and "data.source" not in known):
        known["data.source"] = corpus  # What it was trained on, whatever had been asked for.
    needed = _NEEDED if series.program != "gptjax" else ("model.n_layer", "data.source")
    missing = [name for name in needed if name not in known]
    if known.get("optim.schedule") == "constant" and "optim.lr_decay_iters" in missing:
        missing.remove("optim.lr_decay_iters")
    if missing:
        raise UserError(
            flag,
            argument,
            f"does not tell {', '.join(missing)}",
            "Write its settings as a config file (configs/shakespeare_char.py is one), and give "
            f"that: {flag} FILE.py.",
        )
    if (parent := series.value("parent")) is not None:
        source = parent.get("init_from", parent) if isinstance(parent, dict) else parent
        raise UserError(flag, argument, f"was forked from {source}; a ladder starts from scratch")
    for name, value in known.items():  # A log may say 0 for 0.0.
        if isinstance(KNOBS[name].default, float) and type(value) is int:
            known[name] = float(value)
    values = flat(from_flat(known, origin=f"{flag} {argument}"))
    return _end(flag, series.label, values, series.value("corpus_sha256", ""))


def _end(flag: str, label: str, values: dict[str, Any], sha256: str = "") -> End:
    if values["init_from"] not in ("auto", "scratch"):
        raise UserError(
            flag, label, f"has init_from {values['init_from']}; a ladder starts from scratch"
        )
    if not values["train.max_iters"]:
        raise UserError(flag, label, "has train.max_iters 0: there is nothing to shorten")
    return End(label, comparable(values), values["eval.max_tokens"], sha256)
