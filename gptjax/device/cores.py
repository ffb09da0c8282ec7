"""Which cores a process may use: fast and efficient ones, their hyper-threads, its cgroup's limit.

Everything is read below a root folder, "/" but in tests. What Linux does not tell is left open.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable
from pathlib import Path

from gptjax.system import cache

# A core is efficient when its capacity or clock is below this part of the fastest one's. Intel's
# favoured cores differ by a few percent and are not meant; E-cores of Alder Lake have 0.74 of the
# clock (3.3 of 4.4 GHz), Arm's middle cores 0.4 to 0.8 of the capacity.
_EFFICIENT_BELOW = 0.8

_CPUS = "sys/devices/system/cpu"


@dataclasses.dataclass(frozen=True)
class Cpu:
    """One of Linux's CPUs, a core or a hyper-thread of one.

    `thread` counts those of its core that the process may use, from 0; `is_fast` is None where the
    cores are alike or nothing tells them apart.
    """

    number: int
    core: tuple[int, int]
    thread: int
    is_fast: bool | None


@dataclasses.dataclass(frozen=True)
class Cores:
    """What a process may compute on.

    Attributes:
      cpus: those it may use, best first: fast cores, efficient cores, then second threads.
      n_online: CPUs that are there, its own or not.
      quota: the time of so many CPUs its cgroup lets it have; None for no limit.
      told_by: what tells fast cores from efficient ones, or "".
    """

    cpus: tuple[Cpu, ...]
    n_online: int
    quota: float | None
    told_by: str

    @property
    def n_cores(self) -> int:
        """Cores, hyper-threads not counted."""
        return len({cpu.core for cpu in self.cpus})

    @property
    def n_fast(self) -> int:
        """Fast cores, hyper-threads not counted; 0 where nothing tells."""
        return len({cpu.core for cpu in self.cpus if cpu.is_fast})

    def in_words(self) -> str:
        """A line for people."""
        n_cpus, n_cores, n_fast = len(self.cpus), self.n_cores, self.n_fast
        words = f"{n_cores} core{'s' * (n_cores != 1)}"
        if n_fast and n_fast < n_cores:
            words += f": {n_fast} fast (P), {n_cores - n_fast} efficient (E), by {self.told_by}"
        if n_cpus > n_cores:
            words += f"; {n_cpus} CPUs with their hyper-threads"
        if n_cpus < self.n_online:
            words += f"; {self.n_online} CPUs are there, but not for this process"
        if self.quota is not None:
            words += f"; the cgroup allows the time of {self.quota:g}"
        return words

    def to_json(self) -> dict[str, object]:
        """All of it, as JSON has it."""
        return {**dataclasses.asdict(self), "n_cores": self.n_cores, "n_fast": self.n_fast}


def allowed_cpus() -> list[int]:
    """The CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(cache.n_cores()))


def usable_cores(root: Path, affinity: Iterable[int]) -> Cores:
    """The cores among the CPUs of `affinity`, as the tree below `root` describes them."""
    numbers = sorted(affinity)
    online = cpu_list(_text(root / _CPUS / "online")) or numbers
    fast, told_by = _fast_ones(root, numbers)
    threads: dict[tuple[int, int], int] = {}
    cpus = []
    for number in numbers:
        core = _core_of(root, number)
        threads[core] = threads.get(core, -1) + 1
        is_fast = number in fast if told_by else None
        cpus.append(Cpu(number, core, threads[core], is_fast))
    cpus.sort(key=lambda cpu: (cpu.thread, cpu.is_fast is False, cpu.number))
    return Cores(tuple(cpus), len(online), cpu_quota(root), told_by)


def candidates(cores: Cores) -> list[tuple[int, ...]]:
    """Sets of CPUs worth trying, all of them first, then the likeliest to be better.

    Those are the fast cores, each core without its second thread, and as many as the cgroup gives
    time for; then 1, 2, 4, … of them, the largest first.
    """
    numbers = [cpu.number for cpu in cores.cpus]
    sizes = [len(numbers), cores.n_fast, cores.n_cores]
    if cores.quota is not None:
        sizes.append(max(1, math.ceil(cores.quota)))
    sizes += [2**power for power in range(len(numbers).bit_length(), -1, -1)]
    sets = [tuple(numbers[:size]) for size in sizes if 0 < size <= len(numbers)]
    with_threads = tuple(cpu.number for cpu in cores.cpus if cpu.is_fast)
    sets.insert(min(3, len(sets)), with_threads)
    return list(dict.fromkeys(cpus for cpus in sets if cpus))


def cpu_list(text: str) -> list[int]:
    """The CPUs of "0-3,8", as Linux writes lists of them; none where it is not such a list."""
    numbers: list[int] = []
    try:
        for part in filter(None, text.strip().split(",")):
            first, _, last = part.partition("-")
            numbers += range(int(first), int(last or first) + 1)
    except ValueError:
        return []
    return numbers


def list_of(cpus: Iterable[int]) -> str:
    """Those CPUs as taskset takes them: "0-3,8"."""
    ranges: list[list[int]] = []
    for number in sorted(cpus):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{a}-{b}" if a < b else str(a) for a, b in ranges)


def cpu_quota(root: Path) -> float | None:
    """The time of how many CPUs the process's cgroups let it have at most; None for no limit.

    The limit of every group that its own lies in holds as well. In a container the path may be the
    host's, and what is there of it begins at the mount.
    """
    found = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        if not controllers:
            mounts = ["sys/fs/cgroup"]
        for mount in mounts:
            group = Path(path.lstrip("/"))
            for part in (group, *group.parents):
                found.append(_quota_of(root / mount / part))
    limits = [quota for quota in found if quota is not None]
    return min(limits, default=None)


def _quota_of(group: Path) -> float | None:
    """The limit of one group, by the second version of cgroups or the first."""
    words = _text(group / "cpu.max").split()
    if len(words) != 2:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [_text(group / name).strip() for name in names]
    try:
        quota, period = (int(word) for word in words)
    except ValueError:  # "max", or there is no such file.
        return None
    return quota / period if quota > 0 and period > 0 else None


def _core_of(root: Path, number: int) -> tuple[int, int]:
    """(package, core) of a CPU; a core of its own where Linux does not tell."""
    topology = root / _CPUS / f"cpu{number}" / "topology"
    siblings = _text(topology / "core_cpus_list") or _text(topology / "thread_siblings_list")
    package = _number(topology / "physical_package_id") or 0
    # Of numbers of cores some kernels have the same one twice in a package, of siblings never.
    return (package, min(cpu_list(siblings), default=number))


def _fast_ones(root: Path, numbers: list[int]) -> tuple[set[int], str]:
    """The fast CPUs among these and what tells; none and "" where all are alike, as far as told."""
    performance = set(cpu_list(_text(root / "sys/devices/cpu_core/cpus")))
    efficient = set(cpu_list(_text(root / "sys/devices/cpu_atom/cpus")))
    if performance and efficient:
        fast = performance & set(numbers)
        return (fast, "cpu_core and cpu_atom") if 0 < len(fast) < len(numbers) else (set(), "")
    for file in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        told = {number: _number(root / _CPUS / f"cpu{number}" / file) for number in numbers}
        values = {number: value for number, value in told.items() if value}
        if not values or len(values) < len(told):
            continue
        limit = _EFFICIENT_BELOW * max(values.values())
        fast = {number for number, value in values.items() if value >= limit}
        if len(fast) < len(numbers):
            return fast, file.rpartition("/")[2]
    return set(), ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


def _text(path: Path) -> str:
    """A file's text; "" where there is none or it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
