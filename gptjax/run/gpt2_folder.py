"""A checkpoint of ours as the folder of a GPT-2 that transformers loads."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from gptjax.config.config import flat, from_flat
from gptjax.config.gpt2_json import ALWAYS, json_of
from gptjax.data.bpe_rules import END_OF_TEXT
from gptjax.data.token_files import GPT2_VOCABULARY
from gptjax.data.vocabulary_files import MERGES, VOCABULARY
from gptjax.model import interop
from gptjax.run import safetensors_file
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.metadata import model_config, stored_tokenizer
from gptjax.run.pretrained import CONFIG
from gptjax.system.errors import UserError
from gptjax.system.files import pretty_json, write_atomically


def check_is_gpt2(config: ml_collections.ConfigDict) -> None:
    """Raises UserError, naming the knob, for a model that GPT-2 has not."""
    for name, value in flat(config).items():
        # Biases of zero are as good as none.
        if name in ALWAYS and value != ALWAYS[name] and name != "model.bias":
            raise UserError(name, value, f"no GPT-2 has it, only {ALWAYS[name]}")


def write(found: Checkpoint, folder: Path) -> int:
    """Writes config.json, model.safetensors and a BPE's files; returns the number of tensors.

    Raises:
      UserError: naming a knob for which GPT-2 has no counterpart.
      RunError: if a file cannot be written.
    """
    weights, config_json = content(found)
    texts = {CONFIG: pretty_json(config_json), **tokenizer_files(found.meta["tokenizer"])}
    for name, text in texts.items():
        write_atomically(folder / name, text)
    safetensors_file.write(folder / safetensors_file.WHOLE, weights)
    return len(weights)


def content(found: Checkpoint) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights by transformers' names, and the config.json of their model.

    Symbols that pad the vocabulary are left out: transformers would sample them.

    Raises:
      UserError: naming a knob for which GPT-2 has no counterpart.
    """
    check_is_gpt2(from_flat(found.meta["config"], origin="checkpoint"))
    model, tokenizer = model_config(found.meta), stored_tokenizer(found.meta)
    ours = interop.from_params(found.state.params, model, is_conv1d=True)
    with_biases = dataclasses.replace(model, bias=True, vocab_size=tokenizer.vocab_size)
    weights = {}
    for name, shape in interop.shapes(with_biases, is_conv1d=True):
        values = ours.pop(name, None)
        weights[name] = (
            np.zeros(shape, np.float32)
            if values is None
            else np.asarray(values[: shape[0]], np.float32)
        )
    end_id = _end_id(found.meta["tokenizer"], tokenizer.vocab_size)
    return weights, json_of(model, n_symbols=tokenizer.vocab_size, end_id=end_id)


def tokenizer_files(tokenizer: Mapping[str, Any]) -> dict[str, str]:
    """What transformers' GPT2Tokenizer reads, by file name, of a BPE as checkpoints describe it.

    Nothing for characters, and for ids of which nothing is known.
    """
    if tokenizer["kind"] != "bpe":
        return {}
    tokens = tokenizer["tokens"].split("\n")
    end = END_OF_TEXT if END_OF_TEXT in tokens else None
    described = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), end),
    }
    numbers = {token: number for number, token in enumerate(tokens)}
    return {
        VOCABULARY: json.dumps(numbers, ensure_ascii=False),
        MERGES: f"#version: 0.2\n{tokenizer['merges']}\n",
        "tokenizer_config.json": pretty_json(described),
    }


def _end_id(tokenizer: Mapping[str, Any], n_symbols: int) -> int | None:
    """The id that ends a text; None if nothing does, or that is not known."""
    if tokenizer["kind"] == "bpe":
        tokens = tokenizer["tokens"].split("\n")
        return tokens.index(END_OF_TEXT) if END_OF_TEXT in tokens else None
    is_gpt2s = tokenizer["kind"] == "ids" and n_symbols == GPT2_VOCABULARY
    return GPT2_VOCABULARY - 1 if is_gpt2s else None
