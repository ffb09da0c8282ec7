"""What made-up processors could do by their data; each figure is worked out by hand."""

import machines
import pytest

from gptjax.device.cores import allowed_cpus, usable_cores
from gptjax.device.data_peak import data_peak


def found(tmp_path, n_cpus, tree, **fields):
    """The figure of CPUs with these fields of /proc/cpuinfo, _ for a blank; "" leaves one out."""
    lines = [f"{name.replace('_', ' ')}\t: {value}" for name, value in fields.items() if value]
    lines = [line.replace("vendor id", "vendor_id") for line in lines]
    tree = tree | {"proc/cpuinfo": "\n\n".join("\n".join(lines) for _ in range(n_cpus))}
    root = machines.write(tmp_path, tree)
    return data_peak(root, usable_cores(root, range(n_cpus)))


EMERALD = dict(vendor_id="GenuineIntel", cpu_family="6", model="207", cpu_MHz="2700.000")
EMERALD |= dict(flags="sse2 fma avx2 avx512f")
RYZEN = dict(vendor_id="AuthenticAMD", cpu_family="25", model="33", flags="sse2 fma avx2")
ALTRA = dict(CPU_implementer="0x41", CPU_part="0xd0c", Features="fp asimd")


def test_a_server_without_a_clock_of_its_own(tmp_path):
    peak = found(tmp_path, 2, machines.cpus(["0", "1"]), **EMERALD)
    assert peak.flops_per_s == 2 * 2 * 16 * 2 * 2.7e9
    assert peak.in_words() == (
        "by its data: 2 cores x 2 FMA units x 16 lanes x 2 x 2.7 GHz = 346 GFLOP/s "
        "of float32 (clock by /proc/cpuinfo, cpu MHz)"
    )
    assert peak.to_json()["flops_per_s"] == peak.flops_per_s


def test_hyper_threads_are_no_cores_and_the_highest_clock_counts(tmp_path):
    clock = [4_900_000, 4_900_000, 4_700_000, 4_700_000]
    tree = machines.cpus(["0-1", "0-1", "2-3", "2-3"], cpufreq__cpuinfo_max_freq=clock)
    peak = found(tmp_path, 4, tree, **RYZEN, cpu_MHz="3400")
    assert peak.flops_per_s == pytest.approx(2 * 2 * 8 * 2 * 4.9e9)
    assert peak.clock_source == "cpuinfo_max_freq"


def test_a_name_tells_the_nominal_clock(tmp_path):
    name = "Intel(R) Xeon(R) CPU E5-2680 v3 @ 2.50GHz"
    haswell = EMERALD | dict(model="63", model_name=name, cpu_MHz="1200")
    peak = found(tmp_path, 1, machines.cpus(["0"]), **haswell)
    assert peak.flops_per_s == 1 * 2 * 8 * 2 * 2.5e9
    assert peak.in_words().startswith("by its data: 1 core x 2 FMA units x 8 lanes x 2 x 2.5 GHz")


def test_arm(tmp_path):
    tree = machines.cpus(["0", "1"], cpufreq__cpuinfo_max_freq=[3_000_000] * 2)
    assert found(tmp_path, 2, tree, **ALTRA).flops_per_s == 2 * 2 * 4 * 2 * 3.0e9


@pytest.mark.parametrize(
    "fields",
    [
        EMERALD | dict(model="85"),  # One unit or two, nothing tells.
        EMERALD | dict(flags="sse2"),  # A virtual machine without the vectors.
        EMERALD | dict(cpu_MHz=""),
        EMERALD | dict(cpu_MHz="0.000"),
        EMERALD | dict(model="new"),
        ALTRA,  # Where Linux does not tell the clock.
        ALTRA | dict(CPU_part="0xfff", cpu_MHz="3000"),
        ALTRA | dict(CPU_implementer="0xc0", cpu_MHz="3000"),
        dict(processor="0"),
    ],
)
def test_nothing_is_invented(tmp_path, fields):
    assert found(tmp_path, 2, machines.cpus(["0", "1"]), **fields) is None


def test_two_kinds_of_cores_have_no_figure(tmp_path):
    tree = machines.cpus(["0", "1"], cpufreq__cpuinfo_max_freq=[4_000_000, 2_000_000])
    assert found(tmp_path, 2, tree, **EMERALD) is None


def test_without_linux_there_is_none(tmp_path):
    assert data_peak(tmp_path, usable_cores(tmp_path, allowed_cpus())) is None
