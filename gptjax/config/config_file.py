"""Where a config comes from: a Python file, and single knobs from the command line.

A config file is a program with a `get_config()` that starts from `default_config()` and updates
it; run only your own. `--config.model.n_layer=6` changes one knob. (ml_collections' own
config_flags answer a mistake with a usage text, where one line can say what is wrong.)
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import re
import textwrap
import traceback
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

import gptjax.config
from gptjax.config.config import default_config, flat, set_knob, validate_each
from gptjax.config.knob import type_name
from gptjax.config.knobs import KNOBS
from gptjax.system.errors import UserError, did_you_mean

# What a config file needs it may also import from the wing itself: `from gptjax.config import …`.
vars(gptjax.config).update(default_config=default_config, set_knob=set_knob)

_A_CONFIG = "A config is a Python file with get_config(); see configs/shakespeare_char.py."


def load_config(path: str, overrides: Mapping[str, str]) -> ml_collections.ConfigDict:
    """The config of a file with the command line's overrides applied; each knob keeps its own rule.

    Rules between knobs are the command's to check: a run that goes on has some of its knobs from
    its checkpoint.

    Raises:
      UserError: if the file is missing, broken or has no `get_config`, or a value breaks its rule.
    """
    config = _config_of_file(path)
    for name, text in overrides.items():
        set_knob(config, name, _parse(name, text))
    for name, value in flat(config).items():
        if KNOBS[name].is_path and isinstance(value, str):
            set_knob(config, name, home_expanded(value))
    validate_each(config)
    return config


def home_expanded(path: str) -> str:
    """A path, which may stand behind its kind, as `text:`, with its ~ expanded."""
    for kind in ("text:", "jsonl:", "tokens:", "gpt2:"):
        if path.startswith(kind):
            return kind + os.path.expanduser(path.removeprefix(kind))
    return os.path.expanduser(path)


def split_overrides(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Splits `--config.NAME=VALUE` arguments off: ({name: text}, the other arguments).

    `--config.NAME VALUE` and a bare `--config.FLAG` (true) are understood as well.
    """
    overrides: dict[str, str] = {}
    others: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if not argument.startswith("--config."):
            others.append(argument)
            continue
        name, equals, text = argument.removeprefix("--config.").partition("=")
        _check_name(f"--config.{name}", name)
        if not equals:
            is_bool = isinstance(KNOBS[name].default, bool)
            bare = is_bool and (not queue or queue[0].startswith("-"))
            if not bare and not queue:
                raise UserError(f"--config.{name}", "(nothing)", "needs a value")
            text = "true" if bare else queue.pop(0)
        overrides[name] = text
    return overrides, others


def _config_of_file(path: str) -> ml_collections.ConfigDict:
    config = called(path, "get_config", _A_CONFIG)
    if isinstance(config, ml_collections.FrozenConfigDict):
        config = ml_collections.ConfigDict(config)  # Knobs are set from the command line, too.
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError("--config", path, "get_config() returned no ConfigDict", _A_CONFIG)
    names = set(_names(config))
    unknown = sorted(names - set(KNOBS))
    if unknown:
        raise UserError(
            "--config", path, f"unknown knob {unknown[0]}", did_you_mean(unknown[0], KNOBS)
        )
    missing = sorted(set(KNOBS) - names)
    if missing:
        raise UserError(
            "--config",
            path,
            f"lacks {missing[0]}",
            "Start from gptjax.config.default_config().",
        )
    return config


def called(path: str, name: str, what_it_is: str, *, flag: str = "--config") -> Any:
    """What the function `name` of a config file returns.

    Raises:
      UserError: saying `what_it_is`, if the file is missing or broken, or has no such function.
    """
    if not os.path.isfile(path):  # Path.is_file raises for a name that is too long.
        rule = "is no file" if os.path.exists(path) else "no such file"
        raise UserError(flag, path, rule, what_it_is)
    if not path.endswith(".py"):
        raise UserError(flag, path, "is not a .py file", what_it_is)
    try:
        loader = _UncachedLoader("gptjax_config_file", path)
        spec = importlib.util.spec_from_loader(loader.name, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        function = getattr(module, name, None)
        if function is None:
            raise UserError(flag, path, f"has no {name}()", what_it_is)
        return function()
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # A program, which may raise anything at all.
        raise UserError(flag, _place_of(error, path), _reason(error), what_it_is) from error


class _UncachedLoader(importlib.machinery.SourceFileLoader):
    """Runs a file as it is now, and leaves no __pycache__ beside it.

    Python takes cached bytecode for a file's if its size and its time in whole seconds are the
    same: a config edited right after a run could be read as it was before.
    """

    def get_code(self, fullname: str) -> types.CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _names(config: ml_collections.ConfigDict, section: str = "") -> Iterator[str]:
    """The dotted name of every value."""
    for key in config:
        if isinstance(config[key], ml_collections.ConfigDict):
            yield from _names(config[key], f"{section}{key}.")
        else:
            yield section + key


def _place_of(error: BaseException, path: str) -> str:
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}" if error.lineno else path
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == Path(path).name
    ]
    return f"{path}:{lines[-1]}" if lines else path


def _reason(error: BaseException) -> str:
    # ml_collections' AttributeError and KeyError already carry "Did you mean ...?", behind a
    # list of all fields that would drown it.
    text = str(error.args[0]) if error.args and not isinstance(error, OSError) else str(error)
    text = re.sub(r' Other fields present: "\{.*\}"', "", text)
    return f"{type(error).__name__}: {' '.join(text.split())}".rstrip(".: ")


def _check_name(flag: str, name: str) -> None:
    if name not in KNOBS:
        short = [knob for knob in KNOBS if _initials(knob) == name]
        hint = did_you_mean(short[0] if short else name, KNOBS) or "Names are listed by --help."
        raise UserError(flag, "(unknown)", "there is no such knob", hint)


def _initials(name: str) -> str:
    """A knob as some write it: optim.lr of optim.learning_rate."""
    section, dot, leaf = name.rpartition(".")
    return section + dot + "".join(word[:1] for word in leaf.split("_"))


def _parse(name: str, text: str) -> bool | int | float | str:
    default = KNOBS[name].default
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        return type(default)(text)
    except (KeyError, ValueError):
        raise UserError(f"--config.{name}", repr(text), f"must be {type_name(default)}") from None


def knob_help() -> str:
    """Every knob with its default, meaning and rule, for --help, in 100 columns."""
    lines = [
        textwrap.fill(
            f"{f'--config.{name}={knob.default}':<42} {knob.meaning}"
            + (f" ({knob.rule})" if knob.rule else ""),
            width=100,
            initial_indent="  ",
            subsequent_indent=" " * 45,
            break_on_hyphens=False,
        )
        for name, knob in KNOBS.items()
    ]
    return "knobs, with their defaults:\n" + "\n".join(lines)
