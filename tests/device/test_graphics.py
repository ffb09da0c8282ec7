"""Cards of made-up machines: used, or what is missing."""

import machines
import pytest

from gptjax.device.graphics import graphics, verdict

NVIDIA = machines.card(1, "0x10de", "0x2684")
INTEL = machines.card(0, "0x8086", "0x46a6")
AMD = machines.card(4, "0x1002", "0x73bf", kind="0x038000")
NETWORK = machines.card(9, "0x8086", "0x15f3", kind="0x020000")
CUDA_13, CUDA_12 = {"jax-cuda13-plugin": "0.10.2"}, {"jax-cuda12-plugin": "0.10.2"}


def driver(version):
    words = f"NVIDIA UNIX x86_64 Kernel Module  {version}  Sun Jul 27 06:50:28 UTC 2025"
    return {"proc/driver/nvidia/version": f"NVRM version: {words}\nGCC version: gcc 13.3.0"}


def verdict_of(folder, tree, plugins, platform="cpu", **environment):
    return verdict(graphics(machines.write(folder, tree)), plugins, platform, environment)


@pytest.mark.parametrize(
    ("tree", "plugins", "is_broken", "says"),
    [
        (driver("580.65.06"), {}, False, 'no CUDA wheel. Install it: pip install -e ".[cuda]"'),
        (driver("550.54.14"), {}, False, 'pip install "jax[cuda12]"'),
        (driver("470.82.01"), {}, False, "too old for any CUDA"),
        (driver("550.54.14"), CUDA_13, True, "too old for the CUDA 13 wheel: 580 is needed"),
        (driver("470.82.01"), CUDA_12, True, "too old for any CUDA"),
        (driver("580.65.06"), CUDA_13, True, "JAX finds no device; see what nvidia-smi says"),
        (driver("550.54.14"), CUDA_12, True, "JAX finds no device"),
        ({}, {}, False, "NVIDIA's driver is not loaded"),
        ({}, CUDA_13, True, "NVIDIA's driver is not loaded"),
    ],
)
def test_an_nvidia_card_that_is_not_used(tmp_path, tree, plugins, is_broken, says):
    found = verdict_of(tmp_path, NVIDIA | tree, plugins)
    assert found.is_broken is is_broken
    (line,) = found.lines
    assert line.startswith("NVIDIA 10de:2684") and ": not usable: " in line and says in line


def test_one_that_is_used(tmp_path):
    found = verdict_of(tmp_path, NVIDIA | driver("580.65.06"), CUDA_13, "gpu")
    assert (found.is_broken, found.lines) == (
        False,
        ("NVIDIA 10de:2684, driver 580.65: JAX uses it",),
    )


@pytest.mark.parametrize("environment", [{"JAX_PLATFORMS": "cpu"}, {"CUDA_VISIBLE_DEVICES": ""}])
def test_one_that_is_left_out_on_purpose_is_not_broken(tmp_path, environment):
    found = verdict_of(tmp_path, NVIDIA | driver("580.65.06"), CUDA_13, **environment)
    assert not found.is_broken and "left out, since " + next(iter(environment)) in found.lines[0]


def test_one_that_is_asked_for_is_not_called_left_out(tmp_path):
    found = verdict_of(tmp_path, NVIDIA | driver("550.0"), CUDA_13, JAX_PLATFORMS="cuda,cpu")
    assert found.is_broken and "too old" in found.lines[0]


def test_intels_and_amds_graphics_are_named_and_not_used(tmp_path):
    found = verdict_of(tmp_path, INTEL | AMD | NETWORK, {})
    assert not found.is_broken
    assert [line.partition(":")[0] for line in found.lines] == ["Intel 8086", "AMD 1002"]
    assert all("not used" in line for line in found.lines)


def test_a_server_has_a_display_at_most(tmp_path):
    assert verdict_of(tmp_path / "a", NETWORK, {}).lines == ("none found",)
    server = machines.card(2, "0x1a03", "0x2000")
    assert verdict_of(tmp_path / "b", server, {}).lines == (
        "other 1a03:2000: a display, nothing to compute on",
    )


def test_cards_are_found_as_displays_where_there_is_no_pci_bus(tmp_path):
    folder = "sys/class/drm/card0/device"
    tree = {f"{folder}/vendor": "0x8086", f"{folder}/device": "0x46a6"}
    tree["sys/class/drm/card0-HDMI-A-1/device/vendor"] = "0x10de"
    assert graphics(machines.write(tmp_path, tree)).cards == ("Intel 8086:46a6",)


def test_windows_driver_in_wsl(tmp_path):
    tree = {"dev/dxg": "", "usr/lib/wsl/lib/libcuda.so.1": ""}
    (line,) = verdict_of(tmp_path, tree, {}).lines
    assert line.startswith("NVIDIA, through Windows: not usable: no CUDA wheel")


def test_the_open_kernel_module_has_a_version_as_well(tmp_path):
    words = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build"
    tree = {"proc/driver/nvidia/version": words}
    assert graphics(machines.write(tmp_path, tree)).driver == (570, 86)
