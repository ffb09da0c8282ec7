"""Short runs whose results are kept in a folder: what is there is not run again."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from gptjax.config.config import from_flat, model_config
from gptjax.config.knobs import KNOBS
from gptjax.data import batches
from gptjax.data.splits import check_lengths
from gptjax.device.formula import formula_flops
from gptjax.model.gpt import expected_parameters
from gptjax.run.inputs import Inputs, read_inputs
from gptjax.run.records import versions
from gptjax.run.short_run import OF_EACH_RUN, ShortRun, Text, placed
from gptjax.system import files


class KeptRuns:
    """Val of configs after all their updates, each made once.

    A result is a file, under a digest of all that its number depends on: the knobs, the text, how
    val is read, the device, the versions of the libraries.
    """

    def __init__(self, folder: Path, device: jax.Device, *, context: int, max_tokens: int):
        """Val is read in windows of `context` tokens, `max_tokens` of them (0: the whole split)."""
        self._folder, self._device = folder, device
        self._context, self._max_tokens = context, max_tokens
        self._inputs: dict[tuple[Any, ...], tuple[Inputs, Text]] = {}
        self._programs: dict[str, ShortRun] = {}

    def inputs(self, values: Mapping[str, Any]) -> Inputs:
        """The text of a config, read once.

        Raises:
          UserError: if it cannot be had, or is too short for the config.
        """
        found = self._read(values)[0]
        check_lengths(found.splits, values["model.block_size"])
        return found

    def _read(self, values: Mapping[str, Any]) -> tuple[Inputs, Text]:
        key = tuple(value for name, value in values.items() if name.startswith("data."))
        if key not in self._inputs:
            found = read_inputs(from_flat(values, origin="config"))
            self._inputs[key] = found, placed(found, self._device)
        return self._inputs[key]

    def val_windows(self, values: Mapping[str, Any]) -> np.ndarray:
        """Where the windows of val begin that a config is evaluated on."""
        n_tokens = self.inputs(values).n_tokens["val"]
        return batches.sweep_offsets(
            n_tokens=n_tokens, block_size=self._context, max_tokens=self._max_tokens
        )

    def kept(self, values: Mapping[str, Any]) -> float | None:
        """Val of a config that was run before, nats per token; None of another."""
        try:
            found = json.loads(self._path(values).read_text(encoding="utf-8"))["val"]
        except (OSError, ValueError, KeyError, TypeError):
            return None  # There is none, or it was damaged: it is made again.
        return found if isinstance(found, float) and math.isfinite(found) else None

    def make(self, values: Mapping[str, Any], told: Callable[[int], None]) -> float:
        """Runs a config, and keeps its val. `told` is called with the updates made so far.

        Raises:
          RunError: if a number is not finite, or the result cannot be written.
        """
        program = self.program(values)
        val = program.run(from_flat(values, origin="config"), told=told)
        result = {"val": val.mean, "sem": val.sem if math.isfinite(val.sem) else None}
        result |= {"update_ms": 1e3 * program.update_seconds, **self._identity(values)}
        path = self._path(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomically(path, files.pretty_json(result))
        return val.mean

    def program(self, values: Mapping[str, Any]) -> ShortRun:
        """The compiled program of a config: the same one for all seeds and lengths."""
        key = json.dumps({n: v for n, v in values.items() if n not in OF_EACH_RUN})
        if key not in self._programs:
            self._programs[key] = ShortRun(
                from_flat(values, origin="config"),
                self._read(values)[1],
                self._device,
                val_W=self.val_windows(values),
                context=self._context,
            )
        return self._programs[key]

    def flops(self, values: Mapping[str, Any]) -> float:
        """Of a config's update, by the formula."""
        config = from_flat(values, origin="config")
        model = model_config(config, self.inputs(values).tokenizer.vocab_size)
        return formula_flops(
            n_layer=model.n_layer,
            n_embd=model.n_embd,
            block_size=model.block_size,
            n_params=expected_parameters(model),
            n_tokens=config.train.batch_size * model.block_size,
        )

    def _identity(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """All that a result depends on."""
        corpus = self.inputs(values).corpus
        return {
            "config": {name: value for name, value in values.items() if KNOBS[name].in_digest},
            "corpus": {"name": corpus.name, "sha256": corpus.sha256},
            "context": self._context,
            "max_tokens": self._max_tokens,
            "device": self._device.device_kind,
            "versions": versions(),
        }

    def _path(self, values: Mapping[str, Any]) -> Path:
        said = json.dumps(self._identity(values), sort_keys=True)
        return self._folder / "runs" / f"{hashlib.sha256(said.encode()).hexdigest()[:16]}.json"
