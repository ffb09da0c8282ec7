"""What a processor's data say it could do at most in float32: cores, vectors, clock.

For people to see beside what was measured, and no divisor: turbo clocks go beyond the one that is
told, above all in virtual machines, and what the table lacks is not guessed.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from gptjax.device.cores import Cores

# (fused multiply-add units, float32 lanes of each) by vendor, family and models.
# Sources: Linux, arch/x86/include/asm/intel-family.h, for the models; Intel's optimization
# reference manual (units of ports 0, 1 and 5); AMD's software optimization guides for families
# 17h, 19h and 1Ah. Missing on purpose: Skylake servers (model 85), of which some have one unit.
_X86: dict[tuple[str, int], list[tuple[set[int], int, int]]] = {
    ("GenuineIntel", 6): [
        ({106, 143, 173, 207}, 2, 16),  # Ice Lake, Sapphire, Granite and Emerald Rapids servers.
        ({60, 63, 69, 70, 61, 71, 79, 86, 78, 94, 142, 158, 165, 166}, 2, 8),  # Haswell to Comet.
    ],
    ("AuthenticAMD", 23): [(set(range(0x30)), 2, 4), (set(range(0x30, 0x100)), 2, 8)],  # Zen, Zen 2
    ("AuthenticAMD", 25): [(set(range(0x100)), 2, 8)],  # Zen 3; Zen 4 makes two halves of 512 bits.
    ("AuthenticAMD", 26): [({*range(0x20), *range(0x40, 0x50)}, 2, 16)],  # Zen 5, not of laptops.
}
# The same by Arm's own part numbers. Sources: Linux, arch/arm64/include/asm/cputype.h; Arm's
# software optimization guides (FMLA, throughput).
_ARM: dict[int, tuple[int, int]] = {
    0xD0B: (2, 4),  # Cortex-A76: Raspberry Pi 5
    0xD0C: (2, 4),  # Neoverse N1: Graviton 2, Ampere Altra
    0xD40: (2, 8),  # Neoverse V1, by SVE: Graviton 3
    0xD49: (2, 4),  # Neoverse N2
    0xD4F: (4, 4),  # Neoverse V2: Graviton 4, Grace
}
_ARM_LIMITED = "0x41"


@dataclasses.dataclass(frozen=True)
class DataPeak:
    """Cores, units a core, float32 lanes a unit, Hz, and where the clock was read."""

    n_cores: int
    n_units: int
    n_lanes: int
    clock_hz: float
    clock_source: str

    @property
    def flops_per_s(self) -> float:
        """FLOP/s; a fused multiply-add is two."""
        return 2.0 * self.n_cores * self.n_units * self.n_lanes * self.clock_hz

    def in_words(self) -> str:
        """A line for people."""
        return (
            f"by its data: {self.n_cores} core{'s' * (self.n_cores != 1)} x {self.n_units} FMA "
            f"units x {self.n_lanes} lanes x 2 x {self.clock_hz / 1e9:.3g} GHz "
            f"= {self.flops_per_s / 1e9:,.0f} GFLOP/s of float32 (clock by {self.clock_source})"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it with the FLOP/s, as JSON has it."""
        return {**dataclasses.asdict(self), "flops_per_s": self.flops_per_s}


def data_peak(root: Path, cores: Cores) -> DataPeak | None:
    """What the tree below `root` tells of these cores; None where something is not told.

    Nor is there a figure where fast and efficient cores are mixed.
    """
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return None
    told = [_fields(block) for block in text.split("\n\n") if block.strip()]
    kinds = {_units(fields) for fields in told}
    clock = _clock(root, cores, told)
    if len(kinds) != 1 or None in kinds or clock is None or 0 < cores.n_fast < cores.n_cores:
        return None
    ((n_units, n_lanes),) = (kind for kind in kinds if kind)
    return DataPeak(cores.n_cores, n_units, n_lanes, *clock)


def _fields(block: str) -> dict[str, str]:
    """What /proc/cpuinfo has of one CPU."""
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _units(fields: dict[str, str]) -> tuple[int, int] | None:
    """FMA units and their lanes of a CPU in the tables, if it may use them."""
    try:
        if fields.get("CPU implementer") == _ARM_LIMITED:
            found = _ARM.get(int(fields["CPU part"], 16))
            # Eight lanes are SVE's there; a kernel without it leaves NEON, as wide in all.
            return found if "asimd" in fields.get("Features", "").split() else None
        known = _X86.get((fields["vendor_id"], int(fields["cpu family"])), [])
        model, flags = int(fields["model"]), fields["flags"].split()
    except (KeyError, ValueError):
        return None
    for models, n_units, n_lanes in known:
        if model in models and ("avx512f" if n_lanes == 16 else "fma") in flags:
            return n_units, n_lanes
    return None


def _clock(root: Path, cores: Cores, told: list[dict[str, str]]) -> tuple[float, str] | None:
    """The highest clock that is told, Hz, and by what: turbo clocks only by the first of three."""
    clocks = []
    for cpu in cores.cpus:
        folder = root / f"sys/devices/system/cpu/cpu{cpu.number}/cpufreq"
        try:
            clocks.append(1e3 * int((folder / "cpuinfo_max_freq").read_text()))
        except (OSError, ValueError):
            break
    if clocks and len(clocks) == len(cores.cpus):
        return max(clocks), "cpuinfo_max_freq"
    for field, pattern, unit in (
        ("model name", r"@ *(\d+\.?\d*) *GHz", 1e9),
        ("cpu MHz", r"^(\d+\.?\d*)$", 1e6),
    ):
        found = [re.search(pattern, fields.get(field, "")) for fields in told]
        values = [unit * float(match[1]) for match in found if match]
        if values and max(values) > 0:
            return max(values), f"/proc/cpuinfo, {field}"
    return None
