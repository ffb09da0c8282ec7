"""What doctor.py found of a machine, in words: the most important first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gptjax.device.description import in_words
from gptjax.device.features import meaning

# Of what is set in the environment: the rest is in the file that --json names.
_MOST_SETTINGS = 8


def report(found: dict[str, Any]) -> list[str]:
    """Lines of text; `found` is what doctor.py writes as JSON."""
    sections = {
        "What to run here": _advice(found),
        "Test run": _test_run(found),
        "Device": _device(found),
        "Cores": _cores(found),
        "Graphics cards": found["graphics"],
        "Data, disk, memory": _room(found),
        "What is installed and set": _installed(found),
    }
    lines: list[str] = []
    for title, words in sections.items():
        lines += [title, *(f"  {line}" for line in words)]
    return lines


def _advice(found: dict[str, Any]) -> Iterator[str]:
    if "advice" not in found:
        yield "nothing yet: see below what is broken"
        return
    yield found["advice"]["command"]
    for setting in found["advice"]["settings"]:
        yield f"{setting['name']} {setting['value']}: {setting['reason']}"


def _test_run(found: dict[str, Any]) -> Iterator[str]:
    for run in found.get("test_run", []):
        yield run["words"]
    if "test_run" not in found:
        yield "not made"


def _device(found: dict[str, Any]) -> Iterator[str]:
    if "devices" not in found:
        yield found["problems"][0]
        return
    yield from in_words(found["devices"]).splitlines()
    for rate in found.get("rates", []):
        yield rate["words"]
    if "dispatch_us" in found:
        yield f"a call that does nothing: {found['dispatch_us']:.1f} µs"


def _cores(found: dict[str, Any]) -> Iterator[str]:
    cores = found["cores"]
    yield cores["words"]
    if cores["is_busy"]:
        busy = f"{cores['busy_cpus']:.1f} of {cores['n_online']} CPUs"
        yield f"other work is running ({busy}), so that all times are too long"
    yield f"{', '.join(found['features'] or ['processor'])}: {meaning(found['features'])}"
    if found["data_peak"]:
        yield found["data_peak"]["words"]
    updates = found.get("updates")
    if updates is None:
        return
    if updates["not_timed"]:
        yield f"updates were not timed: {updates['not_timed']}"
    elif updates["timings"]:
        yield f"an update of {updates['config']}, processes in turns:"
    skipped: dict[str, list[str]] = {}
    for timing in updates["timings"]:
        if timing["skipped"]:
            skipped.setdefault(timing["skipped"], []).append(timing["words"])
        else:
            yield f"  {timing['words']}"
    for why, names in skipped.items():
        yield f"  {why}: {'; '.join(names)}"


def _room(found: dict[str, Any]) -> Iterator[str]:
    data, room, kept = found["data"], found["room"], found["settings"]["cache"]
    yield f"Tiny Shakespeare: {data['words']}"
    yield f"network: {data['network']}"
    if kept is None:
        yield "cache: none, there is no home folder"
    else:
        writable = "writable" if room["cache_is_writable"] else "NOT writable: nothing is kept"
        yield f"cache: {kept}, {room['cache_bytes'] / 2**20:.1f} MiB, {writable}"
    free = f"free: {room['free_disk_bytes'] / 2**30:.1f} GiB of disk where runs are written"
    if room["free_memory_bytes"]:
        free += f", {room['free_memory_bytes'] / 2**30:.1f} GiB of memory"
    yield free


def _installed(found: dict[str, Any]) -> Iterator[str]:
    versions = [f"{name} {version}" for name, version in found["versions"].items()]
    for start in range(0, len(versions), 5):
        yield ", ".join(versions[start : start + 5])
    # Those are told above.
    settings = [item for item in found["settings"].items() if item[0] not in ("cache", "data")]
    for name, value in settings[:_MOST_SETTINGS]:
        yield f"{name}: {'none' if value is None else value or '(empty)'}"
    if len(settings) > _MOST_SETTINGS:
        yield f"… and {len(settings) - _MOST_SETTINGS} more, in --json FILE"
