"""Made-up trees of what Linux tells of a machine, as tests hand them over in place of /."""


def write(root, files):
    """Writes {path: text} below a folder; returns the folder."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text + "\n")
    return root


def cpus(siblings, **files):
    """The topology of CPUs; `siblings` has for each CPU the list of those that share its core.

    Other files are given as name={cpu: text}, with _ for /.
    """
    tree = {"sys/devices/system/cpu/online": f"0-{len(siblings) - 1}"}
    for number, together in enumerate(siblings):
        folder = f"sys/devices/system/cpu/cpu{number}"
        tree[f"{folder}/topology/thread_siblings_list"] = together
        tree[f"{folder}/topology/physical_package_id"] = "0"
        for name, values in files.items():
            tree[f"{folder}/{name.replace('__', '/')}"] = str(values[number])
    return tree


def alder_lake(*, is_told_by_kernel=True):
    """An i7-12700H: six P-cores of two threads, CPUs 0 to 11, and eight E-cores, 12 to 19."""
    siblings = [f"{n // 2 * 2}-{n // 2 * 2 + 1}" for n in range(12)] + [
        str(n) for n in range(12, 20)
    ]
    # Two favoured cores are clocked higher than the other P-cores, as Intel has it.
    clock = [4_700_000] * 4 + [4_600_000] * 8 + [3_500_000] * 8
    tree = cpus(siblings, cpufreq__cpuinfo_max_freq=clock)
    if is_told_by_kernel:
        tree |= {"sys/devices/cpu_core/cpus": "0-11", "sys/devices/cpu_atom/cpus": "12-19"}
    flags = "fpu sse sse2 ssse3 fma sse4_1 sse4_2 avx f16c avx2 avx_vnni"
    return tree | {"proc/cpuinfo": cpuinfo("flags", [flags] * 20)}


def xeon():
    """Four cores of two threads, the second threads numbered after all first ones."""
    siblings = [f"{n % 4},{n % 4 + 4}" for n in range(8)]
    clock = [3_900_000, 3_700_000] + [3_600_000] * 6
    flags = "sse2 fma avx avx2 avx512f avx512bw avx512vl avx512_bf16 amx_bf16 amx_tile"
    tree = cpus(siblings, cpufreq__cpuinfo_max_freq=clock)
    return tree | {"proc/cpuinfo": cpuinfo("flags", [flags] * 8)}


def big_little():
    """Arm: four little cores, 0 to 3, three big ones and a prime one, 7."""
    tree = cpus([str(n) for n in range(8)], cpu_capacity=[325] * 4 + [871] * 3 + [1024])
    little, big = "fp asimd aes", "fp asimd aes sve bf16"
    return tree | {"proc/cpuinfo": cpuinfo("Features", [little] * 4 + [big] * 4)}


def cpuinfo(word, flags):
    """/proc/cpuinfo of CPUs with these flags."""
    return "\n\n".join(f"processor\t: {n}\n{word}\t\t: {each}" for n, each in enumerate(flags))


def card(number, vendor, device, kind="0x030000"):
    """A card on the PCI bus."""
    folder = f"sys/bus/pci/devices/0000:{number:02x}:00.0"
    return {f"{folder}/class": kind, f"{folder}/vendor": vendor, f"{folder}/device": device}
