"""All that is to be measured of a GPU, in one go and within a given time: scripts/card.py.

Each part runs commands of their own, so that one that fails or hangs costs its own figures alone.
What there was no time for, or what failed, stands in the table as not measured.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax import peer, runlog
from gptjax.errors import RunError, UserError
from gptjax.progress import duration

_ROOT = Path(__file__).parent.parent
_LAPTOP, _LARGER, _GPT2 = (
    str(_ROOT / "configs" / f"{name}.py")
    for name in ("shakespeare_char", "shakespeare_char_gpu", "gpt2_124m")
)

# What a rehearsal trains, on the CPU: small enough for seconds, and with every axis there.
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

    `seconds` decides whether they are begun; how long they may take is what is left.
    """

    name: str
    seconds: float
    measure: Callable[[Card], list[Row]]


class Card:
    """What the parts share: where they write, how they run a command, what is left of the time."""

    def __init__(
        self,
        folder: Path,
        *,
        minutes: float,
        nanogpt: str | None,
        nanogpt_python: str,
        is_rehearsal: bool,
    ):
        self.folder, self.nanogpt, self.is_rehearsal = folder, nanogpt, is_rehearsal
        self._nanogpt_python = nanogpt_python
        self._end = time.monotonic() + 60 * minutes
        self.platform = "cpu" if is_rehearsal else "cuda"

    @property
    def seconds_left(self) -> float:
        """Until the time given is over."""
        return self._end - time.monotonic()

    def run(self, command: Sequence[str], **environment: str) -> peer.Finished:
        """Runs a command on the card, unless `environment` has another platform."""
        # Where gptjax could not be installed, its folder is enough.
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        variables = {"JAX_PLATFORMS": self.platform, "PYTHONPATH": path, **environment}
        return peer.run(command, environment=variables, limit=self.seconds_left)

    def script(self, name: str, *arguments: str, **environment: str) -> peer.Finished:
        """Runs one of our scripts."""
        return self.run(peer.script(name, *arguments), **environment)

    def config(self, path: str, **knobs: object) -> list[str]:
        """Flags of a config with single knobs changed, given as model__dtype="float32"."""
        given = {name.replace("__", "."): value for name, value in knobs.items()}
        changes = {**given, **_SMALL} if self.is_rehearsal else given
        return ["--config", path, *(f"--config.{name}={v}" for name, v in changes.items())]

    def bench(
        self, config: list[str], *arguments: str, beside_nanogpt: bool = True, pairs: int = 5
    ) -> dict[str, Any]:
        """The figures of scripts/bench.py, in turns with nanoGPT's where there is a checkout."""
        path = self.folder / f"bench_{len(list(self.folder.glob('bench_*.json')))}.json"
        flags = [*arguments, "--json", str(path), f"--pairs={1 if self.is_rehearsal else pairs}"]
        if self.nanogpt and beside_nanogpt:
            flags += ["--nanogpt", self.nanogpt, "--nanogpt_python", self._nanogpt_python]
            flags += [] if self.is_rehearsal else ["--nanogpt_compile"]
        self.script("bench", *config, *flags)
        return json.loads(path.read_text())


def measure(
    folder: str,
    *,
    minutes: float,
    only: str,
    nanogpt: str | None,
    nanogpt_python: str,
    rehearse: bool,
) -> None:
    """Measures the parts that there is time for and writes `table.md` and the figures.

    Raises:
      UserError: if the folder is in use, or `only` names a part that there is not.
    """
    chosen = only.split(",") if only else [part.name for part in PARTS]
    known = {part.name: part for part in PARTS}
    for name in chosen:
        if name not in known:
            raise UserError("--only", name, f"must be of {', '.join(known)}")
    path = Path(folder).absolute()
    if path.exists() and any(path.iterdir()):
        raise UserError("--out_dir", folder, "is in use", "Choose another.")
    path.mkdir(parents=True, exist_ok=True)
    card = Card(
        path,
        minutes=minutes,
        nanogpt=nanogpt,
        nanogpt_python=nanogpt_python,
        is_rehearsal=rehearse,
    )
    rows: list[Row] = []
    for name in chosen:
        rows += _rows_of(known[name], card)
        # What was measured so far is not lost if the machine is.
        runlog.write_atomically(path / "table.md", table(rows))
    print(table(rows), end="")


def _rows_of(part: Part, card: Card) -> list[Row]:
    left = card.seconds_left
    if left < part.seconds and not card.is_rehearsal:
        return [Row(part.name, "*not measured*", f"needs {part.seconds:.0f} s, {left:.0f} left")]
    print(f"{part.name}: about {duration(part.seconds)}, left {duration(left)}", file=sys.stderr)
    start = time.monotonic()
    try:
        rows = part.measure(card)
    except (RunError, UserError) as error:
        rows = [Row(part.name, "*not measured*", str(error).replace("|", "/"))]
    print(f"{part.name}: took {duration(time.monotonic() - start)}", file=sys.stderr)
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown has them."""
    lines = ["| what | measured | beside it |", "|---|---|---|"]
    lines += [f"| {row.what} | {row.figure} | {row.beside} |" for row in rows]
    return "\n".join(lines) + "\n"


def _tests(card: Card) -> list[Row]:
    folder = str(_ROOT / "tests" / "test_cuda.py")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-n", "0", folder]
    rehearsal = {"GPTJAX_REHEARSAL": "1"} if card.is_rehearsal else {}
    lines = card.run(command, **rehearsal).lines
    return [Row("tests that need a GPU", lines[-1][1].strip("= "))]


def _doctor(card: Card) -> list[Row]:
    path = card.folder / "doctor.json"
    card.script("doctor", "--json", str(path))
    found = json.loads(path.read_text())
    device = found["devices"]
    rows = [Row("device", f"{device['n_devices']} x {device['device']}", device["runtime"] or "")]
    rows.append(Row("versions", ", ".join(f"{n} {v}" for n, v in found["versions"].items())))
    for rate in found["rates"]:
        sheet = f"{100 * rate['share']:.0f} % of the data sheet's" if rate["share"] else ""
        rows.append(Row(rate["what"], f"{rate['measured'] / 1e12:.3g} T{rate['unit']}", sheet))
    return [*rows, Row("a call that does nothing", f"{found['dispatch_us']:.1f} µs")]


def _step_row(name: str, figures: dict[str, Any]) -> Row:
    ours, *others = figures["sides"]
    words = f"{ours['median']:.3g} ms an update, {figures['tokens_per_s']:,.0f} tokens/s"
    words += f", MFU {100 * figures['mfu']:.1f} %, {ours['peak_bytes'] / 2**20:,.0f} MiB"
    beside = ""
    for other in others:
        ratio = figures["ratios"][other["name"]]
        beside = f"{other['name']} {other['median']:.3g} ms, {other['peak_bytes'] / 2**20:,.0f} MiB"
        beside += f": **{ratio['median']:.2f}x** ({min(ratio['all']):.2f}–{max(ratio['all']):.2f})"
    if figures.get("op_groups"):
        groups = figures["op_groups"].items()
        beside = ", ".join(f"{group} {milliseconds:.2f} ms" for group, milliseconds in groups)
    return Row(name, words, beside)


def _laptop_step(card: Card) -> list[Row]:
    return [_step_row("laptop recipe, TF32", card.bench(card.config(_LAPTOP)))]


def _larger_step(card: Card) -> list[Row]:
    name = "shakespeare_char_gpu, bfloat16"
    rows = [_step_row(name, card.bench(card.config(_LARGER)))]
    for generator in ("threefry", "philox"):
        config = card.config(_LARGER, model__dropout_generator=generator)
        figures = card.bench(config, beside_nanogpt=False, pairs=3)
        rows.append(_step_row(f"… masks of dropout by {generator}", figures))
    return rows


def _gpt2(card: Card, **knobs: object) -> list[str]:
    """GPT-2's recipe in one micro-batch, on tokens made on the spot."""
    tokens = card.folder / "tokens"
    if not tokens.exists():
        n_tokens = 50_000 if card.is_rehearsal else 20_000_000
        flags = ("--dataset", "markov", "--out_dir", str(tokens), f"--n_tokens={n_tokens}")
        card.script("prepare", *flags, JAX_PLATFORMS="cpu")
    return card.config(_GPT2, data__source=f"tokens:{tokens}", train__grad_accum_steps=1, **knobs)


def _gpt2_step(card: Card) -> list[Row]:
    rows = []
    # With the peer first, then where the time goes.
    for batch_size, is_beside in ((32, True), (32, False), (16, False), (64, False)):
        config = _gpt2(card, train__batch_size=batch_size)
        name = f"GPT-2 124M, bfloat16, {batch_size} x 1,024 tokens"
        try:
            figures = card.bench(config, beside_nanogpt=is_beside, pairs=5 if is_beside else 2)
            rows.append(_step_row(name, figures))
        except RunError as error:  # One size that does not fit leaves the others.
            rows.append(Row(name, "*not measured*", str(error)))
    return rows


def _gpt2_run(card: Card) -> list[Row]:
    config = _gpt2(
        card,
        train__batch_size=32,
        train__max_iters=300,
        optim__warmup_iters=30,
        eval__interval=25,
        eval__max_tokens=60_000,
        checkpoint__interval=1000,
    )
    target = 8.0  # nats; it starts at 10.8, and 2.4 is the tokens' entropy
    figures = card.bench(config, "--what", "run", "--target", str(target), pairs=1)
    return [_run_row("GPT-2 124M, 300 updates of 32 x 1,024 tokens", figures, target)]


def _run_row(name: str, figures: dict[str, Any], target: float) -> Row:
    ours, *others = figures["sides"]

    def words(side: dict[str, Any]) -> str:
        run = figures["runs"][side["name"]]
        reached = [seconds for seconds in run["seconds_to_target"] if seconds is not None]
        times = f"val ≤ {target} after {statistics.median(reached):.1f} s" if reached else ""
        best = ", ".join(f"{val:.4f}" for val in run["best"])
        return f"{side['median']:.1f} s, best val {best}" + (f", {times}" if times else "")

    return Row(name, words(ours), "; ".join(f"{o['name']}: {words(o)}" for o in others))


def _larger_run(card: Card) -> list[Row]:
    return [_larger_runs(card, "three seeds", beside_nanogpt=False, pairs=3)]


def _larger_run_beside(card: Card) -> list[Row]:
    return [_larger_runs(card, "one seed", beside_nanogpt=True, pairs=1)]


def _larger_runs(card: Card, name: str, **settings: Any) -> Row:
    config, target = card.config(_LARGER, eval__mode="random"), 1.48
    figures = card.bench(config, "--what", "run", "--target", str(target), **settings)
    return _run_row(f"shakespeare_char_gpu, whole run, {name}", figures, target)


def _laptop_run(card: Card) -> list[Row]:
    target = 1.90
    flags = ("--what", "run", "--target", str(target))
    figures = card.bench(card.config(_LAPTOP), *flags, pairs=2)
    return [_run_row("laptop recipe, whole run", figures, target)]


# One recipe and one seed on both kinds of device, as exact as they can, and as fast.
_SIDES: tuple[tuple[str, str, Mapping[str, object]], ...] = (
    ("cpu_float32", "cpu", {}),
    ("cuda_float32", "cuda", {"model__matmul_precision": "highest"}),
    ("cuda_tf32", "cuda", {}),
    ("cuda_bfloat16", "cuda", {"model__dtype": "bfloat16"}),
)


def _cpu_vs_gpu(card: Card) -> list[Row]:
    folder, kept = card.folder / "runs", card.folder / "cpu_vs_gpu"
    rows = []
    for name, platform, knobs in _SIDES:
        out_dir, where = folder / name, {"JAX_PLATFORMS": "cpu" if card.is_rehearsal else platform}
        card.script("train", *card.config(_LAPTOP, out_dir=out_dir, **knobs), **where)
        said = card.script("evaluate", "--out_dir", str(out_dir), **where).lines[1][1]
        (kept / name).mkdir(parents=True)
        for file in ("metrics.jsonl", "config.json"):
            shutil.copy(out_dir / file, kept / name)
        rows.append(Row(f"laptop recipe, seed 1337, {name}", said))
    # The first update made, all others as in the recipe: the same start for every side.
    start = card.config(_LAPTOP, out_dir=folder / "start", optim__lr_decay_iters=2000)
    card.script("train", *start, "--config.train.max_iters=1", JAX_PLATFORMS="cpu")
    devices = "cpu,cpu:bfloat16" if card.is_rehearsal else "cpu,cuda,cuda:tf32,cuda:bfloat16"
    n_updates = 3 if card.is_rehearsal else 200
    flags = ("--devices", devices, f"--updates={n_updates}", "--json", str(kept / "replay.json"))
    card.script("replay", "--out_dir", str(folder / "start"), *flags)
    for replica in json.loads((kept / "replay.json").read_text())["replicas"][1:]:
        apart, params = replica["differences"]["loss"], replica["differences"]["params"]
        rows.append(
            Row(
                f"replayed against cpu: {replica['spec']}",
                f"update 1 differs by {apart[0]:.1e} nats, update {n_updates} by {apart[-1]:.1e}",
                f"parameters by {params[-1]:.1e} of their norm"
                + (f"; {replica['problem']}" if replica["problem"] else ""),
            )
        )
    return rows


# In the order of what is missed most if there is no time for all; seconds as guessed for an H100.
PARTS = (
    Part("doctor", 30, _doctor),
    Part("laptop_step", 60, _laptop_step),
    Part("larger_step", 90, _larger_step),
    Part("gpt2_step", 120, _gpt2_step),
    Part("cpu_vs_gpu", 120, _cpu_vs_gpu),
    Part("larger_run", 150, _larger_run),
    Part("tests", 90, _tests),
    Part("laptop_run", 60, _laptop_run),
    Part("larger_run_beside", 240, _larger_run_beside),
    Part("gpt2_run", 180, _gpt2_run),
)
