"""What is shown of a run's progress, on a terminal and elsewhere."""

import functools
import io
import sys

import pytest

from gptjax.run import progress
from gptjax.run.progress import Display, count, duration

FIGURES = {"loss": "1.2345", "tok/s": "40k", "mfu": "41%"}


def shown(monkeypatch, *, terminal, width, steps):
    """All that a display writes while a run of 2,000 updates passes `steps`."""
    file = io.StringIO()
    console = functools.partial(progress._Console, width=width, legacy_windows=False)
    file.isatty = lambda: terminal
    monkeypatch.setenv("FORCE_COLOR", "1")  # It makes no terminal of a file.
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress, "_Console", console)
    monkeypatch.setattr(sys, "stdout", file)
    with Display(n_updates=2000, step=0) as display:
        for step in steps:
            display.update(step, FIGURES, eta_seconds=125)
        display.message("val 1.9 ± 0.1")
    return file.getvalue()


@pytest.mark.parametrize("width", [60, 100])
def test_a_terminal_gets_a_bar_with_all_figures(monkeypatch, width):
    text = shown(monkeypatch, terminal=True, width=width, steps=[10, 2000])
    assert "━" in text and "\x1b[" in text
    assert "2000/2000 · loss 1.2345" in text
    assert ("left 2 min 05 s" in text) == (width == 100)
    assert "val 1.9 ± 0.1" in text


def test_elsewhere_lines_come_seldom_and_plain(monkeypatch):
    text = shown(monkeypatch, terminal=False, width=100, steps=[*range(10, 500, 10), 2000])
    assert "\x1b" not in text
    lines = text.splitlines()
    # The first, the last and the message: the others came within five seconds.
    assert lines == [
        "step 10/2000 · loss 1.2345 · tok/s 40k · mfu 41% · left 2 min 05 s",
        "step 2000/2000 · loss 1.2345 · tok/s 40k · mfu 41% · left 2 min 05 s",
        "val 1.9 ± 0.1",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3599, "59 min 59 s"), (7830, "2 h 10 min")],
)
def test_durations_as_a_person_says_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "words"), [(7, "7"), (795_904, "795.9k"), (1.25e6, "1.25M"), (3e9, "3G")]
)
def test_counts_with_a_unit_letter(value, words):
    assert count(value) == words


def test_a_bar_says_what_it_stands_still_for(monkeypatch):
    """What a terminal shows, before the bar, beside it and after."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    display = Display(n_updates=10, step=0)
    with display.doing("compiling"):
        pass
    assert "compiling" in screen.getvalue()
    with display:
        display.update(3, {"loss": "1.5"}, eta_seconds=4)
        with display.doing("evaluating"):
            shown = screen.getvalue()
        assert "left 4 s · evaluating" in shown
        display.message("done")
    assert "evaluating" not in screen.getvalue().rpartition("done")[2]


def test_without_a_terminal_nothing_moves(capsys):
    with Display(n_updates=10, step=0) as display, display.doing("evaluating"):
        pass
    assert capsys.readouterr().out == ""
