"""The parts of what is measured of a GPU: the commands of each, and its rows of the table."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from gptjax.speed.gpu_session import ROOT, GPUSession, Part, Row, step_row
from gptjax.system.errors import RunError

_LAPTOP, _LARGER, _GPT2 = (
    str(ROOT / "configs" / f"{name}.py")
    for name in ("shakespeare_char", "shakespeare_char_gpu", "gpt2_124m")
)


def _tests(session: GPUSession) -> Iterator[Row]:
    # Without pyproject's options, which want what a bare machine may not have.
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", "cuda"]
    smoke_test = {"GPTJAX_SMOKE_TEST": "1"} if session.is_smoke_test else {}
    lines = session.run(
        [*command, str(ROOT / "tests" / "device" / "test_cuda.py")], **smoke_test
    ).lines
    yield Row("tests that need a GPU", lines[-1][1].strip("= "))


def _doctor(session: GPUSession) -> Iterator[Row]:
    path = session.folder / "doctor.json"
    session.script("doctor", "--json", str(path))
    found = json.loads(path.read_text())
    device = found["devices"]
    yield Row("device", f"{device['n_devices']} x {device['device']}", device["runtime"] or "")
    yield Row("versions", ", ".join(f"{name} {v}" for name, v in found["versions"].items()))
    for rate in found["rates"]:
        sheet = f"{100 * rate['share']:.0f} % of the data sheet's" if rate["share"] else ""
        yield Row(rate["what"], f"{rate['measured'] / 1e12:.3g} T{rate['unit']}", sheet)
    yield Row("a call that does nothing", f"{found['dispatch_us']:.1f} µs")


def _laptop_step(session: GPUSession) -> Iterator[Row]:
    name = "laptop recipe, TF32"
    yield from session.step(name, session.config(_LAPTOP))
    yield from session.profile(name, session.config(_LAPTOP))


def _larger_step(session: GPUSession) -> Iterator[Row]:
    name = "shakespeare_char_gpu, bfloat16"
    yield from session.step(name, session.config(_LARGER))
    for generator in ("threefry", "philox"):
        config = session.config(_LARGER, model__dropout_generator=generator)
        figures = session.bench(config, beside_nanogpt=False, pairs=3)
        yield step_row(f"{name}, masks of dropout by {generator}", figures)
    yield from session.profile(name, session.config(_LARGER))


def _gpt2(session: GPUSession, **knobs: object) -> list[str]:
    """GPT-2's recipe in one micro-batch, on tokens made on the spot."""
    tokens = session.folder / "tokens"
    if not tokens.exists():
        n_tokens = 50_000 if session.is_smoke_test else 20_000_000
        flags = ("--dataset", "markov", "--out_dir", str(tokens), f"--n_tokens={n_tokens}")
        session.script("prepare", *flags, JAX_PLATFORMS="cpu")
    return session.config(
        _GPT2, data__source=f"tokens:{tokens}", train__grad_accum_steps=1, **knobs
    )


def _gpt2_step(session: GPUSession) -> Iterator[Row]:
    name = "GPT-2 124M, bfloat16"
    yield from session.step(f"{name}, 32 x 1,024 tokens", _gpt2(session, train__batch_size=32))
    yield from session.profile(name, _gpt2(session, train__batch_size=32))
    for batch_size in (16, 64):
        config = _gpt2(session, train__batch_size=batch_size)
        figures = session.bench(config, beside_nanogpt=False, pairs=2)
        yield step_row(f"{name}, {batch_size} x 1,024 tokens", figures)


def _gpt2_run(session: GPUSession) -> Iterator[Row]:
    config = _gpt2(
        session,
        train__batch_size=32,
        train__max_iters=300,
        optim__warmup_iters=30,
        eval__interval=25,
        eval__max_tokens=60_000,
        checkpoint__interval=1000,
    )
    target = 8.0  # nats; it starts at 10.8, and 2.4 is the tokens' entropy
    figures = session.bench(config, "--what", "run", "--target", str(target), pairs=1)
    yield _run_row("GPT-2 124M, 300 updates of 32 x 1,024 tokens", figures, target)


def _run_row(name: str, figures: dict[str, Any], target: float) -> Row:
    ours, *others = figures["sides"]

    def words(side: dict[str, Any]) -> str:
        run = figures["runs"][side["name"]]
        reached = [seconds for seconds in run["seconds_to_target"] if seconds is not None]
        times = f"val ≤ {target} after {statistics.median(reached):.1f} s" if reached else ""
        best = ", ".join(f"{val:.4f}" for val in run["best"])
        return f"{side['median']:.1f} s, best val {best}" + (f", {times}" if times else "")

    return Row(name, words(ours), "; ".join(f"{o['name']}: {words(o)}" for o in others))


def _larger_run(session: GPUSession) -> Iterator[Row]:
    yield _larger_runs(session, "three seeds", beside_nanogpt=False, pairs=3)


def _larger_run_beside(session: GPUSession) -> Iterator[Row]:
    yield _larger_runs(session, "one seed", beside_nanogpt=True, pairs=1)


def _larger_runs(session: GPUSession, name: str, **settings: Any) -> Row:
    config, target = session.config(_LARGER, eval__mode="random"), 1.48
    figures = session.bench(config, "--what", "run", "--target", str(target), **settings)
    return _run_row(f"shakespeare_char_gpu, whole run, {name}", figures, target)


def _laptop_run(session: GPUSession) -> Iterator[Row]:
    target = 1.90
    flags = ("--what", "run", "--target", str(target))
    figures = session.bench(session.config(_LAPTOP), *flags, pairs=2)
    yield _run_row("laptop recipe, whole run", figures, target)


# One recipe and one seed on both kinds of device, as exact as they can, and as fast.
_SIDES: tuple[tuple[str, str, Mapping[str, object]], ...] = (
    ("cpu_float32", "cpu", {}),
    ("cuda_float32", "cuda", {"model__matmul_precision": "highest"}),
    ("cuda_tf32", "cuda", {}),
    ("cuda_bfloat16", "cuda", {"model__dtype": "bfloat16"}),
)


def _cpu_vs_gpu(session: GPUSession) -> Iterator[Row]:
    folder, kept = session.folder / "runs", session.folder / "cpu_vs_gpu"
    for name, platform, knobs in _SIDES:
        out_dir, where = (
            folder / name,
            {"JAX_PLATFORMS": "cpu" if session.is_smoke_test else platform},
        )
        session.script("train", *session.config(_LAPTOP, out_dir=out_dir, **knobs), **where)
        said = session.script("evaluate", "--out_dir", str(out_dir), **where).lines[1][1]
        (kept / name).mkdir(parents=True)
        for file in ("metrics.jsonl", "config.json"):
            shutil.copy(out_dir / file, kept / name)
        yield Row(f"laptop recipe, seed 1337, {name}", said)
    # The first update made, all others as in the recipe: the same start for every side.
    start = session.config(_LAPTOP, out_dir=folder / "start", optim__lr_decay_iters=2000)
    session.script("train", *start, "--config.train.max_iters=1", JAX_PLATFORMS="cpu")
    devices = "cpu,cpu:bfloat16" if session.is_smoke_test else "cpu,cuda,cuda:tf32,cuda:bfloat16"
    n_updates, found = 3 if session.is_smoke_test else 200, kept / "replay.json"
    flags = ("--devices", devices, f"--updates={n_updates}", "--json", str(found))
    # It fails when one side is wrong, and its figures then matter most.
    with contextlib.suppress(RunError):
        session.script("replay", "--out_dir", str(folder / "start"), *flags)
    for variant in json.loads(found.read_text())["replicas"][1:]:
        apart, params = variant["differences"]["loss"], variant["differences"]["params"]
        yield Row(
            f"replayed against cpu: {variant['spec']}",
            f"update 1 differs by {apart[0]:.1e} nats, update {n_updates} by {apart[-1]:.1e}",
            f"parameters by {params[-1]:.1e} of their norm {variant['problem']}",
        )


# In the order of what is missed most if there is no time for all; seconds as guessed for an H100.
PARTS = (
    Part("doctor", 40, _doctor),
    Part("tests", 100, _tests),
    Part("laptop_step", 60, _laptop_step),
    Part("larger_step", 100, _larger_step),
    Part("gpt2_step", 150, _gpt2_step),
    Part("cpu_vs_gpu", 110, _cpu_vs_gpu),
    Part("larger_run", 150, _larger_run),
    Part("laptop_run", 60, _laptop_run),
    Part("larger_run_beside", 240, _larger_run_beside),
    Part("gpt2_run", 180, _gpt2_run),
)
