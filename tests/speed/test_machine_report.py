"""Lines on a machine: what was not found, or not measured, is said or left out."""

from gptjax.speed.machine_report import report


def found(**changes):
    values = dict(
        versions={"gptjax": "1", "Python": "3", "jax": "2", "a": "4", "b": "5", "c": "6"},
        settings={"cache": "/cache", "compiled programs": None, "data": "/data", "JAX_X": ""},
        cores={"words": "2 cores", "is_busy": False, "busy_cpus": 0.25, "n_online": 2},
        features=["AVX2", "FMA"],
        data_peak=None,
        graphics=["none found"],
        data={"words": "not here", "network": "no: no answer"},
        room={
            "cache_is_writable": False,
            "cache_bytes": 3 * 2**20,
            "free_disk_bytes": 2**30,
            "free_memory_bytes": 5 * 2**29,
        },
        problems=["JAX_PLATFORMS: cuda; no such device here"],
    )
    return values | changes


def test_a_machine_whose_device_is_broken():
    assert report(found()) == [
        "What to run here",
        "  nothing yet: see below what is broken",
        "Test run",
        "  not made",
        "Device",
        "  JAX_PLATFORMS: cuda; no such device here",
        "Cores",
        "  2 cores",
        "  AVX2, FMA: float32 products 8 at a time; bfloat16 is emulated and slower",
        "Graphics cards",
        "  none found",
        "Data, disk, memory",
        "  Tiny Shakespeare: not here",
        "  network: no: no answer",
        "  cache: /cache, 3.0 MiB, NOT writable: nothing is kept",
        "  free: 1.0 GiB of disk where runs are written, 2.5 GiB of memory",
        "What is installed and set",
        "  gptjax 1, Python 3, jax 2, a 4, b 5",
        "  c 6",
        "  compiled programs: none",
        "  JAX_X: (empty)",
    ]


def test_a_system_that_tells_little():
    room = found()["room"] | {"free_memory_bytes": None}
    settings = {"cache": None} | {f"JAX_{n}": "1" for n in range(11)}
    lines = report(found(features=None, room=room, settings=settings))
    assert "  processor: nothing is known of its instructions" in lines
    assert "  cache: none, there is no home folder" in lines
    assert "  free: 1.0 GiB of disk where runs are written" in lines
    assert lines[-1] == "  … and 3 more, in --json FILE"


def test_times_and_what_there_was_no_time_for():
    timings = [
        {"words": "CPUs 0-1 (2)", "skipped": ""},
        {"words": "CPUs 0 (1)", "skipped": "no time"},
        {"words": "CPUs 0-1, b", "skipped": "no time"},
    ]
    updates = {"config": "a.py", "not_timed": "", "timings": timings}
    lines = report(found(updates=updates))
    assert lines[lines.index("  an update of a.py, processes in turns:") + 1 :][:2] == [
        "    CPUs 0-1 (2)",
        "    no time: CPUs 0 (1); CPUs 0-1, b",
    ]


def test_what_a_processor_could_do_by_its_data():
    lines = report(found(data_peak={"words": "by its data: 1 core x …", "flops_per_s": 1e9}))
    assert lines[lines.index("Graphics cards") - 1] == "  by its data: 1 core x …"
