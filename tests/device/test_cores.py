"""Cores of made-up machines: fast ones, efficient ones, hyper-threads, limits of cgroups."""

import os
from pathlib import Path

import machines
import pytest

from gptjax.device.cores import candidates, cpu_list, cpu_quota, list_of, usable_cores


def numbers(cores):
    return [cpu.number for cpu in cores.cpus]


P_FIRST_THREADS, P_SECOND_THREADS = [0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]
E_CORES = [12, 13, 14, 15, 16, 17, 18, 19]


@pytest.mark.parametrize("told_by", ["cpu_core and cpu_atom", "cpuinfo_max_freq"])
def test_a_laptop_with_two_kinds_of_cores(tmp_path, told_by):
    tree = machines.alder_lake(is_told_by_kernel=told_by != "cpuinfo_max_freq")
    cores = usable_cores(machines.write(tmp_path, tree), range(20))
    assert (cores.n_cores, cores.n_fast, cores.told_by) == (14, 6, told_by)
    assert numbers(cores) == P_FIRST_THREADS + E_CORES + P_SECOND_THREADS
    assert cores.in_words() == (
        f"14 cores: 6 fast (P), 8 efficient (E), by {told_by}; 20 CPUs with their hyper-threads"
    )
    sets = candidates(cores)
    assert [len(each) for each in sets] == [20, 6, 14, 12, 16, 8, 4, 2, 1]
    assert set(sets[0]) == set(range(20)) and list(sets[1]) == P_FIRST_THREADS
    assert list(sets[2]) == P_FIRST_THREADS + E_CORES
    assert sorted(sets[3]) == list(range(12)), "P-cores with both threads"
    assert set(sets[-2]) == {0, 2}, "two cores, not two threads of one"


def test_a_process_that_may_use_some_of_them(tmp_path):
    root = machines.write(tmp_path, machines.alder_lake())
    cores = usable_cores(root, [1, 2, 3, 15])
    assert numbers(cores) == [1, 2, 15, 3]
    assert cores.in_words() == (
        "3 cores: 2 fast (P), 1 efficient (E), by cpu_core and cpu_atom; 4 CPUs with their "
        "hyper-threads; 20 CPUs are there, but not for this process"
    )
    only_fast = usable_cores(root, [0, 2])
    assert (only_fast.n_fast, only_fast.told_by) == (0, "")
    assert [cpu.is_fast for cpu in only_fast.cpus] == [None, None]


def test_a_xeon_has_one_kind_of_core_though_two_are_clocked_higher(tmp_path):
    cores = usable_cores(machines.write(tmp_path, machines.xeon()), range(8))
    assert (cores.n_cores, cores.n_fast, cores.told_by, cores.quota) == (4, 0, "", None)
    assert numbers(cores) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert [cpu.thread for cpu in cores.cpus] == [0] * 4 + [1] * 4
    assert cores.in_words() == "4 cores; 8 CPUs with their hyper-threads"
    assert candidates(cores) == [tuple(range(n)) for n in (8, 4, 2, 1)]


def test_arms_big_cores_go_before_its_little_ones(tmp_path):
    cores = usable_cores(machines.write(tmp_path, machines.big_little()), range(8))
    assert (cores.n_cores, cores.n_fast, cores.told_by) == (8, 4, "cpu_capacity")
    assert numbers(cores) == [4, 5, 6, 7, 0, 1, 2, 3]


def test_a_machine_that_tells_nothing(tmp_path):
    cores = usable_cores(tmp_path, [0, 3, 5])
    assert (cores.n_cores, cores.n_fast, cores.told_by, cores.quota) == (3, 0, "", None)
    assert numbers(cores) == [0, 3, 5] and cores.in_words() == "3 cores"
    assert candidates(cores) == [(0, 3, 5), (0, 3), (0,)]
    assert candidates(usable_cores(tmp_path, [7])) == [(7,)]


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 1.5),
        # The group above allows less.
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
            },
            3.0,
        ),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4.0),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, None),
        # The first version; in a container the path is the host's.
        (
            {
                "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n0::/",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        ({}, None),
    ],
)
def test_the_limit_of_a_cgroup(tmp_path, files, quota):
    assert cpu_quota(machines.write(tmp_path, files)) == quota


def test_as_many_cpus_as_the_cgroup_gives_time_for_are_tried(tmp_path):
    limit = {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "250000 100000"}
    cores = usable_cores(machines.write(tmp_path, machines.xeon() | limit), range(8))
    assert cores.in_words().endswith("; the cgroup allows the time of 2.5")
    assert (0, 1, 2) in candidates(cores)


def test_lists_of_cpus_are_read_and_written():
    for text, found in {"0-3,8": [0, 1, 2, 3, 8], "5": [5], "": [], "none": []}.items():
        assert cpu_list(text + "\n") == found
    assert list_of([8, 0, 2, 1, 3]) == "0-3,8" and list_of([10, 0, 2]) == "0,2,10"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux tells")
def test_this_machine_has_the_cpus_that_this_process_may_use():
    here = os.sched_getaffinity(0)
    cores = usable_cores(Path("/"), here)
    assert set(numbers(cores)) == here and 1 <= cores.n_cores <= len(here) <= cores.n_online
    assert set(candidates(cores)[0]) == here
