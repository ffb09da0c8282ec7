"""Texts laid out for a pipe and for terminals of several widths."""

import io
import math
import re

import pytest

from gptjax.explain import side_by_side
from gptjax.explain.side_by_side import Written, labels_of, print_side_by_side
from gptjax.run.scores import Score
from gptjax.system.errors import UserError


def score(nats, *unknown, n_scored=9):
    return Score(nats, "char", n_scored, list(unknown))


ROWS = [
    [
        Written("ROMEO:\nfrom a, one", [score(1.25), score(2.5)]),
        Written("ROMEO:\nfrom b, one", [score(3.125), score(0.5)]),
    ],
    [
        Written("ROMEO:\nfrom a, two", [score(1.0), score(2.0, "é", "x", n_scored=7)]),
        Written("ROMEO:\nfrom b, two", [score(math.nan, "R", n_scored=0), score(0.25)]),
    ],
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(monkeypatch, labels, rows, *, width):
    """What a terminal of so many columns is sent, without its colours."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    print_side_by_side(labels, rows)
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())


def test_in_a_pipe_one_is_below_the_other(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_side_by_side(["a", "b"], ROWS)
    printed = capsys.readouterr().out
    assert printed == (
        "a, sample 1 of 2:\nROMEO:\nfrom a, one\n"
        "loss: 1.2500 nats/char under a, 2.5000 nats/char under b\n---------------\n"
        "b, sample 1 of 2:\nROMEO:\nfrom b, one\n"
        "loss: 3.1250 nats/char under a, 0.5000 nats/char under b\n---------------\n"
        "a, sample 2 of 2:\nROMEO:\nfrom a, two\n"
        "loss: 1.0000 nats/char under a, "
        "2.0000 nats/char under b (of 7 chars; it does not know 'é', 'x')\n---------------\n"
        "b, sample 2 of 2:\nROMEO:\nfrom b, two\n"
        "loss: none under a, which knows nothing of it, 0.2500 nats/char under b\n---------------\n"
    )


def test_on_a_wide_terminal_two_runs_stand_in_two_columns(monkeypatch):
    lines = shown(monkeypatch, ["a", "b"], ROWS, width=120).splitlines()
    assert all(len(line) <= 120 for line in lines)
    cells = [[cell.strip() for cell in re.split("[│┃]", line)[1:3]] for line in lines]
    assert ["a", "b"] in cells
    assert cells.index(["from a, one", "from b, one"]) < cells.index(["from a, two", "from b, two"])
    assert ["1.2500 nats/char under a", "3.1250 nats/char under a"] in cells
    assert ["2.5000 nats/char under b", "0.5000 nats/char under b"] in cells


@pytest.mark.parametrize("width", [40, 99])
def test_on_a_narrow_terminal_it_is_as_in_a_pipe(monkeypatch, capsys, width):
    print_side_by_side(["a", "b"], ROWS)
    assert shown(monkeypatch, ["a", "b"], ROWS, width=width) == capsys.readouterr().out


def test_three_runs_are_below_each_other(monkeypatch):
    row = [Written(f"text {i}", [score(1.0)] * 3) for i in range(3)]
    printed = shown(monkeypatch, ["a", "b", "c"], [row], width=200)
    assert printed.index("a, sample 1 of 1:\ntext 0") < printed.index("c, sample 1 of 1:\ntext 2")


@pytest.mark.parametrize("width", [80, 160])
def test_a_text_cannot_drive_the_terminal(monkeypatch, width):
    row = [Written("\x1b[31m[red]x", [score(1.0, "\x1b")] * 2)] * 2
    printed = shown(monkeypatch, ["a", "b"], [row], width=width)
    assert "\x1b" not in printed and printed.count("\\x1b[31m[red]x") == 2


def test_runs_are_called_by_their_folders(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert labels_of(["out/a", "out/b/"]) == ["a", "b"]
    assert labels_of(["x/run", "y/run"]) == ["x/run", "y/run"]
    assert labels_of(["a/checkpoints/5", "a/checkpoints/10", "."]) == [
        "a step 5",
        "a step 10",
        tmp_path.name,
    ]
    with pytest.raises(UserError, match="--out_dir: out/a; is given twice"):
        labels_of(["out/a", "out/b", "out/a/"])


def test_of_many_unknown_symbols_some_are_named():
    words = side_by_side._words("b", score(1.0, *"abcdefghij"))
    assert words.endswith("it does not know 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', …)")
