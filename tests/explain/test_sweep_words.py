"""Sentences of a sweep: the number first, and what is not known said."""

import json
import math

import pytest
import swept

from gptjax.config.config import flat
from gptjax.config.config_file import load_config, split_overrides
from gptjax.config.family import laptop_family
from gptjax.explain.sweep_findings import Cell, Choice, SweptRun, findings
from gptjax.explain.sweep_words import print_table, sentences, to_json, train_command

AROUND = dict(run_seconds=60, unit="char", n_train_tokens=10**6, n_left_out=0)


def said(runs, **changes):
    around = {**AROUND, **changes}
    found = findings(runs, run_seconds=around["run_seconds"])
    return sentences(found, **around)


def test_what_is_said_of_a_whole_sweep():
    words = said(swept.sweep())
    assert "nats/char is what the law says for a run of 1 min 00 s with n_embd" in words[0]
    assert "the best of 4 sizes, before n_embd" in words[0]
    assert any("learning rate 0.002 better at this size" in each for each in words)
    assert not any("still" in each for each in words if "learning rate" in each)
    assert any("is the law of parameters N and tokens D: exponents 0.3" in each for each in words)
    assert any("beyond that the law says nothing" in each for each in words)
    assert all(each[0].isdigit() or each.startswith("It is the") for each in words)


def test_the_edge_of_what_was_tried_is_said():
    words = said(swept.sweep(rates=(2e-3, 4e-3)))
    assert any("It is the lowest of those tried" in each for each in words)
    words = said(swept.sweep(rates=(1e-3, 2e-3)))
    assert any("It is the highest of those tried" in each for each in words)


def test_what_is_not_known_is_said():
    words = said(swept.sweep(sizes=("n_embd 64", "n_embd 192")), n_left_out=3)
    assert "is the best of the longest runs: n_embd 192" in words[0]
    assert any(each.startswith("No law is fitted: 6 pairs of size") for each in words)
    assert any("3 members were left out" in each for each in words)
    words = said(swept.sweep(), run_seconds=1e5)
    assert words[0].startswith("Nothing is said of a run of 27 h 46 min: such a run computes")
    assert any(
        "times is the text read" in each for each in said(swept.sweep(), n_train_tokens=9999)
    )


def test_failed_runs_are_named():
    failed = swept.run("n_embd 64", 4e-3, 400, failed="update 3 is not finite")
    words = said([*swept.sweep(rates=(2e-3,)), failed])
    assert any("(n_embd 64, learning_rate 0.004: update 3 is not finite)" in w for w in words)


def test_the_table_marks_the_best(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    print_table(findings(swept.sweep(scatter=0), run_seconds=60))
    rows = [line for line in capsys.readouterr().out.splitlines() if "n_embd" in line]
    assert len(rows) == 36
    assert all(("0.002 " in row) == ("*" in row) for row in rows)


def test_all_numbers_are_json():
    found = to_json(findings(swept.sweep(), run_seconds=60))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert len(found["cells"]) == 36 and sum(cell["is_best"] for cell in found["cells"]) == 12
    assert found["law"]["a"]["value"] == pytest.approx(swept.OF_PARAMS, abs=0.1)
    found = to_json(findings(swept.sweep(sizes=("n_embd 64",)), run_seconds=60))
    assert found["law"] is None and found["choices"][0]["share_best"] is None
    assert json.dumps(found, allow_nan=False)


def test_the_command_trains_what_was_chosen(monkeypatch):
    """Without a sweep file: the same knobs as the member's, but for its length."""
    from pathlib import Path

    monkeypatch.chdir(Path(__file__).parents[2])
    family = laptop_family("text:a b.txt")
    member = list(family.members())[4]
    run = SweptRun("", member.values, "", 2.0, 0.01, 10, 100, 1e3, 0.1)
    command = train_command(None, {}, family, Choice(Cell((run,)), 777, 0, 0.0, None, math.nan))
    assert "'--config.data.source=text:a b.txt'" in command
    import shlex

    words = shlex.split(command)
    assert words[:4] == "python scripts/train.py --config configs/shakespeare_char_fast.py".split()
    overrides, others = split_overrides(words[4:])
    assert not others
    config = flat(load_config(words[3], overrides))
    watching = ("eval.", "checkpoint.", "out_dir", "data.fallback")
    differ = {n for n, v in config.items() if v != member.values[n] and not n.startswith(watching)}
    assert differ == {"train.max_iters"} and config["train.max_iters"] == 777
