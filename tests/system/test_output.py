"""What is printed: text that stays as it is, and a stdout that fails."""

import io
import os
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest

from gptjax.system import output
from gptjax.system.output import printable

SCRIPTS = Path(__file__).parents[2] / "scripts"

# Spaces, joiners and marks that French, Japanese, Persian, Hindi and emoji are written with.
WRITTEN = {
    "no-break space": "Quoi\u00a0? 10\u202f%",
    "ideographic space": "\u6f22\u5b57\u3000\u304b\u306a",
    "joiners": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \u0915\u094d\u200d\u0937",
    "an emoji family": "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "combining marks": "e\u0301 a\u030a",
    "soft hyphen and marks of direction": "co\u00adop \u200e\u200f\u061c",
    "a Windows line end": "one\r\ntwo\r\n",
    "newline and tab": "a\tb\n",
    "private use and unassigned": "\ue000\u0378",
    "line and paragraph separator": "\u2028\u2029",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN.keys())
def test_p27_text_of_every_script_stays_as_it_is(text):
    assert printable(text) == text


def test_p27_just_controls_and_overrides_are_escaped():
    """Every character of Unicode, by its category and direction as Python's tables have them."""
    overriding = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for code in range(sys.maxunicode + 1):
        symbol = chr(code)
        drives = unicodedata.category(symbol) == "Cc" and symbol not in "\n\t"
        drives |= unicodedata.bidirectional(symbol) in overriding
        shown = printable(symbol)
        assert (shown != symbol) == drives, f"U+{code:04X}"
        if drives:
            assert shown.isascii() and shown.encode().decode("unicode_escape") == symbol


def test_p23_escapes_cannot_drive_a_terminal():
    assert printable("\x1b[2J") == "\\x1b[2J"
    assert printable("\x9b2J\x7f") == "\\x9b2J\\x7f"
    assert printable("safe\rEVIL") == "safe\\x0dEVIL"
    assert printable("\u202egnp.exe") == "\\u202egnp.exe"


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        ("> /dev/full", 1, "gptjax: error: stdout could not be written: No space left on device\n"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
    ],
)
def test_p25_a_command_whose_output_is_lost_ends_with_one_line(redirection, code, said):
    command = f'exec "{sys.executable}" "{SCRIPTS}/sample.py" --help {redirection}'
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (code, said)


def test_p25_a_closed_stdout_is_not_taken_for_the_next_file(tmp_path):
    """Without care the first file that is opened gets number 1, and what is printed."""
    code = (
        "from gptjax.system import output; output.prepare(); "
        f"file = open({str(tmp_path / 'file')!r}, 'w'); print('text', flush=True); "
        "assert file.fileno() > 2"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, code]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "file").read_text() == ""


def test_something_turns_on_a_terminal_while_a_command_starts(monkeypatch, capsys):
    with output.waiting():
        pass
    assert capsys.readouterr() == ("", "")
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with output.waiting("reading \x1b[31m"):
        time.sleep(0.3)
    assert screen.getvalue().count("reading \\x1b[31m") > 1
    assert screen.getvalue().endswith("\x1b[2K")
