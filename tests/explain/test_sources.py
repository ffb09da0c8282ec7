"""Runs as a command line names them."""

import io
import json
import types

import pytest
from nanogpt_logs import body, header

from gptjax.explain.sources import read_series
from gptjax.system.errors import UserError

LOG = "".join(f"{line}\n" for line in [*header(), *body()])


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "a=b.log"
    path.write_text(LOG)
    return path


def test_a_file_is_a_log_and_may_have_a_label(log):
    assert read_series(str(log)).label == "a=b.log"
    series = read_series(f"gpu={log}")
    assert (series.label, series.program, len(series.updates)) == ("gpu", "nanoGPT", 21)
    assert series.path == str(log)


def test_stdin(monkeypatch):
    for argument, label in (("-", "stdin"), ("gpu=-", "gpu")):
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(LOG.encode())))
        series = read_series(argument)
        assert (series.label, len(series.updates)) == (label, 21)


def test_a_run_directory_has_its_recipe(tmp_path):
    from gptjax.config.config import default_config, flat
    from gptjax.explain.recipes import cards

    settings = {**flat(default_config()), **cards()["shakespeare_char"].settings}
    settings["optim.lr_decay_iters"] = 2000  # The same horizon, written out.
    corpus = settings.pop("corpus")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    records = [
        dict(kind="run", corpus_name=corpus, versions={"gptjax": "0.2.0"}),
        dict(kind="train", step=10, loss=2.6, seconds=4.0),
        dict(kind="eval", step=10, val_loss=2.5, val_sem=0.01, seconds=5.0),
    ]
    text = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "metrics.jsonl").write_text(text)
    series = read_series(str(tmp_path))
    assert series.value("recipe") == "gptjax's shakespeare_char"
    assert series.evaluations.val_sem_E == [0.01]
    other = text.replace('"tiny_shakespeare"', '"synthetic"')
    (tmp_path / "metrics.jsonl").write_text(other)
    assert read_series(str(tmp_path)).value("recipe") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"\x7fELF" + bytes(range(256)) * 99, b"\x1b[0m" * 9999, b"epoch 3: loss 4\n"]
    + [b"\xff\xfe", b"\xff\xfe\n", b"{}", b'{"cells": []}', b"[" * 99_999, "é".encode("utf-16")],
)
def test_what_holds_nothing_of_nanogpts_is_refused_in_a_line(tmp_path, content):
    for name in ("a.log", "a.ipynb"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match="has no line of nanoGPT's") as error:
            read_series(str(path))
        assert "\n" not in str(error.value)


def test_torn_lines_are_counted_where_there_is_nothing_else(tmp_path):
    (tmp_path / "a.log").write_text("iter 3: lo\nstep 4: train loss 2.0000, val\n")
    with pytest.raises(UserError, match="has no whole line of nanoGPT's; 2 are torn"):
        read_series(str(tmp_path / "a.log"))


def test_what_is_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist. Give a run directory or a nanoGPT log"):
        read_series(str(tmp_path / "none"))
    with pytest.raises(UserError, match="no metrics.jsonl"):
        read_series(str(tmp_path))
    with pytest.raises(UserError, match="is no regular file"):
        read_series("/dev/zero")
