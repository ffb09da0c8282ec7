"""What doctor.py says of devices it has (CPUs) and, by stand-ins, of those it has not."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from gptjax import doctor
from gptjax.device import peak
from gptjax.system.errors import RunError, UserError

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "doctor.py"


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


def run(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "GPTJAX_CACHE_DIR": str(cwd / "cache"), **environment},
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


def test_the_command_prints_and_writes_what_it_found(tmp_path):
    settings = dict(JAX_PLATFORMS="cpu", XLA_PYTHON_CLIENT_MEM_FRACTION=".5", GPTJAX_DATA_DIR="a")
    process = run("--json", "found.json", cwd=tmp_path, **settings)
    assert (process.returncode, process.stderr) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["versions"]["jaxlib"] == metadata.version("jaxlib")
    assert f"jaxlib {metadata.version('jaxlib')}" in process.stdout
    assert "1 x cpu (cpu): JAX_PLATFORMS=cpu\n" in process.stdout
    assert found["devices"]["n_devices"] == 1 and found["devices"]["cpu_is_reachable"]
    assert found["settings"].items() >= {**settings, "data": "a"}.items()
    assert found["settings"]["cache"] == str(tmp_path / "cache" / "gptjax")
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION: .5\n" in process.stdout
    rates = {rate["what"]: rate["measured"] for rate in found["rates"]}
    assert list(rates) == [
        "matrix product, float32",
        "matrix product, bfloat16",
        "memory, read and written",
    ]
    for what, measured in rates.items():
        assert what in process.stdout and 1e8 < measured < 1e15
    assert 0.1 < found["dispatch_us"] < 1e5


def test_a_gpu_that_is_not_there_is_one_line(tmp_path):
    process = run(
        "--json", "found.json", cwd=tmp_path, JAX_PLATFORMS="cuda", CUDA_VISIBLE_DEVICES=""
    )
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr.startswith("gptjax: error: JAX_PLATFORMS: cuda; no ")
    assert process.stderr.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_missing_folder_is_said_before_anything_is_measured(tmp_path, capsys):
    with pytest.raises(UserError, match="--json: .*; its folder does not exist"):
        doctor.doctor(json=str(tmp_path / "missing" / "found.json"))
    assert capsys.readouterr().out == ""


def test_a_device_that_fails_is_named_after_what_is_known_of_it(monkeypatch, capsys):
    def rates(device):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile trying")

    monkeypatch.setattr(doctor, "rates", rates)
    monkeypatch.setattr(doctor.cache, "keep_compiled_programs", lambda: None)
    with pytest.raises(RunError, match=r"^.*cpu.*0.* could not be measured: RESOURCE_.*y while"):
        doctor.doctor(json=None)
    assert "x cpu (cpu)" in capsys.readouterr().out


def test_a_card_is_described(monkeypatch):
    monkeypatch.setattr(doctor.cache, "processor", lambda: "Xeon")
    monkeypatch.setattr(doctor.devices_module, "n_cores", lambda: 7)
    described = doctor.description([card()] * 2, "the reason")
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
    assert doctor.in_words(described) == (
        "2 x gpu (NVIDIA A100-SXM4-80GB): the reason\n"
        "compute capability 8.0, 60.0 GiB of memory, host Xeon with 7 cores, "
        "PJRT C API cuda 13000, the CPU backend beside it is there"
    )


def test_what_a_card_does_not_tell_is_left_out(monkeypatch):
    def no_cpu(platform):
        raise RuntimeError(f"Unknown backend {platform}")

    monkeypatch.setattr(doctor.cache, "processor", lambda: "Xeon")
    monkeypatch.setattr(doctor.devices_module, "n_cores", lambda: 7)
    monkeypatch.setattr(doctor.jax, "devices", no_cpu)
    silent = card(memory_stats=lambda: None)
    del silent.compute_capability
    described = doctor.description([silent], "the reason")
    _, line = doctor.in_words(described).splitlines()
    assert line == (
        "host Xeon with 7 cores, PJRT C API cuda 13000, "
        "no CPU backend beside it, where FLOPs are counted"
    )


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("7.5", False),
        ("8.0", True),
        ("8.9", True),
        ("12.0", True),
        ("gfx942", False),
        (None, False),
    ],
)
def test_tf32_came_with_ampere(capability, expected):
    assert doctor.has_tf32(card(compute_capability=capability)) is expected


def test_a_cpu_has_no_tf32():
    assert not doctor.has_tf32(jax.devices()[0])


@pytest.fixture
def rates_of(monkeypatch):
    """Rates of a card whose measurements are given, not made."""
    measured = {("float32", "highest"): 13e12, ("float32", "default"): 78e12}
    measured |= {("bfloat16", "default"): 234e12}

    def matmul_rate(device, dtype, *, precision, seconds):
        return measured[dtype, precision]

    monkeypatch.setattr(peak, "matmul_rate", matmul_rate)
    monkeypatch.setattr(peak, "copy_rate", lambda device, *, seconds: 1e12)
    return doctor.rates


def test_each_rate_is_beside_the_data_sheets(rates_of):
    assert [rate.in_words() for rate in rates_of(card())] == [
        ("matrix product, float32", "13 TFLOP/s", "19.5 TFLOP/s", "67 %"),
        ("matrix product, TF32", "78 TFLOP/s", "156 TFLOP/s", "50 %"),
        ("matrix product, bfloat16", "234 TFLOP/s", "312 TFLOP/s", "75 %"),
        ("memory, read and written", "1 TB/s", "2.039 TB/s", "49 %"),
    ]


def test_a_card_that_is_in_no_table_has_rates_of_its_own(rates_of):
    found = rates_of(card(device_kind="NVIDIA GeForce RTX 9999", compute_capability="7.5"))
    assert [rate.in_words()[1:] for rate in found] == [
        ("13 TFLOP/s", "", ""),
        ("234 TFLOP/s", "", ""),
        ("1 TB/s", "", ""),
    ]
    assert found[0].to_json() == {
        "what": "matrix product, float32",
        "unit": "FLOP/s",
        "measured": 13e12,
        "data_sheet": None,
        "share": None,
    }


def test_the_table_fits_a_terminal_of_80_columns(rates_of, capsys):
    doctor.print_table("cuda:0", rates_of(card()), 12.34)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 + 5 + 1 and max(map(len, lines)) <= 80
    assert "12.3 µs" in lines[-2]


def test_only_what_changes_a_run_is_told_of_the_environment(monkeypatch):
    monkeypatch.setenv("GPTJAX_CACHE_DIR", "elsewhere")
    names = ("XLA_FLAGS", "JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "HOME", "MY_JAX_X", "TOKEN")
    found = doctor.settings({**dict.fromkeys(names, "a"), "CUDA_VISIBLE_DEVICES": ""})
    assert list(found)[3:] == ["CUDA_VISIBLE_DEVICES", "JAX_PLATFORMS", "XLA_FLAGS"]
    assert found["CUDA_VISIBLE_DEVICES"] == "" and found["data"] is None
    assert found["cache"] == str(Path("elsewhere") / "gptjax")
