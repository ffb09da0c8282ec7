"""A checkpoint of ours as the folder of a GPT-2 that transformers loads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from gptjax.config.config import flat, from_flat
from gptjax.config.gpt2_json import ALWAYS, json_of
from gptjax.data.token_files import GPT2_VOCABULARY
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
    """Writes config.json and model.safetensors into a folder; returns the number of tensors.

    Raises:
      UserError: naming a knob for which GPT-2 has no counterpart.
      RunError: if a file cannot be written.
    """
    weights, config_json = content(found)
    write_atomically(folder / CONFIG, pretty_json(config_json))
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
    is_gpt2s = tokenizer.vocab_size == GPT2_VOCABULARY
    end_id = GPT2_VOCABULARY - 1 if is_gpt2s else None
    return weights, json_of(model, n_symbols=tokenizer.vocab_size, end_id=end_id)
