"""A run, opened in a notebook or a program: what `gptjax.open_run` returns."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import nnx

from gptjax import sample
from gptjax.config.config import from_flat
from gptjax.data.tokenizer import Tokenizer
from gptjax.device import kernels
from gptjax.model.gpt import GPT
from gptjax.run.checkpoint import Checkpoint
from gptjax.run.final_peak import final_mfus
from gptjax.run.inputs import read_val_ids
from gptjax.run.metadata import model_config, stored_tokenizer
from gptjax.run.reader import read_checkpoint, run_and_step
from gptjax.run.runlog import read_records
from gptjax.run.whole_split import Evaluation, measure_loss
from gptjax.system.errors import UserError
from gptjax.update.step import model_graph


class Losses:
    """The evaluations of a run, an array entry each; losses in nats per token.

    Attributes:
      steps: updates made.
      val, train: the mean loss on each split.
      val_sem, train_sem: its standard error; NaN where there is none (one window).
    """

    def __init__(self, evaluations: dict[str, np.ndarray]):
        none = np.full(len(evaluations.get("step", ())), np.nan)
        self.steps = evaluations.get("step", np.zeros(0, np.int64))
        self.val = evaluations.get("val_loss", none)
        self.val_sem = evaluations.get("val_sem", none)
        self.train = evaluations.get("train_loss", none)
        self.train_sem = evaluations.get("train_sem", none)

    def __repr__(self) -> str:
        return f"Losses({len(self.steps)} evaluations: steps, val, val_sem, train, train_sem)"


class Run:
    """A run directory; what is read of it is read when it is asked for, and nothing is written.

    Attributes:
      path: the run directory.
    """

    def __init__(self, path: str | Path, *, step: str | int = "best"):
        """`path` is the run directory or a checkpoint in it; `step` is best, latest or a number.

        Raises:
          UserError: if there is no run; later, if there is no such checkpoint.
        """
        folder, self._step = run_and_step(str(Path(path).expanduser()), str(step))
        self.path = Path(folder)
        if not (self.path / "config.json").is_file():
            raise UserError("open_run", path, "holds no run", "Train one: scripts/train.py")

    def __repr__(self) -> str:
        return f"open_run({str(self.path)!r}, step={self._step!r})"

    @functools.cached_property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that all below is about: verified, read once, kept.

        Raises:
          UserError: if there is none of that step.
          RunError: if it is damaged.
        """
        sample.prepare()
        return read_checkpoint(str(self.path), self._step, flag="open_run")

    @property
    def config(self) -> ml_collections.ConfigDict:
        """Every knob of the run, as it was last started."""
        path = self.path / "config.json"
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError("config.json", path, f"cannot be read: {error}") from error
        return from_flat(values, origin=str(path))

    @property
    def metrics(self) -> dict[str, dict[str, np.ndarray]]:
        """The log as it stands now: metrics["train"]["loss"] has an entry for each such record.

        Numbers that a record has not are NaN. What is no number is an object.
        """
        records_of: dict[str, list[dict[str, Any]]] = {}
        for record in read_records(self.path / "metrics.jsonl"):
            records_of.setdefault(record.pop("kind"), []).append(record)
        return {kind: _columns(records) for kind, records in records_of.items()}

    @property
    def mfu(self) -> np.ndarray:
        """The MFU of each `train` record over the highest peak that the log knows by now.

        metrics["train"]["mfu"] is over the one that was known at the time: as it was shown.
        """
        return np.array(final_mfus(read_records(self.path / "metrics.jsonl")), np.float64)

    def frame(self, kind: str = "train") -> Any:
        """The records of a kind as a pandas DataFrame.

        Raises:
          UserError: if pandas is not installed, or the log has no such records.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError("frame", "pandas", "is not installed", "pip install pandas") from error
        metrics = self.metrics
        if kind not in metrics:
            raise UserError("frame", kind, f"the log has {', '.join(metrics) or 'no records'}")
        return pandas.DataFrame(metrics[kind])

    @property
    def losses(self) -> Losses:
        """The evaluations in the log as it stands now."""
        return Losses(self.metrics.get("eval", {}))

    @property
    def tokenizer(self) -> Tokenizer:
        """What turns text into the model's ids and back."""
        return stored_tokenizer(self.checkpoint.meta)

    def model(self) -> GPT:
        """The model with the checkpoint's weights: model(ids) are logits, axes BTV, no dropout."""
        # The attention that takes every device and every length up to block_size.
        config = kernels.with_attention(model_config(self.checkpoint.meta), "xla", jax.devices()[0])
        return nnx.merge(model_graph(config), jax.device_put(self.checkpoint.state.params))

    def generate(
        self,
        prompt: str = "",
        *,
        prompt_file: str = "",
        num_samples: int = 10,
        max_new_tokens: int = 500,
        temperature: float = 0.8,
        top_k: int = 200,
        seed: int = 1337,
        stride: int = 1,
    ) -> list[str]:
        """The texts that scripts/sample.py prints for the same arguments, each with its prompt.

        Raises:
          UserError: for a number out of range or a character that the model does not know.
        """
        return sample.sampled_texts(
            self.checkpoint,
            prompt=prompt,
            prompt_file=prompt_file,
            num_samples=num_samples,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            stride=stride,
        )

    def evaluate(self, *, context: int = 0) -> Evaluation:
        """The loss over the whole validation split, as scripts/evaluate.py prints it.

        Raises:
          UserError: if the context is longer than the model's, or the split is not there.
        """
        ids = read_val_ids(self.path, self.checkpoint.meta["val_sha256"])
        return measure_loss(self.checkpoint, ids, context=context)


def _columns(records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The values of each key, in the order of the records."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: _column([record.get(name) for record in records]) for name in names}


def _column(values: list[Any]) -> np.ndarray:
    """Integers or floats where all values are numbers or missing; objects otherwise."""
    kinds = {type(value) for value in values}
    if kinds == {int} or kinds == {bool}:
        return np.array(values)
    if kinds <= {int, float, type(None)}:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return np.fromiter(values, object, len(values))
