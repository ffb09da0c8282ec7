"""Runs of a family on a device: their programs, what they take, and how many go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections

from gptjax.config.config import from_flat
from gptjax.run.group_program import GroupProgram, placed_tokens, program_key
from gptjax.run.inputs import Inputs
from gptjax.run.members import train_members
from gptjax.run.results import Result, result
from gptjax.system.errors import UserError
from gptjax.system.signals import StopRequest


class Timing(NamedTuple):
    """Seconds.

    Attributes:
      update: a run's update where it is trained with others as it will be.
      update_alone: one of a run that has the device for itself.
      evaluation: a run's.
    """

    update: float
    update_alone: float
    evaluation: float


class Trainings:
    """Trains runs that have their text in common, on one device."""

    def __init__(self, inputs: Inputs, device: jax.Device, *, at_once: int):
        """`at_once` runs that are alike make a dispatch; 0: one on a CPU, on a GPU all of them."""
        self._inputs, self._device, self._at_once = inputs, device, at_once
        self._tokens = placed_tokens(inputs, device)
        self._programs: dict[tuple[str, int], GroupProgram] = {}

    @property
    def identity(self) -> dict[str, Any]:
        """What its timings depend on."""
        return {
            "device": self._device.device_kind,
            "at_once": self._at_once,
            "corpus": self._inputs.corpus.sha256,
        }

    def program(self, config: ml_collections.ConfigDict, n_runs: int) -> GroupProgram:
        """The program for so many runs that are like a config."""
        key = (program_key(config), n_runs)
        if key not in self._programs:
            self._programs[key] = GroupProgram(
                config, self._inputs, self._tokens, self._device, n_runs=n_runs
            )
        return self._programs[key]

    def together(self, values: Mapping[str, Any], n_alike: int) -> int:
        """How many of so many runs with such knobs make a dispatch."""
        # On two CPU cores several together are no faster than one after the other: docs/ladder.md.
        n = min(n_alike, self._at_once or (1 if self._device.platform == "cpu" else n_alike))
        while n > 1:
            try:
                self.program(from_flat(values, origin="sweep"), n)
                return n
            except UserError:  # There is no room for so many.
                n = -(-n // 2)
        return n

    def timing(self, values: Mapping[str, Any], n_alike: int) -> Timing:
        """What a run with such knobs takes, by a few updates.

        Raises:
          UserError: if it does not fit the device.
        """
        n, config = self.together(values, n_alike), from_flat(values, origin="sweep")
        program = self.program(config, n)
        program.measure()
        alone = program if n == 1 else self.program(config, 1)
        if n > 1:
            alone.measure()
        return Timing(program.update_seconds / n, alone.update_seconds, program.evaluation_seconds)

    def result(self, values: Mapping[str, Any]) -> Result | None:
        """What the run with these knobs came to, if it is over."""
        run_dir, sha256 = Path(values["out_dir"]), self._inputs.corpus.sha256
        return result(run_dir, values, corpus_sha256=sha256)

    def train(
        self,
        runs: Sequence[Mapping[str, Any]],
        told: Callable[[int], None],
        stop: StopRequest,
    ) -> None:
        """Trains runs that are alike and of one length, by their knobs, in one dispatch."""
        configs = [from_flat(values, origin=str(values["out_dir"])) for values in runs]
        train_members(configs, self._inputs, self._device, self.program, told=told, stop=stop)
