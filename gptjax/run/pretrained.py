"""A GPT-2's weights to start from: where they are, which model they call for, and its state."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from gptjax.config.config import GPTConfig, flat, from_flat, model_config, set_knob, validate
from gptjax.config.gpt2_json import knobs_of
from gptjax.data import hub
from gptjax.model import interop
from gptjax.run import safetensors_file
from gptjax.run.progress import Notice
from gptjax.run.safetensors_file import Stored
from gptjax.system.errors import UserError
from gptjax.update.optim import optimizer
from gptjax.update.step import TrainState

KIND = "gpt2:"
_FLAG, CONFIG = "init_from", "config.json"

# What is fetched of a repository, which may hold the weights in five forms.
_PATTERNS = (CONFIG, "model*.safetensors", safetensors_file.INDEX)

# A name at the hub; paths begin otherwise, or are folders.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)

# What the weights can do without: fewer positions, and another function in the MLP.
_FREE = ("model.block_size", "model.mlp")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A GPT-2's weights that have been looked at; `state` reads them.

    Attributes:
      source: as it was given, behind init_from=.
      knobs: those of its model.
      vocab_size: rows of its token embedding.
      stored: where its tensors are, by nanoGPT's names.
    """

    source: str
    knobs: Mapping[str, Any]
    vocab_size: int
    stored: Mapping[str, tuple[str, Stored]]

    def config(
        self, requested: ml_collections.ConfigDict, overrides: Collection[str]
    ) -> tuple[ml_collections.ConfigDict, list[Notice]]:
        """The config with the model that the weights are of, and a notice for each changed knob.

        `overrides`, names of knobs given on the command line, must not contradict them.

        Raises:
          UserError: naming a knob that does.
        """
        config, notices = requested.copy_and_resolve_references(), []
        knobs, wanted = {**self.knobs}, flat(requested)
        positions, block_size = knobs.pop("model.block_size"), wanted["model.block_size"]
        if block_size > positions:
            rule = f"{self.source} has {positions} positions"
            fix = f"Set --config.model.block_size={positions} or lower."
            raise UserError("model.block_size", block_size, rule, fix)
        if self.vocab_size % wanted["model.vocab_multiple"]:
            knobs["model.vocab_multiple"] = 1
        for name, value in knobs.items():
            if wanted[name] == value or (name in _FREE and name in overrides):
                continue
            if name in overrides:
                rule = f"the weights of {self.source} have {value}"
                raise UserError(name, wanted[name], rule, "They keep their shape.")
            set_knob(config, name, value)
            notices.append(Notice(f"{name}: {value}, as the weights have it"))
        validate(config)
        return config, notices

    def state(self, config: ml_collections.ConfigDict, n_symbols: int) -> TrainState:
        """The state before the first update, for a tokenizer of so many symbols, on the host.

        Raises:
          UserError: if the vocabulary is another, or the weights hold what is no number.
        """
        model = model_config(config, n_symbols)
        if model.vocab_size != self.vocab_size:
            rule = f"its vocabulary of {self.vocab_size} is not the text's, of {n_symbols} symbols"
            raise UserError(_FLAG, self.source, rule, "Give text in its own tokens.")
        try:
            params = interop.to_params(_Numbers(self.stored, model), model, is_conv1d=True)
        except ValueError as error:
            raise UserError(_FLAG, self.source, str(error)) from error
        dtype = jnp.dtype(model.param_dtype)
        held = jax.tree.map(lambda leaf: leaf.astype(dtype, copy=False), params)
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            # Masters are made of what was read, moments as wide as what is held.
            masters = config.optim.master_weights
            opt_state = optimizer(config).init(params if masters else held)
            return TrainState(jnp.zeros((), jnp.int32), held, opt_state)


class _Numbers(Mapping[str, np.ndarray]):
    """The weights by nanoGPT's names, each read when it is asked for; positions cut to fit."""

    def __init__(self, stored: Mapping[str, tuple[str, Stored]], model: GPTConfig):
        self._stored, self._model = stored, model

    def __getitem__(self, name: str) -> np.ndarray:
        found = safetensors_file.array(*self._stored[name])
        return found[: self._model.block_size] if name == interop.POSITIONS else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def is_named(init_from: str) -> bool:
    """Whether init_from names a GPT-2's weights."""
    return init_from.startswith(KIND)


def read(source: str) -> Pretrained:
    """The weights of gpt2:PATH or gpt2:HUB_ID; only their names and shapes are read.

    Raises:
      UserError: if they cannot be had, or are not those of a GPT-2.
    """
    folder = _folder(source)
    path = folder / CONFIG
    config_json = safetensors_file.json_file(path, flag=_FLAG)
    try:
        knobs, vocab_size = knobs_of(config_json)
    except ValueError as error:
        raise UserError(_FLAG, path, f"is of no GPT-2 that gptjax has: {error}") from error
    model = model_config(from_flat(knobs, origin=str(path)), vocab_size)
    tensors = safetensors_file.tensors(folder, flag=_FLAG)
    try:
        stored = {
            name: (theirs, tensors[theirs])
            for name, theirs in interop.gpt2_names(tensors, model).items()
        }
        _check_kinds(stored, model)
    except ValueError as error:
        rule = f"its weights are not those of its {CONFIG}: {error}"
        raise UserError(_FLAG, source, rule) from error
    head = stored.pop(interop.HEAD, None)
    if head and not np.array_equal(_numbers(head), _numbers(stored[interop.TOKENS])):
        rule = f"its {interop.HEAD} is not its token embedding, and a GPT-2's is"
        raise UserError(_FLAG, source, rule)
    return Pretrained(source, knobs, vocab_size, stored)


def _numbers(stored: tuple[str, Stored]) -> np.ndarray:
    return safetensors_file.array(*stored)


def _check_kinds(stored: Mapping[str, tuple[str, Stored]], model: GPTConfig) -> None:
    """Raises ValueError for a tensor of another shape than the model has, or not in float32."""
    wanted = dict(interop.shapes(model, is_conv1d=True))
    wanted[interop.HEAD] = wanted[interop.TOKENS]
    for name, (theirs, found) in stored.items():
        if found.shape != wanted[name]:
            raise ValueError(f"{theirs} is {found.shape}, and must be {wanted[name]}")
        if found.dtype != "F32":
            raise ValueError(f"{theirs} is {found.dtype}, and must be F32 (float32)")


def _folder(source: str) -> Path:
    """Where the weights are; fetched from the hub, if that is meant.

    Raises:
      UserError: if they cannot be had.
    """
    name = source.removeprefix(KIND)
    if not name:
        raise UserError(_FLAG, source, "names no weights", f"Write {KIND}FOLDER or {KIND}HUB_ID.")
    folder = Path(name)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(_FLAG, source, "is not a folder", "Give the folder that it is in.")
    if not _REPOSITORY.fullmatch(name):
        raise UserError(_FLAG, source, "no such folder")
    otherwise = "Copy its files here and give their folder: gpt2:PATH."
    return hub.folder_of(name, _PATTERNS, flag=_FLAG, value=source, otherwise=otherwise)
