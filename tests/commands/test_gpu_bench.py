"""The command that measures a card: what it leaves out it says, what fails costs itself alone."""

import time

import compiling
import pytest

from gptjax import gpu_bench
from gptjax.speed import gpu_parts, gpu_session
from gptjax.speed.gpu_session import Part, Row
from gptjax.system.errors import RunError, UserError

FIGURES = {
    "tokens_per_s": 512_345.6,
    "mfu": 0.4321,
    "sides": [
        {"name": "gptjax", "median": 2.0, "peak_bytes": 3 * 2**20},
        {"name": "nanoGPT", "median": 8.0, "peak_bytes": 5 * 2**20},
    ],
    "ratios": {"nanoGPT": {"median": 4.0, "all": [3.5, 4.5]}},
}


def measured(tmp_path, *parts, minutes=10.0, **settings):
    settings = dict(only="", nanogpt=None, nanogpt_python="python", smoke_test=False) | settings
    gpu_bench.measure(str(tmp_path / "out"), parts, minutes=minutes, **settings)
    return (tmp_path / "out" / "table.md").read_text().splitlines()[2:]


def rows(*given):
    """What a part measures; an exception among the rows is raised there."""

    def measure(_):
        for row in given:
            if isinstance(row, Exception):
                raise row
            yield row

    return measure


def test_a_part_that_fails_costs_its_own_figures_alone(tmp_path):
    bad = Part("bad", 1, rows(Row("half", "1"), RunError("no kernel | image")))
    worse = Part("worse", 1, rows(KeyError("sides")))
    good = Part("good", 1, rows(Row("speed", "1 m/s", "light's")))
    assert measured(tmp_path, bad, worse, good) == [
        "| half | 1 |  |",
        "| bad | *not measured* | RunError: no kernel / image |",
        "| worse | *not measured* | KeyError: 'sides' |",
        "| speed | 1 m/s | light's |",
    ]


def test_what_there_is_no_time_for_is_said_and_not_begun(tmp_path):
    begun = []
    parts = [
        Part("first", 60, lambda _: iter(begun.append("first") or [])),
        Part("second", 7000, lambda _: iter(begun.append("second") or [])),
    ]
    (line,) = measured(tmp_path, *parts, minutes=2)
    assert begun == ["first"]
    assert line.startswith("| second | *not measured* | needs 7000 s, 1")


def test_a_command_may_take_what_is_left(tmp_path):
    settings = dict(nanogpt=None, nanogpt_python="python", is_smoke_test=True)
    for minutes, part in (
        (1 / 60, Part("short of time", 9, rows())),
        (9, Part("hangs", 0.3, rows())),
    ):
        hurried = gpu_session.GPUSession(tmp_path, minutes=minutes, **settings)
        hurried.begin(part)
        start = time.monotonic()
        with pytest.raises(RunError, match="was not done within 1 s"):
            hurried.run(["sleep", "60"])
        assert time.monotonic() - start < 20


def test_what_a_command_says_is_kept(tmp_path):
    kept = gpu_session.GPUSession(
        tmp_path, minutes=1, nanogpt=None, nanogpt_python="", is_smoke_test=True
    )
    with pytest.raises(RunError, match="ended with 3: three"):
        kept.run(["sh", "-c", "echo one; echo two; echo three >&2; exit 3"])
    assert (tmp_path / "logs" / "00.txt").read_text().splitlines()[1:] == ["one", "two", "three"]


def test_parts_are_chosen_and_folders_not_mixed(tmp_path):
    parts = [Part(name, 1, rows(Row(name, "1"))) for name in ("one", "two")]
    assert measured(tmp_path, *parts, only="two") == ["| two | 1 |  |"]
    with pytest.raises(UserError, match="--out_dir: .*is in use"):
        measured(tmp_path, *parts)
    with pytest.raises(UserError, match="--only: three; must be of one, two"):
        measured(tmp_path / "new", *parts, only="two,three")
    assert not (tmp_path / "new").exists()


def test_figures_in_words():
    row = gpu_session.step_row("recipe", FIGURES)
    assert row.figure == "2 ms an update, 3 MiB, 512,346 tokens/s, MFU 43.2 %"
    assert row.beside == "nanoGPT 8 ms an update, 5 MiB: **4.00x** (3.50 to 4.50)"
    runs = {"best": [1.47, 1.46], "seconds_to_target": [31.0, None]}
    figures = {"sides": [{"name": "gptjax", "median": 50.0}], "runs": {"gptjax": runs}}
    row = gpu_parts._run_row("run", figures, 1.48)
    assert row.figure == "50.0 s, best val 1.4700, 1.4600, val ≤ 1.48 after 31.0 s"


@pytest.mark.slow
def test_a_smoke_test_measures_all_but_what_a_cpu_cannot(tmp_path, monkeypatch):
    """Every kind of command that is run on a card is run here, with small models."""
    monkeypatch.setenv("XLA_FLAGS", compiling.flags_here())  # What is measured is of no interest.
    names = ("doctor", "laptop_step", "cpu_vs_gpu", "gpt2_run")
    parts = [part for part in gpu_parts.PARTS if part.name in names]
    lines = measured(tmp_path, *parts, smoke_test=True)
    assert len(lines) == 14 and not [line for line in lines if "not measured" in line]
    kept = sorted(path.name for path in (tmp_path / "out" / "cpu_vs_gpu").iterdir())
    assert kept == ["cpu_float32", "cuda_bfloat16", "cuda_float32", "cuda_tf32", "replay.json"]
