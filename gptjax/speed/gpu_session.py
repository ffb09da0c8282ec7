"""What the parts of a GPU's measurement share: commands run on it, within the time that is left."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from gptjax.speed.process import Finished, run, script
from gptjax.system.errors import RunError

ROOT = Path(__file__).parents[2]

NOT_MEASURED = "*not measured*"

# What a smoke test trains, on the CPU: small enough for seconds, and with every axis there.
_SMALL = {
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.block_size": 16,
    "train.batch_size": 4,
    "train.grad_accum_steps": 1,
    "train.max_iters": 20,
    "optim.warmup_iters": 2,
    "eval.interval": 10,
    "eval.max_tokens": 320,
    "eval.iters": 2,
    "checkpoint.interval": 10,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, what came out, and what it is compared with."""

    what: str
    figure: str
    beside: str = ""


@dataclasses.dataclass(frozen=True)
class Part:
    """A few commands that belong together, and how long they take on a card, compilation included.

    `seconds` decides whether they are begun; they may take three times as long, if so much is left.
    """

    name: str
    seconds: float
    measure: Callable[[GPUSession], Iterator[Row]]


class GPUSession:
    """What the parts share: where they write, how they run a command, what is left of the time."""

    def __init__(
        self,
        folder: Path,
        *,
        minutes: float,
        nanogpt: str | None,
        nanogpt_python: str,
        is_smoke_test: bool,
    ):
        self.folder, self.nanogpt, self.is_smoke_test = folder, nanogpt, is_smoke_test
        self._nanogpt_python = nanogpt_python
        self._end = self._end_of_part = time.monotonic() + 60 * minutes
        self.platform = "cpu" if is_smoke_test else "cuda"
        self._logs = folder / "logs"
        self._logs.mkdir(exist_ok=True)

    @property
    def seconds_left(self) -> float:
        """Until the time given is over."""
        return self._end - time.monotonic()

    def begin(self, part: Part) -> None:
        """Limits what follows to the time that a part may take."""
        self._end_of_part = min(self._end, time.monotonic() + 3 * part.seconds)

    def run(self, command: Sequence[str], **environment: str) -> Finished:
        """Runs a command on the card, unless `environment` has another platform."""
        # Where gptjax could not be installed, its folder is enough.
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        variables = {"JAX_PLATFORMS": self.platform, "PYTHONPATH": path, **environment}
        return run(
            command,
            environment=variables,
            limit=self._end_of_part - time.monotonic(),
            log=self._logs / f"{len(list(self._logs.iterdir())):02d}.txt",
        )

    def script(self, name: str, *arguments: str, **environment: str) -> Finished:
        """Runs one of our scripts."""
        return self.run(script(name, *arguments), **environment)

    def config(self, path: str, **knobs: object) -> list[str]:
        """Flags of a config with single knobs changed, given as model__dtype="float32"."""
        given = {name.replace("__", "."): value for name, value in knobs.items()}
        # No other text may stand in for the one that is measured on.
        changes = {**given, **_SMALL} if self.is_smoke_test else {"data.fallback": "", **given}
        return ["--config", path, *(f"--config.{name}={v}" for name, v in changes.items())]

    def bench(
        self, config: list[str], *arguments: str, beside_nanogpt: bool = True, pairs: int = 5
    ) -> dict[str, Any]:
        """The figures of scripts/bench.py, in turns with nanoGPT's where there is a checkout."""
        path = self.folder / f"bench_{len(list(self.folder.glob('bench_*.json')))}.json"
        flags = [*arguments, "--json", str(path), f"--pairs={1 if self.is_smoke_test else pairs}"]
        if self.nanogpt and beside_nanogpt:
            flags += ["--nanogpt", self.nanogpt, "--nanogpt_python", self._nanogpt_python]
            flags += [] if self.is_smoke_test else ["--nanogpt_compile"]
        self.script("bench", *config, *flags)
        return json.loads(path.read_text())

    def step(self, name: str, config: list[str], *, pairs: int = 5) -> Iterator[Row]:
        """A recipe's updates beside nanoGPT's; by themselves if that fails."""
        if self.nanogpt:
            try:
                yield step_row(name, self.bench(config, pairs=pairs))
                return
            except RunError as error:
                yield Row(f"{name}, beside nanoGPT", NOT_MEASURED, str(error))
        yield step_row(name, self.bench(config, beside_nanogpt=False, pairs=pairs))

    def profile(self, name: str, config: list[str]) -> Iterator[Row]:
        """Where the time of a recipe's updates goes."""
        found = self.bench(config, "--what", "profile", beside_nanogpt=False)["op_groups"]
        groups = ", ".join(
            f"{group} {milliseconds:.2f} ms" for group, milliseconds in found.items()
        )
        yield Row(f"{name}, an update's operations one by one", groups)


def step_row(name: str, figures: dict[str, Any]) -> Row:
    """A recipe's updates in words, from the figures of scripts/bench.py."""

    def words(side: dict[str, Any]) -> str:
        memory = f", {side['peak_bytes'] / 2**20:,.0f} MiB" if side["peak_bytes"] else ""
        return f"{side['median']:.3g} ms an update{memory}"

    ours, *others = figures["sides"]
    rate = f"{figures['tokens_per_s']:,.0f} tokens/s, MFU {100 * figures['mfu']:.1f} %"
    beside = ""
    for other in others:
        ratio = figures["ratios"][other["name"]]
        beside = f"{other['name']} {words(other)}: **{ratio['median']:.2f}x** "
        beside += f"({min(ratio['all']):.2f} to {max(ratio['all']):.2f})"
    return Row(name, f"{words(ours)}, {rate}", beside)
