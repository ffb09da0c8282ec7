"""Runs trained beside each other, each into an ordinary run directory of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import jax
import ml_collections
import numpy as np

from gptjax.run.group_program import GroupProgram
from gptjax.run.inputs import Inputs
from gptjax.run.member import Member
from gptjax.run.short_run import learning_rates
from gptjax.system.signals import StopRequest

# The program of a config for so many runs at once.
ProgramOf = Callable[[ml_collections.ConfigDict, int], GroupProgram]


def train_members(
    configs: Sequence[ml_collections.ConfigDict],
    inputs: Inputs,
    device: jax.Device,
    program_of: ProgramOf,
    *,
    told: Callable[[int], None],
    stop: StopRequest,
) -> None:
    """Trains runs of one length, several per dispatch; those that were begun go on.

    One whose numbers are not finite ends with that as its reason, and the others go on. `told` is
    called with the updates made, those of all runs together, after each second or so; once
    `stop` asks for it all is saved, to go on another time.

    Raises:
      UserError: if a directory holds another run, or one of another text.
      RunError: if something cannot be written.
    """
    with contextlib.ExitStack() as stack:
        members = [stack.enter_context(Member(config, inputs, device)) for config in configs]
        by_step: dict[int, list[Member]] = {}
        for member in members:  # A kill may have come between two saves.
            by_step.setdefault(member.step, []).append(member)
        n_before = 0
        for together in by_step.values():

            def told_of_all(n: int, before: int = n_before) -> None:
                told(before + n)

            program = program_of(together[0].config, len(together))
            _Group(together, program, told_of_all, stop).run()
            n_before += len(together) * together[0].config.train.max_iters


class _Group:
    """The loop of runs that are at the same step."""

    def __init__(
        self,
        members: Sequence[Member],
        program: GroupProgram,
        told: Callable[[int], None],
        stop: StopRequest,
    ):
        self._members, self._program = members, program
        self._told, self._stop = told, stop
        self._configs = [member.config for member in members]

    def run(self) -> None:
        program, members, config = self._program, self._members, self._configs[0]
        n_updates, done = config.train.max_iters, members[0].step
        states, keys = program.first([each.seed for each in self._configs])
        for index, member in enumerate(members):
            member.begin(program, program.one(states, index))
        if done:
            states = program.together([member.restored for member in members])
        rates_MN = np.stack([learning_rates(each, n_updates) for each in self._configs])
        while done < n_updates and self._going and not self._stop.number:
            n = min(program.updates_per_call(), self._to_boundary(done))
            rates_MK = rates_MN[:, done : done + n]
            with self._measured("step"):
                states, metrics_MK = program.train(states, keys, self._configs, rates_MK, done)
            done += n
            for index, member in enumerate(members):
                if not member.failed:
                    member.ledger.count_steps(n, n * program.update_seconds)
                    metrics_K = {name: values[index] for name, values in metrics_MK.items()}
                    member.updated(metrics_K, rates_MK[index], program)
            self._told(done * len(members))
            for index, member in self._going:
                member.at_boundary(program, program.one(states, index))
        for index, member in self._going:
            if done < n_updates:
                member.save(program.one(states, index))
            else:  # It may have been saved, and killed before it was said to be finished.
                member.at_boundary(program, program.one(states, index))
            if not member.failed:
                member.ended("finished" if done >= n_updates else self._stop.name)

    @property
    def _going(self) -> list[tuple[int, Member]]:
        return [(i, member) for i, member in enumerate(self._members) if not member.failed]

    @contextlib.contextmanager
    def _measured(self, kind: str) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for _, member in self._going:
                stack.enter_context(member.ledger.measure(kind))
            yield

    def _to_boundary(self, done: int) -> int:
        """Updates until something is due."""
        config = self._configs[0]
        intervals = (config.eval.interval, config.checkpoint.interval)
        ends = [done - done % interval + interval for interval in intervals]
        return min(*ends, config.train.max_iters) - done
