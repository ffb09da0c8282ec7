"""sample.py and evaluate.py, as commands, on a run of which only the directory is left."""

import math
import re
import shutil

import forked
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tiny

from gptjax import sample
from gptjax.config.config import set_knob
from gptjax.run import reader
from gptjax.run.metadata import model_config
from gptjax.run.runlog import read_records
from gptjax.update import step


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory):
    """A finished run that was moved; its config was never a file and its text is gone."""
    folder = tmp_path_factory.mktemp("somewhere")
    text = folder / "text.txt"
    text.write_text(tiny.TEXT + "é" * 40)
    config = tiny.config(train__max_iters=20, eval__max_tokens=0)
    set_knob(config, "data.source", f"text:{text}")
    assert runs.start(config, folder / "run") == 0
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.move(folder / "run", moved)
    text.unlink()
    return moved


@pytest.fixture
def command(out_dir, tmp_path):
    """Runs a script on the run, beside which nothing is to be written; (stdout, stderr)."""

    def run(script, *flags):
        ended = forked.run(tmp_path, script, f"--out_dir={out_dir}", *flags, cwd=out_dir.parent)
        assert ended.code == 0, ended.stderr
        return ended.stdout, ended.stderr

    return run


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_p17_samples_need_only_the_run_directory(out_dir, command):
    before = files(out_dir)
    flags = ("--prompt=the cats", "--num_samples=3", "--max_new_tokens=40", "--seed=5")
    printed, errors = command("sample", *flags)
    assert command("sample", *flags)[0] == printed
    samples = printed.split("\n---------------\n")
    assert samples[3] == "" and len(samples) == 4
    assert all(text.startswith("the cats") and len(text) == 8 + 40 for text in samples[:3])
    assert len(set(samples[:3])) == 3
    # The prompt is longer than the context of seven, which is said once.
    assert errors == "gptjax: the prompt has 8 tokens; the model sees the last 7\n"
    assert files(out_dir) == before


@pytest.mark.slow
def test_a_prompt_from_a_file_and_an_empty_one(tmp_path, command):
    (tmp_path / "prompt.txt").write_text("cats")
    flags = ("--num_samples=1", "--max_new_tokens=5")
    printed, _ = command("sample", f"--prompt_file={tmp_path / 'prompt.txt'}", *flags)
    assert printed.startswith("cats") and printed == command("sample", "--prompt=cats", *flags)[0]
    assert command("sample", *flags)[0].startswith("\n")


def test_text_appears_as_it_is_written(out_dir, capsys, monkeypatch):
    """Before the last tokens are computed the first are on the screen."""
    seen = []
    continuations = sample.generated_tokens

    def watched(*arguments, **settings):
        for tokens_BK in continuations(*arguments, **settings):
            seen.append(len(capsys.readouterr().out))
            yield tokens_BK

    monkeypatch.setattr(sample, "generated_tokens", watched)
    settings = dict(step="best", prompt="the", prompt_file="", num_samples=2, seed=1, stride=1)
    sample.sample(str(out_dir), max_new_tokens=100, temperature=1.0, top_k=0, **settings)
    # The prompt with what fits the window of seven, then 32 characters a dispatch, then the rest.
    assert seen == [0, 7, 32, 32]
    assert len(capsys.readouterr().out) == 32 + len("\n---------------\n") * 2 + 3 + 100


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory):
    """A run on another text: it does not know é, and has seen symbols that the other has not."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "text.txt").write_text(tiny.TEXT.replace("cat", "COW"))
    config = tiny.config(train__max_iters=20, model__n_embd=9)
    set_knob(config, "data.source", f"text:{folder / 'text.txt'}")
    assert runs.start(config, folder / "other") == 0
    return folder / "other"


def test_two_runs_side_by_side(out_dir, other_dir, command, tmp_path):
    """Each writes what it writes alone, row by row, and both judge all of it."""
    flags = ("--prompt=the ", "--num_samples=3", "--max_new_tokens=20", "--seed=5")
    alone = [
        forked.run(tmp_path, "sample", f"--out_dir={folder}", *flags).stdout
        for folder in (out_dir, other_dir)
    ]
    printed, _ = command("sample", f"--out_dir={other_dir}", *flags)
    *parts, end = printed.split("\n---------------\n")
    assert end == "" and len(parts) == 6
    pattern = re.compile(r"(\w+), sample (\d) of 3:\n(.*)\nloss: (.*)", re.DOTALL)
    found = [pattern.fullmatch(part).groups() for part in parts]
    assert [each[:2] for each in found] == [
        (label, number) for number in "123" for label in ("moved", "other")
    ]
    for first, texts in enumerate(alone):
        written = [text for _, _, text, _ in found[first::2]]
        assert "".join(f"{text}\n---------------\n" for text in written) == texts
    for _, _, text, losses in found:
        more = text.removeprefix("the ")
        for label, strangers in (("moved", "COW"), ("other", "caé")):
            (words,) = re.findall(rf"[\d.]+ nats/char under {label}(?: \([^)]*\))?", losses)
            assert 0.1 < float(words.split()[0]) < 6
            unknown = sorted(set(more) & set(strangers) - set("a" if label == "other" else ""))
            assert all(repr(symbol) in words for symbol in unknown)
            assert ("does not know" in words) == bool(unknown)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--out_dir={other}", "--out_dir={other}/"], "is given twice"),
        (["--out_dir={other}", "--out_dir={out}", "--prompt=é"], "prompt, for other: 'é' "),
        (["--out_dir={out}", "--out_dir={out}x"], "holds no run"),
    ],
)
def test_what_cannot_stand_side_by_side_is_told(out_dir, other_dir, tmp_path, given, words):
    flags = [flag.format(other=other_dir, out=out_dir) for flag in given]
    ended = forked.run(tmp_path, "sample", *flags)
    assert (ended.code, ended.stdout) == (2, "") and words in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_evaluation_repeats_the_logs_loss(out_dir, command):
    printed, _ = command("evaluate", "--step=latest")
    last = [r for r in read_records(out_dir / "metrics.jsonl") if r["kind"] == "eval"][-1]
    val, sem = re.search(r"^val ([0-9.]+) ± ([0-9.]+) nats/char", printed, re.MULTILINE).groups()
    assert float(val) == pytest.approx(last["val_loss"], abs=1e-4)
    assert float(sem) == pytest.approx(last["val_sem"], abs=1e-4)


def test_evaluation_at_a_shorter_context_and_in_bits(out_dir, command):
    """Against the loss of each window by itself; é is two bytes."""
    context = 3
    printed, _ = command("evaluate", "--step=latest", f"--context={context}")
    with reader.open_for_reading(str(out_dir)) as checkpoints:
        found = checkpoints.restore(20)
    ids = np.load(out_dir / "val_tokens.npy")
    n_windows = (len(ids) - 1) // context
    ids_WT = np.stack([ids[i * context : i * context + context + 1] for i in range(n_windows)])
    graph = step.model_graph(model_config(found.meta))
    logits_WTV = tiny.apply(graph, found.state.params, jnp.asarray(ids_WT[:, :-1], jnp.int32))
    losses = step.next_token_losses(logits_WTV, jnp.asarray(ids_WT[:, 1:], jnp.int32))
    nats = float(losses.mean())
    symbols = found.meta["tokenizer"]["symbols"]
    n_bytes = sum(len(symbols[i].encode()) for i in ids_WT[:, 1:].reshape(-1))
    assert n_bytes > losses.size
    bits = float(losses.sum()) / math.log(2) / n_bytes
    assert float(re.search(r"^val ([0-9.]+)", printed, re.MULTILINE)[1]) == pytest.approx(
        nats, abs=1e-4
    )
    assert float(re.search(r"([0-9.]+) bits/byte", printed)[1]) == pytest.approx(bits, abs=1e-4)
    assert f"at context {context}" in printed
