"""compare: real runs that differ in one thing, nanoGPT's logs, and what it writes."""

import contextlib
import functools
import json
import os
import re
import sys
from unittest import mock

import jax.numpy as jnp
import nanogpt_logs
import pytest
import runs
from html_rules import assert_keeps_the_rules

from gptjax import compare as compare_module
from gptjax.system.errors import UserError
from gptjax.update import step


def compared(*arguments, capsys, json_to=None, **settings):
    """What is printed of runs; `json_to` gets the findings."""
    capsys.readouterr()  # What training has printed.
    flags = dict(device=(), peak=(), json=json_to and str(json_to), html=None, png=None)
    compare_module.compare([str(each) for each in arguments], **{**flags, **settings})
    return capsys.readouterr().out


def kinds(folder, *arguments, capsys, **settings):
    """The kinds of the findings, as they are told."""
    compared(*arguments, capsys=capsys, json_to=folder / "found.json", **settings)
    (found, *_) = json.loads((folder / "found.json").read_text())["comparisons"]
    return [each["kind"] for each in found["findings"]]


class TestRealLogs:
    def test_the_laptop_and_the_gpu(self, capsys, tmp_path):
        laptop = nanogpt_logs.real_log("nanogpt_laptop_cpu.log")
        gpu = nanogpt_logs.real_log("nanogpt_default_mps.log")
        said = compared(f"laptop={laptop}", f"gpu={gpu}", capsys=capsys)
        said = " ".join(said.split())
        for words in (
            "laptop ends at val 1.8857, gpu at 1.7093: gpu is 0.176 lower (noise: 0.017).",
            "1 These are two experiments: ",
            "13.4x the parameters (0.796 M, 10.6 M)",
            "4.00x the context (64, 256)",
            "saw 53.3x the tokens and spent 732x the FLOPs",
            "val was 1.4723 at update 1,750 and rose by 0.237",
            "It overfitted.",
            "laptop ends on the digits of nanoGPT's laptop recipe",
            "gpu ends on the digits of nanoGPT's default recipe",
            "gpu's iterations of 89.3 s hold an evaluation of 88.6 s beside an update of 766 ms",
            "laptop's updates took 95.0 ms to 1.48 s, 132 ms in the middle: something else ran",
            "--from configs/shakespeare_char.py --to configs/shakespeare_char_gpu.py",
        ):
            assert words in said, words
        assert len(re.findall(r"(?m)^ ?\d ", said)) <= 8

    def test_five_pasted_lines_and_the_card_they_are_from(self, capsys, tmp_path):
        (tmp_path / "pasted.txt").write_text(
            "iter 4980: loss 0.8044, time 33.22ms, mfu 11.07%\n"
            "iter 4990: loss 0.8190, time 33.16ms, mfu 11.09%\n"
            "step 5000: train loss 0.6224, val loss 1.7044\n"
            "iter 5000: loss 0.8236, time 4446.83ms, mfu 9.99%\n"
        )
        said = compared(f"gpu={tmp_path / 'pasted.txt'}", capsys=capsys, device=["gpu=RTX 4070 Ti"])
        said = " ".join(said.split())
        assert "One evaluation does not say whether gpu's 1.7044 is past its best" in said
        assert (
            "iterations of 4.45 s hold an evaluation of 4.41 s beside an update of 33.2 ms" in said
        )
        assert "mfu of 11.1 % is of an A100: 34.6 TFLOP/s are 43.1 % of RTX 4070 Ti's own" in said
        assert "gpu ends on the digits of nanoGPT's default recipe: what it does not say" in said


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A function that trains a small run once: its directory."""
    folder = tmp_path_factory.mktemp("planted")

    @functools.cache
    def trained(name, **knobs):
        runs.start(runs.settings(folder, **BASE, **knobs), folder / name)
        return folder / name

    return trained


BASE = dict(train__max_iters=60, eval__interval=20, model__dropout=0.0, eval__max_tokens=0)


def test_the_same_command_twice_is_bit_for_bit_the_same(planted, tmp_path, capsys):
    pair = planted("base"), planted("again")
    assert kinds(tmp_path, *pair, capsys=capsys)[0] == "identical"


def test_one_setting_is_the_cause(planted, tmp_path, capsys):
    pair = planted("base"), planted("lr", optim__learning_rate=0.1)
    assert kinds(tmp_path, *pair, capsys=capsys)[0] == "only_one"
    assert "Only the learning rate differs" in compared(*pair, capsys=capsys)


def test_targets_shifted_by_one_are_a_bug(planted, tmp_path, capsys):
    """The planted bug: what is to be predicted is what is seen."""
    base = planted("base")
    windows = step.windows

    def shifted(tokens, offsets, block_size):
        x, _ = windows(tokens, offsets, block_size)
        return x, x

    with mock.patch.object(step, "windows", shifted):
        broken = planted("shifted")
    found = kinds(tmp_path, base, broken, capsys=capsys)
    assert found[0] == "suspected_bug"


def test_a_loss_that_is_scaled_is_a_bug(planted, tmp_path, capsys):
    base = planted("base")
    losses = step.next_token_losses
    with mock.patch.object(step, "next_token_losses", lambda *a: 0.8 * jnp.asarray(losses(*a))):
        broken = planted("scaled")
    found = kinds(tmp_path, base, broken, capsys=capsys)
    assert found[0] == "suspected_bug" and "start_off" in found


def test_seeds_of_one_config_are_a_group(planted, tmp_path, capsys):
    seeds = [planted(f"seed{n}", seed=n) for n in (1, 2, 3)]
    other = planted("lr", optim__learning_rate=0.1)
    said = " ".join(compared(*seeds, other, capsys=capsys).split())
    assert said.startswith("seed1 and 2 more ends at val")
    assert "Only the learning rate differs" in said
    assert "the mean of 3 runs with the seeds 1, 2, 3" in said


def test_a_page_is_one_file_without_references(planted, tmp_path, capsys):
    pair = planted("base"), planted("lr", optim__learning_rate=0.1)
    compared(*pair, capsys=capsys, html=str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "Only the learning rate differs" in page and "http:" not in page
    reader = assert_keeps_the_rules(page)
    said = [each["aria-label"] for each in reader.of("svg")]
    assert len(said) == 8 and all("base" in each and "lr" in each for each in said)


def test_a_page_without_matplotlib_says_what_is_missing(planted, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    compared(planted("base"), capsys=capsys, html=str(tmp_path / "page.html"))
    reader = assert_keeps_the_rules((tmp_path / "page.html").read_text())
    assert not reader.of("svg") and "needs matplotlib" in " ".join(reader.text["p"])
    with pytest.raises(UserError, match="--png: .*needs matplotlib"):
        compared(planted("base"), capsys=capsys, png=str(tmp_path / "a.png"))


def test_the_losses_are_drawn_into_a_file(planted, tmp_path, capsys):
    compared(planted("base"), capsys=capsys, png=str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_files_are_written_though_nobody_reads_what_is_printed(planted, tmp_path):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed, contextlib.redirect_stdout(closed):
        with contextlib.suppress(BrokenPipeError, SystemExit):  # rich exits
            compare_module.compare(
                [str(planted("base"))],
                device=(),
                peak=(),
                json=str(tmp_path / "found.json"),
                html=None,
                png=None,
            )
            closed.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), closed.fileno())
    assert json.loads((tmp_path / "found.json").read_text())["comparisons"]


def test_a_page_of_one_run_is_called_by_its_name(planted, tmp_path, capsys):
    said = compared(planted("base"), capsys=capsys, html=str(tmp_path / "page.html"))
    assert said.startswith("base ends at val ")
    assert "<title>base</title>" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        (dict(device=["gpu"]), "must be LABEL=VALUE with a label of base"),
        (dict(device=["other=RTX 4090"]), "must be LABEL=VALUE with a label of base"),
        (dict(peak=["base=fast"]), "must be LABEL=TFLOPS"),
        (dict(peak=["base=-1"]), "must be LABEL=TFLOPS"),
        (dict(html="nowhere/page.html"), "its folder does not exist"),
    ],
)
def test_bad_flags_are_refused(planted, capsys, flags, rule):
    with pytest.raises(UserError, match=re.escape(rule)):
        compared(planted("base"), capsys=capsys, **flags)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match="does not exist"):
        compared(tmp_path / "nothing", capsys=capsys)
    (tmp_path / "empty").write_text("")
    with pytest.raises(UserError):
        compared(tmp_path / "empty", capsys=capsys)


def test_two_runs_of_one_name_are_told_apart(planted, capsys):
    said = compared(planted("base"), planted("base"), capsys=capsys)
    assert said.startswith("base and base (2) end at val")


def test_what_is_not_known_stands_under_its_title(capsys, tmp_path):
    (tmp_path / "pasted.txt").write_text("step 5000: train loss 0.6224, val loss 1.7044\n")
    said = compared(f"the one on the GPU={tmp_path / 'pasted.txt'}", capsys=capsys)
    lines = said.partition("\nNot known\n")[2].splitlines()
    assert len(lines) > 2 and all(line.startswith("  ") for line in lines)


def test_a_table_without_rows_is_a_line(planted, capsys):
    said = compared(planted("base"), planted("base"), capsys=capsys)
    assert "\nWhat differs: nothing that is known.\nEqual: text, " in said
