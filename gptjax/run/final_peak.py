"""The peak that a log knows in the end, and MFU over that: earlier records took a lower one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Where processes of a run agree in these they had the same peak, and the higher one is it.
_MACHINE = ("host", "device", "n_devices", "host_cores", "precision")


@dataclasses.dataclass(frozen=True)
class FinalPeak:
    """FLOP/s, and where they are from: device/peak.py's Peak, for readers that import no JAX."""

    flops_per_s: float
    source: str


def final_peak(records: Sequence[Mapping[str, Any]]) -> FinalPeak | None:
    """That of the machine the run was last started on; None where none is recorded."""
    machines = [machine for machine, record, _ in _told(records) if record["kind"] == "run"]
    return _peaks(records).get(machines[-1]) if machines else None


def final_mfus(records: Sequence[Mapping[str, Any]]) -> list[float]:
    """The MFU of each `train` record, over the final peak of its machine; NaN if not known."""
    peaks = _peaks(records)
    shares = []
    for machine, record, rate in _told(records):
        if record["kind"] == "train":
            peak = peaks.get(machine)
            shares.append(rate / peak.flops_per_s if peak else math.nan)
    return shares


def _peaks(records: Sequence[Mapping[str, Any]]) -> dict[tuple, FinalPeak]:
    """The highest peak by machine, where one is recorded: of records, and of what was reached."""
    found: dict[tuple, FinalPeak] = {}
    for machine, record, rate in _told(records):
        is_told = record["kind"] != "train"
        before = found.get(machine)
        if not rate > (before.flops_per_s if before else 0.0 if is_told else math.inf):
            continue
        source = str(record.get("peak_source", "")) if is_told else "the run's own updates"
        found[machine] = FinalPeak(rate, source)
    return found


def _told(
    records: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[tuple, Mapping[str, Any], float]]:
    """(machine, record, FLOP/s) of what tells a peak and of what was reached; else NaN."""
    machine: tuple = ()
    flops = math.nan
    for record in records:
        if record["kind"] == "run":
            machine = tuple(str(record.get(name)) for name in _MACHINE)
            flops = _number(record.get("flops_per_update"))
        if record["kind"] in ("run", "peak"):
            yield machine, record, _number(record.get("peak_flops_per_s"))
        if record["kind"] == "train":
            rate = _number(record.get("flops_per_s"))
            step_ms = _number(record.get("step_ms"))
            # Logs of 0.1.0 have no rate.
            yield machine, record, rate if rate == rate else 1e3 * flops / step_ms


def _number(value: Any) -> float:
    """A positive number of a record; else NaN."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if is_one else math.nan
