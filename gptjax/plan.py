"""What a run will take, before anything is spent on it: memory, time, disk, money."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import ml_collections
from rich.console import Console

from gptjax.config.config import model_config
from gptjax.device.collectives import traffic
from gptjax.device.place import Place, check_mesh, place
from gptjax.run.costs import count_costs
from gptjax.run.footprint import compiled_update
from gptjax.run.functions import start_source
from gptjax.run.planned_data import PlannedData, planned_data
from gptjax.speed import outlook, plan_record, plan_table, plan_words
from gptjax.speed.fitting import Change, smallest_change
from gptjax.speed.outlook import Counts, Times
from gptjax.speed.pace import Pace, pace, pace_apart
from gptjax.speed.plan_warnings import warnings
from gptjax.speed.simulated import Simulated, simulated
from gptjax.system import cache, files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError
from gptjax.system.output import printable, waiting

# Updates that take longer, at the assumed MFU, are not made for a plan's sake.
_LONGEST_UPDATE_SECONDS = 10.0


def plan(
    config: ml_collections.ConfigDict,
    *,
    card: str,
    n_devices: int,
    dollars_per_hour: float,
    json: str | None,
) -> None:
    """Prints what a config's run will take, the most important first. Leaves nothing behind.

    Args:
      card: NVIDIA's name of a card that it is to run on; "": the devices that are here.
      n_devices: 0: as the config's mesh says.
      dollars_per_hour: the price of each device; 0.0: none is told.
      json: the file that all numbers are written to as well.

    Raises:
      UserError: if the config, a flag or what is here of the corpus cannot be used.
    """
    check_flags(n_devices, dollars_per_hour)
    files.check_folder_of("--json", json)
    cache.keep_compiled_programs()
    where = place(config, card=card, n_devices=n_devices)
    data = planned_data(config)
    with waiting("counting"):
        model = model_config(config, data.n_symbols)
        costs = count_costs(config, model, start_source(config, model).returns.params)
    counts = outlook.counts(config, data, costs)
    found, said = compiled(config, where, data)
    said += list(warnings(config, data, counts))
    change, does_fit = None, False
    if found:
        does_fit = not where.memory_bytes or found.footprint.total <= where.memory_bytes
        if not does_fit:
            change = change_that_fits(config, where, data, found)
            said.insert(0, plan_words.will_not_fit(found.footprint, where, change))
    measured = None
    if does_fit and is_measured(where, counts):
        say("five turns of updates, an evaluation, two checkpoints")
        # As a process of its own it is a run's start and memory that are measured. Of a GPU's
        # memory this one may hold all by now.
        measured = pace_apart(config) if where.platform == "cpu" else pace(config, data.inputs)
        said += plan_words.unsteady(measured)
    times = times_of(counts, where, measured, found)
    out = plan_record.Plan(
        where=where,
        data=data,
        counts=counts,
        simulated=found,
        measured=measured,
        times=times,
        free_bytes=files.free_space(Path(config.out_dir)),
        dollars=outlook.dollars(
            times, n_devices=where.n_devices, dollars_per_hour=dollars_per_hour
        ),
        dollars_per_hour=dollars_per_hour,
        change=change,
        warnings=said,
    )
    if json:
        files.write_atomically(Path(json), files.pretty_json(plan_record.to_json(out)))
    console = Console(highlight=False)
    console.print(printable(plan_words.headline(out)))
    for words in said:
        console.print(f"warning: {printable(words)}", style="yellow", markup=False)
    console.print(plan_table.table(out))
    for words in plan_words.sentences(out):
        console.print(printable(words), markup=False)


def check_flags(n_devices: int, dollars_per_hour: float) -> None:
    """Raises UserError for a number that is none."""
    if n_devices < 0 or n_devices > 4096:
        raise UserError("--devices", n_devices, "must be from 1 to 4096, or 0: as the mesh says")
    if not 0 <= dollars_per_hour < 1e6:
        raise UserError("--dollars_per_hour", dollars_per_hour, "must be in [0, 1e6)")


def compiled(
    config: ml_collections.ConfigDict, where: Place, data: PlannedData
) -> tuple[Simulated | None, list[str]]:
    """The update, compiled; None and why not if the batch does not go with the devices."""
    try:
        n_devices = check_mesh(config, where.n_devices)
    except UserError as error:
        return None, [str(error)]
    if n_devices != where.n_devices:
        rule = f"mesh.data times mesh.fsdp is {n_devices}"
        raise UserError("--devices", where.n_devices, rule, "Leave it out, or change the mesh.")
    say(f"compiling an update for {n_devices} x {where.name}")
    return needed(config, where, data), []


def needed(config: ml_collections.ConfigDict, where: Place, data: PlannedData) -> Simulated:
    """What an update needs of each device: compiled for it, or for what stands in for it."""
    if not where.is_here:
        return simulated(config, data, n_devices=where.n_devices, platform=where.platform)
    update = compiled_update(
        config,
        jax.devices()[: where.n_devices],
        n_symbols=data.n_symbols,
        n_tokens=data.n_compiled,
        token_dtype=data.inputs.splits.train.dtype,
        platform=where.platform,
    )
    sent = traffic(update.hlo_text(), where.n_devices) if where.n_devices > 1 else []
    return Simulated(update.footprint, sent)


def change_that_fits(
    config: ml_collections.ConfigDict, where: Place, data: PlannedData, found: Simulated
) -> Change | None:
    """The smallest change that fits the devices, by compiling one after another."""

    def tried(config: ml_collections.ConfigDict):
        say("compiling what may fit")
        return needed(config, where, data).footprint

    return smallest_change(
        config,
        found.footprint,
        tried,
        available=where.memory_bytes,
        n_devices=where.n_devices,
    )


def is_measured(where: Place, counts: Counts) -> bool:
    """Whether updates are made: here, and if that does not take too long."""
    seconds = counts.update_flops / (where.flops_per_s * outlook.ASSUMED_MFU)
    return where.is_here and seconds <= _LONGEST_UPDATE_SECONDS


def times_of(counts: Counts, where: Place, measured: Pace | None, found: Simulated | None) -> Times:
    """A run's, as measured, or at the assumed MFU."""
    if measured:
        return outlook.measured_times(
            counts,
            start=measured.start_seconds,
            update=measured.seconds,
            evaluation=measured.evaluation_seconds,
            save=measured.save_seconds,
            source=f"measured here: {plan_words.spread(measured)}",
        )
    state = found.footprint.whole_state if found else 12 * counts.n_params
    return outlook.assumed_times(
        counts,
        flops_per_s=where.flops_per_s,
        mfu=outlook.ASSUMED_MFU,
        checkpoint_bytes=state,
        source=f"assumed: MFU {100 * outlook.ASSUMED_MFU:.0f} % of {where.peak_source}",
    )


def say(words: str) -> None:
    """Tells what is under way, on stderr."""
    print(f"… {printable(words)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(__file__)
