"""One log, through all that a log goes through before somebody reads it."""

import codecs
import json
import os
import textwrap

import numpy as np
import pytest
from nanogpt_logs import body, header

from gptjax.explain.log_text import pieces
from gptjax.explain.nanogpt_log import read_log
from gptjax.system.errors import UserError

LINES = [*header(overrides={"device": "cpu"}), *body()]
TEXT = "".join(f"{line}\n" for line in LINES)


def notebook(text, **more):
    cells = [
        {"cell_type": "markdown", "source": ["# step 5: train loss 9.0000, val loss 9.0000"]},
        {"cell_type": "code", "source": [], "outputs": [{"name": "stdout", "text": text, **more}]},
        {"cell_type": "code", "source": "1", "outputs": [{"data": {"text/plain": ["'done'"]}}]},
    ]
    return json.dumps({"cells": cells, "nbformat": 4}, indent=1)


def joined(between, lines=LINES):
    return between.join(lines) + "\n"


# By name: what became of the log, and whether its config can still be read.
CHANGED = {
    "as it is": TEXT,
    "Windows": joined("\r\n"),
    "PowerShell": codecs.BOM_UTF16_LE + joined("\r\n").encode("utf-16-le"),
    "big end first": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "Notepad": codecs.BOM_UTF8 + TEXT.encode(),
    "Latin-1": joined("\nJosé says: näher\n").encode("latin-1"),
    "Latin-1 spaces": TEXT.replace(" ", "\xa0").encode("latin-1"),
    "colours": "".join(f"\x1b[1;32m{line}\x1b[0m\x1b[K\n" for line in LINES),
    "a title": joined("\x1b]0;python train.py\x07\n"),
    "progress bars": joined("\n  1%|▏| 1/99 [00:01<01:38]\r  2%|▏| 2/99 [00:02<01:37]\r"),
    "empty lines": joined("\n\n  \n"),
    "warnings": joined("\n UserWarning: step into iter 7 with batch_size.\nwandb: Run data\n"),
    "a notebook": notebook([f"{line}\n" for line in LINES]),
    "a notebook's long string": notebook(TEXT),
    "a notebook that is torn": notebook(TEXT).replace("step 5", "step")[:-150],
    "quoted": "".join(f"> > {line}\n" for line in LINES),
    "indented": textwrap.indent(TEXT, "      "),
    "bullets": "".join(f"- {line}\n" for line in LINES),
    "round bullets": "".join(f"  • {line}\n" for line in LINES),
    "numbers": "".join(f"{i}. {line}\n" for i, line in enumerate(LINES)),
    "a fence": f"This is what I see:\n```text\n{TEXT}```\nWhy?\n",
    "smart quotes": TEXT.replace("'shakespeare_char'", "\u2018shakespeare_char\u2019"),
    "spaces that do not break": TEXT.replace(" ", "\xa0"),
    "no width": TEXT.replace(" ", "\u200b "),
    "no newline at the end": TEXT[:-1],
    "as Python prints it": repr(TEXT),
    "NULs": TEXT.replace(" ", " \x00"),
}
DATA_ONLY = {
    "one line": joined(" "),
    "nothing between": joined(""),
    "wrapped": "\n".join(textwrap.wrap(TEXT, 40, break_on_hyphens=False)),
    "wrapped and quoted": "\n".join(f"> {x}" for x in textwrap.wrap(TEXT, 40)),
    "by time": "".join(f"[2024-01-01 10:00:{i % 60:02}] {line}\n" for i, line in enumerate(LINES)),
    "by rank": "".join(f"[default0]:{line}\n" for line in LINES),
}


def read(tmp_path, text, name="a.log"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_log(path, "a")


@pytest.fixture
def wanted(tmp_path):
    return read(tmp_path, TEXT)


@pytest.mark.parametrize("way", CHANGED | DATA_ONLY)
def test_a_log_is_the_same_whatever_it_went_through(tmp_path, wanted, way):
    found = read(tmp_path, (CHANGED | DATA_ONLY)[way])
    assert len(found.evaluations) == 3 and len(found.updates) == 21
    for name in ("update_E", "train_E", "val_E"):
        one, other = getattr(found.evaluations, name), getattr(wanted.evaluations, name)
        np.testing.assert_array_equal(one, other)
    for name in ("update_U", "loss_U", "ms_U"):
        one, other = getattr(found.updates, name), getattr(wanted.updates, name)
        np.testing.assert_array_equal(one, other)
    assert not any("torn" in note or "runs" in note for note in found.notes)
    if way in CHANGED:
        assert found.facts == wanted.facts
    else:  # What is known is right, all the same.
        assert len(found.facts) < len(wanted.facts)
        for name, fact in found.facts.items():
            assert fact.value == wanted.value(name), name


def test_the_cells_of_a_notebook_are_read_by_its_name_too(tmp_path, wanted):
    """Without a sign of one at its beginning."""
    late = {"metadata": {"x": "x" * (1 << 23)}, **json.loads(notebook(TEXT))}
    found = read(tmp_path, json.dumps(late), "a.ipynb")
    assert found.facts == wanted.facts


@pytest.mark.parametrize(
    "text", ["{", '{"cells": 1}', '{"cells": [1]}', '{"cells": [{"outputs": [{"text": 7}]}]}']
)
def test_a_notebook_that_is_none_is_text(tmp_path, text):
    assert len(read(tmp_path, text + TEXT, "a.ipynb").evaluations) == 3
    assert len(read(tmp_path, f'{text}"cells"{TEXT}').evaluations) == 3


def test_escape_codes_are_gone_wherever_a_piece_ends(tmp_path, monkeypatch):
    text = "\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x1b\\link\x1b]8;;\x07 \x1bM \x1b[" * 3
    for n_bytes in (1, 2, 3, 5, 7, 1000):
        monkeypatch.setattr("gptjax.explain.log_text._CHUNK_BYTES", n_bytes)
        (tmp_path / "a").write_text(text)
        assert "".join(pieces(tmp_path / "a")) == "red link  \x1b[" * 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_letter_that_is_cut_in_two_is_whole(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr("gptjax.explain.log_text._CHUNK_BYTES", 7)
    (tmp_path / "a").write_bytes("ein Zähler für Übungen ▏".encode(encoding))
    assert "".join(pieces(tmp_path / "a")) == "ein Zähler für Übungen ▏"


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "/dev/null", tmp_path):
        with pytest.raises(UserError, match="is no regular file"):
            list(pieces(type(tmp_path)(path)))
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list(pieces(tmp_path / "none"))
