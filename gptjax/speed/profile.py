"""Where an update's time goes: a profile, summed over a few kinds of operation."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

import jax
from rich.console import Console
from rich.table import Table

from gptjax.run.program import CompiledTrainer
from gptjax.system.errors import RunError
from gptjax.system.files import temporary_folder

GROUPS = ("matmul", "attention", "elementwise", "optimizer", "idle")

# "  %name = f32[2,3]{1,0} opcode(…), calls=%other, metadata={op_name="…"}"
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(\S+) = (?:\(.*?\)|\S+) ([\w-]+)\(")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(\S+) \(.*\{$")

# XLA's flag by which operations are started one by one, where the profiler sees each.
WITHOUT_GRAPHS = "--xla_gpu_enable_command_buffer="

# A profile that misses more of a GPU's time than a tenth is none.
_LEAST_TOLD_APART = 0.9

# What XLA calls cuBLAS' products; cuDNN's attention stands in the scope of that name.
_PRODUCT_CALL = re.compile(r'custom_call_target="__cublas')

# These only run other operations, which are counted themselves.
_CONTAINERS = {"while", "call", "conditional"}


def groups_of_operations(hlo_text: str) -> dict[str, str]:
    """The group of each instruction of a compiled program, by its name.

    What the scopes `optimizer` and `attention` name belongs there, matrix products included; of
    the rest, products and fusions around one are `matmul`, all others `elementwise`.
    """
    bodies: dict[str, list[tuple[str, str, str]]] = {}
    for line in hlo_text.splitlines():
        opening = _COMPUTATION.match(line)
        if opening:
            body = bodies.setdefault(opening[1], [])
        found = _INSTRUCTION.match(line)
        if found:
            body.append((found[1], found[2], line))

    def has_product(opcode: str, line: str) -> bool:
        called = re.search(r"calls=%?([\w.-]+)", line)
        inner = bodies.get(called[1], []) if called else []
        is_product = opcode == "dot" or _PRODUCT_CALL.search(line)
        return bool(is_product) or any(has_product(code, text) for _, code, text in inner)

    return {
        name: _group(line, has_product(opcode, line))
        for body in bodies.values()
        for name, opcode, line in body
        if opcode not in _CONTAINERS
    }


def _group(line: str, has_product: bool) -> str:
    scope = re.search(r'op_name="([^"]*)"', line)
    for name in ("optimizer", "attention"):
        if scope and re.search(rf"\b{name}\b", scope[1]):
            return name
    return "matmul" if has_product else "elementwise"


def profile(program: CompiledTrainer, n_updates: int) -> dict[str, float]:
    """Milliseconds an update spends in each of GROUPS, from a trace of `n_updates` updates.

    `idle` is the time during which no operation ran. Operations that run side by side share the
    time that they take together.

    Raises:
      RunError: if the profiler does not tell most operations apart, as those of CUDA graphs.
    """
    n_updates = min(n_updates, program.max_updates_per_call)
    call = program.batches(0, n_updates)
    with temporary_folder() as folder:
        with jax.profiler.trace(str(folder)):
            start = time.perf_counter()
            program.train(call, n_updates)
            wall_ns = 1e9 * (time.perf_counter() - start)
        (path,) = folder.rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
        # A GPU has a plane of its own; on the host's are then the calls that start operations.
        devices = [plane for plane in planes if plane.name.startswith("/device:GPU")]
        seen = [
            (event.start_ns, event.duration_ns, str(dict(event.stats).get("hlo_op")))
            for plane in devices or planes
            for line in plane.lines
            for event in line.events
        ]
    group_of = groups_of_operations(program.hlo_text())
    events = [event for event in seen if event[2] in group_of]
    busy_ns = covered((start, start + duration) for start, duration, _ in events)
    if devices:
        all_ns = covered((start, start + duration) for start, duration, _ in seen)
        if busy_ns < _LEAST_TOLD_APART * all_ns:
            raise RunError(
                f"the profiler attributes only {busy_ns / all_ns:.0%} of the GPU's time; "
                f"operations in CUDA graphs show with XLA_FLAGS={WITHOUT_GRAPHS}"
            )
    totals = dict.fromkeys(GROUPS, 0.0)
    for _, duration, operation in events:
        totals[group_of[operation]] += duration
    share = busy_ns / max(sum(totals.values()), 1.0)
    shared = {group: share * total for group, total in totals.items()}
    shared["idle"] = max(wall_ns - busy_ns, 0.0)
    return {group: total / n_updates / 1e6 for group, total in shared.items()}


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals (start, end)."""
    length, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        length += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return length


def print_table(groups: dict[str, float]) -> None:
    """Prints the groups with their shares."""
    table = Table("operations", "ms an update", "share")
    total = sum(groups.values())
    for group, milliseconds in groups.items():
        table.add_row(group, f"{milliseconds:.2f}", f"{100 * milliseconds / total:.0f} %")
    Console(highlight=False).print(table)
