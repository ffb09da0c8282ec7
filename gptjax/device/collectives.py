"""What devices send one another in an update, read from what XLA has compiled."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "s4": 4, "u4": 4} | {
    f"{kind}{bits}": bits for kind in "sufc" for bits in (8, 16, 32, 64, 128)
}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_NAME = r"%?([\w.\-]+)"
_CALLED = re.compile(rf"\b(?:to_apply|calls|body|condition|true_computation)={_NAME}")
_BRANCHES = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_LISTED_GROUPS = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_COUNTED_GROUPS = re.compile(r"replica_groups=\[\d+,(\d+)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The collectives of a kind in one update.

    Attributes:
      kind: XLA's word.
      n_calls: how many.
      n_bytes: of the whole arrays they bring together on each device.
      sent_bytes: what each device sends of them, or gets, where they pass it on in a ring.
    """

    kind: str
    n_calls: int
    n_bytes: int
    sent_bytes: int


def traffic(hlo_text: str, n_devices: int) -> list[Traffic]:
    """The collectives of an update; `hlo_text` is that of train_steps, a loop over updates.

    What is in the loop over micro-batches counts as often as it runs. What is outside of the loop
    over updates is left out: it comes once a call.
    """
    computations = dict(_computations(hlo_text))
    found: dict[str, list[tuple[int, int, int]]] = {}
    for line, times in _lines_of_update(computations):
        match = _COLLECTIVE.search(line)
        if not match:
            continue
        result, kind, is_start = match.groups()
        sizes = [_bytes(*each) for each in _ARRAY.findall(result)]
        # What is started brings back what went in as well as what will come out.
        is_pair = is_start and kind != "all-reduce"
        size = max(sizes) if is_pair else sum(sizes)
        n = _group_size(line) or n_devices
        if kind == "reduce-scatter":  # What comes back is a device's part.
            size = (min(sizes) if is_pair else size) * n
        found.setdefault(kind, []).append((times, size, n))
    return [
        Traffic(
            kind,
            sum(times for times, _, _ in found[kind]),
            sum(times * size for times, size, _ in found[kind]),
            sum(times * _sent(kind, size, n) for times, size, n in found[kind]),
        )
        for kind in KINDS
        if kind in found
    ]


def _sent(kind: str, size: int, n: int) -> int:
    """Bytes that each of n devices sends.

    Source: Patarasuk and Yuan 2009, bandwidth optimal all-reduce algorithms.
    """
    if kind == "collective-permute":
        return size
    return size * (n - 1) * (2 if kind == "all-reduce" else 1) // n


def _computations(hlo_text: str) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of each; that of the whole program is called "ENTRY"."""
    name, lines = "", list[str]()
    for line in hlo_text.splitlines():
        if not line.startswith(" ") and (match := _HEADER.match(line)):
            name, lines = "ENTRY" if match[1] else match[2], []
        elif line.startswith("}") and name:
            yield name, lines
        elif name:
            lines.append(line)


def _lines_of_update(computations: dict[str, list[str]]) -> Iterator[tuple[str, int]]:
    """The lines of the loop over updates, each with how often it runs in one of them."""
    for line in _reached(computations, "ENTRY", 1, into_loops=False):
        if " while(" in line[0]:
            for name in _called(line[0]):
                yield from _reached(computations, name, 1, into_loops=True)


def _reached(
    computations: dict[str, list[str]], name: str, times: int, *, into_loops: bool
) -> Iterator[tuple[str, int]]:
    for line in computations.get(name, ()):
        yield line, times
        is_loop = " while(" in line
        if is_loop and not into_loops:
            continue
        turns = _TURNS.search(line) if is_loop else None
        n = times * int(turns[1]) if turns else times
        for called in _called(line):
            yield from _reached(computations, called, n, into_loops=into_loops)


def _called(line: str) -> list[str]:
    names = _CALLED.findall(line)
    for listed in _BRANCHES.findall(line):
        names += re.findall(_NAME, listed)
    return names


def _bytes(kind: str, shape: str) -> int:
    sizes = [int(size) for size in shape.split(",") if size]
    bits = 16 if kind == "bf16" else _BITS.get(kind, 8 if kind.startswith("f8") else 0)
    return math.prod(sizes) * bits // 8


def _group_size(line: str) -> int:
    """How many devices take part in a collective together; 0: all."""
    if match := _COUNTED_GROUPS.search(line):
        return int(match[1])
    match = _LISTED_GROUPS.search(line)
    return len(match[1].split(",")) if match and match[1] else 0
