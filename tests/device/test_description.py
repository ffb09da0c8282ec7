"""What devices tell of themselves: CPUs, and by stand-ins cards."""

from types import SimpleNamespace

from gptjax.device import description


def card(**changes):
    """A stand-in for JAX's view of a GPU."""
    told = dict(
        platform="gpu",
        device_kind="NVIDIA A100-SXM4-80GB",
        compute_capability="8.0",
        client=SimpleNamespace(platform_version="PJRT C API\ncuda 13000"),
        memory_stats=lambda: {"bytes_limit": 60 * 2**30},
    )
    return SimpleNamespace(**told | changes)


def test_a_card_is_described(monkeypatch):
    monkeypatch.setattr(description.cache, "processor", lambda: "Xeon")
    monkeypatch.setattr(description.devices_module, "n_cores", lambda: 7)
    described = description.description([card()] * 2, "the reason")
    assert described == {
        "platform": "gpu",
        "device": "NVIDIA A100-SXM4-80GB",
        "n_devices": 2,
        "host_cores": 7,
        "why": "the reason",
        "processor": "Xeon",
        "compute_capability": "8.0",
        "memory_bytes": 60 * 2**30,
        "runtime": "PJRT C API cuda 13000",
        "cpu_is_reachable": True,
    }
    assert description.in_words(described) == (
        "2 x gpu (NVIDIA A100-SXM4-80GB): the reason\n"
        "compute capability 8.0, 60.0 GiB of memory, host Xeon with 7 cores, "
        "PJRT C API cuda 13000, the CPU backend beside it is there"
    )


def test_what_a_card_does_not_tell_is_left_out(monkeypatch):
    def no_cpu(platform):
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(description.cache, "processor", lambda: "Xeon")
    monkeypatch.setattr(description.devices_module, "n_cores", lambda: 7)
    monkeypatch.setattr(description.jax, "devices", no_cpu)
    silent = card(memory_stats=lambda: None)
    del silent.compute_capability
    described = description.description([silent], "the reason")
    _, line = description.in_words(described).splitlines()
    assert line == (
        "host Xeon with 7 cores, PJRT C API cuda 13000, "
        "no CPU backend beside it, where FLOPs are counted"
    )
