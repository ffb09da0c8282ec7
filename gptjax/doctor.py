"""This machine, looked over: what it has, whether it computes right, and what to set on it."""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import ml_collections

import gptjax
from gptjax.config.config import model_config
from gptjax.data import token_files, whereabouts
from gptjax.device import devices as devices_module
from gptjax.device import surroundings
from gptjax.device.cores import Cores, allowed_cpus, candidates, usable_cores
from gptjax.device.data_peak import data_peak
from gptjax.device.description import description
from gptjax.device.features import features
from gptjax.device.formula import formula_flops
from gptjax.device.graphics import graphics, verdict
from gptjax.device.known_run import known_run
from gptjax.device.rates import dispatch_us, rates
from gptjax.model.gpt import expected_parameters
from gptjax.run.progress import duration
from gptjax.speed import advice, machine_report
from gptjax.speed.core_sweep import sweep
from gptjax.speed.timing import Timing, Variant
from gptjax.system import cache, files, room, versions
from gptjax.system.command import run_script
from gptjax.system.errors import RunError, UserError
from gptjax.system.output import printable

# Of the thirty that are promised; the rest is the start of Python and its end.
_SECONDS = 27.5

# An update that takes longer cannot be timed in turns within them.
_LONGEST_UPDATE_SECONDS = 2.0

# How long to look for other work, and how much of the machine it takes to disturb.
_LISTENING_SECONDS = 0.3
_DISTURBING_SHARE = 0.25

# Where Linux keeps what it tells of the machine.
_ROOT = Path("/")

# Tiny Shakespeare's symbols; another text's hardly change an update's time.
_N_SYMBOLS = 65


def doctor(config: ml_collections.ConfigDict, *, path: str, json: str | None, start: float) -> None:
    """Prints what to set on this machine and what was found of it, the most important first.

    `path` is the file of `config`, whose updates are timed; `start` is when the command began, by
    time.perf_counter.

    Raises:
      UserError: if the folder of the file `json`, or the recipe's token files, are not there.
      RunError: if a device computes wrong numbers, or one that was promised cannot be used.
    """
    until = start + _SECONDS
    files.check_folder_of("--json", json)
    n_symbols = vocabulary(config.data.source)
    cache.keep_compiled_programs()
    cores = usable_cores(_ROOT, allowed_cpus())
    found: dict[str, Any] = {
        "versions": installed(),
        "cores": {"words": cores.in_words(), **cores.to_json(), **others(cores)},
        "features": features(_ROOT),
        "settings": surroundings.settings(os.environ),
    }
    by_data = data_peak(_ROOT, cores)
    found["data_peak"] = by_data and {**by_data.to_json(), "words": by_data.in_words()}
    problems = []
    with ThreadPoolExecutor(1) as pool:
        unreachable = pool.submit(whereabouts.unreachable)
        try:
            measure(found, config, n_symbols, cores, path=path, until=until)
        except (UserError, RunError) as error:
            problems.append(str(error))
        found["data"] = surroundings.data(unreachable.result())
    problems += [run["words"] for run in found.get("test_run", []) if not run["is_right"]]
    used = found["devices"]["platform"] if "devices" in found else ""
    cards = verdict(graphics(_ROOT), versions.cuda_plugins(), used, os.environ)
    found["graphics"] = list(cards.lines)
    found["room"] = surroundings.free_room(_ROOT, Path(config.out_dir))
    problems += [cards.lines[0]] if cards.is_broken else []
    found["problems"] = problems
    if json:
        files.write_atomically(Path(json), files.pretty_json(found))
    print("\n".join(printable(line) for line in machine_report.report(found)))
    if problems:
        raise RunError(problems[0])


def measure(
    found: dict[str, Any],
    config: ml_collections.ConfigDict,
    n_symbols: int,
    cores: Cores,
    *,
    path: str,
    until: float,
) -> None:
    """Adds to `found` what the devices are, how fast, and whether they compute right.

    Raises:
      UserError: if the backend asked for is not there.
      RunError: if the device cannot do what is measured.
    """
    devices, why = devices_module.available_devices()
    found["devices"] = described = description(devices, why)
    try:
        say("how fast the device is")
        measured, microseconds = rates(devices[0]), dispatch_us(devices[0])
        found["rates"] = [{**rate.to_json(), "words": rate.in_words()} for rate in measured]
        found["dispatch_us"] = microseconds
        by_type = {rate.what.rpartition(" ")[2]: rate.measured for rate in measured}

        timings: list[Timing] = []
        reason = why_not_timed(config, n_symbols, described["platform"], by_type["float32"])
        try_out = functools.partial(make_known_run, found, devices[0])
        if reason:
            try_out()
        else:
            say(f"updates of {path} on some of the cores, as long as there is time")
            chosen = variants(cores, config.model.dtype, by_type)
            try:
                timings = sweep(config, n_symbols, chosen, until=until, say=say, meanwhile=try_out)
            except RunError as error:
                reason = str(error)
    except jax.errors.JaxRuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise RunError(f"{devices[0]} could not be measured: {reason}") from error
    found["updates"] = {"config": path, "not_timed": reason, "timings": []}
    found["updates"]["timings"] = [{**t.to_json(), "words": t.in_words()} for t in timings]
    basis = advice.Measured(
        platform=described["platform"],
        config=path,
        dtype=config.model.dtype,
        max_iters=config.train.max_iters,
        timings=timings,
        rates=by_type,
        dispatch_us=microseconds,
        xla_flags=os.environ.get("XLA_FLAGS", ""),
        is_busy=found["cores"]["is_busy"],
    )
    found["advice"] = advice.to_json(basis)


def make_known_run(found: dict[str, Any], device: jax.Device) -> None:
    """Adds to `found` whether the device computes right, and the CPU beside it."""
    say("five updates whose losses are known")
    beside = jax.devices("cpu")[:1] if found["devices"]["cpu_is_reachable"] else []
    tried = [device, *(each for each in beside if each != device)]
    found["test_run"] = [known_run(each).to_json() for each in tried]


def why_not_timed(
    config: ml_collections.ConfigDict, n_symbols: int, platform: str, rate: float
) -> str:
    """Why a recipe's updates are not timed on some of the cores; "" if they are.

    `rate` is the FLOP/s of matrix products.
    """
    if platform != "cpu":
        return "updates are made on the GPU; scripts/bench.py times them"
    model = model_config(config, n_symbols)
    n_flops = formula_flops(
        n_layer=model.n_layer,
        n_embd=model.n_embd,
        block_size=model.block_size,
        n_params=expected_parameters(model),
        n_tokens=config.train.batch_size * model.block_size,
    )
    seconds = n_flops / rate
    if seconds > _LONGEST_UPDATE_SECONDS:
        return f"an update takes about {duration(seconds)}, too long for half a minute"
    return ""


def variants(cores: Cores, dtype: str, rates: Mapping[str, float]) -> list[Variant]:
    """What is timed: all CPUs, fewer, and all in another type if its products are faster."""
    # Elsewhere than on Linux a process cannot be kept to some of them.
    sets = candidates(cores) if hasattr(os, "sched_setaffinity") else [()]
    found = [Variant(cpus, dtype) for cpus in sets]
    other = advice.other_dtype(dtype)
    if advice.is_worth_trying(other, rates):
        found.insert(2, Variant(sets[0], other))
    return found


def say(words: str) -> None:
    """Tells what is under way."""
    print(f"… {printable(words)}", flush=True)


def others(cores: Cores) -> dict[str, Any]:
    """How many CPUs other programs keep at work just now, and whether that disturbs."""
    busy = room.busy_cpus(_ROOT, seconds=_LISTENING_SECONDS)
    return {"busy_cpus": busy, "is_busy": busy > _DISTURBING_SHARE * cores.n_online}


def vocabulary(source: str) -> int:
    """How many symbols a recipe's text has, or about as many."""
    kind, _, folder = source.partition(":")
    return token_files.read(folder).vocab_size if kind == "tokens" else _N_SYMBOLS


def installed() -> dict[str, str]:
    """Versions of the program, of Python and of the libraries that must fit together."""
    return {
        "gptjax": gptjax.__version__,
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in versions.SUPPORTED},
        **versions.cuda_plugins(),
    }


if __name__ == "__main__":
    run_script(__file__)
