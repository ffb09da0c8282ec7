"""What a run reads its text as: from its start to its samples, when it goes on, and in a fork."""

import json
import math
import pickle
import re
import shutil

import numpy as np
import pytest
import runs
import tiny

from gptjax import evaluate, sample
from gptjax.config.config import set_knob
from gptjax.data import bpe
from gptjax.data.tokenizer import CharTokenizer, IdTokenizer
from gptjax.run.inputs import forked_config, read_inputs
from gptjax.run.metadata import stored_tokenizer
from gptjax.run.runlog import read_records
from gptjax.system.errors import UserError

TEXT = tiny.TEXT.replace("cats", "cäts 😀")
SAMPLING = dict(step="latest", prompt_file="", temperature=1.0, top_k=0, seed=3, stride=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run on BPE tokens, moved, whose text is gone."""
    folder = tmp_path_factory.mktemp("bpe")
    (folder / "text.txt").write_text(TEXT)
    config = runs.settings(folder, data__tokenizer="bpe:300", train__max_iters=6)
    assert runs.start(config, folder / "first") == 0
    (folder / "text.txt").unlink()
    shutil.move(folder / "first", folder / "run")
    return folder


def test_p17_text_is_sampled_from_the_run_directory_alone(trained, capsys):
    """A prompt is text, and what is printed is: of 65 tokens no character is broken between two."""
    sample.sample(
        str(trained / "run"), prompt="the cäts 😀", num_samples=2, max_new_tokens=65, **SAMPLING
    )
    first, second, end = capsys.readouterr().out.split("\n---------------\n")
    assert end == "" and first != second
    found = runs.newest(trained / "run")
    continued = sample.sampled_texts(
        found, prompt="the cäts 😀", num_samples=2, max_new_tokens=65,
        **{name: value for name, value in SAMPLING.items() if name != "step"},
    )  # fmt: skip
    assert [first, second] == continued  # Decoded at once, and not as they come.
    assert first.startswith("the cäts 😀")


def test_its_tokenizer_is_that_of_the_training_part(trained):
    found = stored_tokenizer(runs.newest(trained / "run").meta)
    n_train = int(len(TEXT) * 0.9)
    assert found == bpe.train([TEXT[:n_train]], 300) != bpe.train([TEXT], 300)
    ids = np.load(trained / "run" / "val_tokens.npy")
    assert found.decode(ids) == TEXT[n_train:]
    (record,) = (r for r in read_records(trained / "run" / "metrics.jsonl") if r["kind"] == "run")
    assert record["vocab_size"] == 300
    n_bytes = len(TEXT[n_train:].encode())
    assert record["val_bytes_per_token"] == pytest.approx(n_bytes / len(ids), rel=1e-6)
    assert json.loads((trained / "run" / "config.json").read_text())["data.tokenizer"] == "bpe:300"


def test_it_is_evaluated_per_token_per_character_and_per_byte(trained, capsys):
    evaluate.evaluate(str(trained / "run"), step="latest", context=0)
    printed = capsys.readouterr().out
    found = stored_tokenizer(runs.newest(trained / "run").meta)
    ids = np.load(trained / "run" / "val_tokens.npy")
    targets = ids[1 : 1 + (len(ids) - 1) // 5 * 5]
    text = found.decode_bytes(targets)
    nats = float(re.search(r"^val ([0-9.]+) ± [0-9.]+ nats/token at", printed, re.MULTILINE)[1])
    char, byte = re.search(
        r"^    ([0-9.]+) nats/char, ([0-9.]+) bits/byte$", printed, re.M
    ).groups()
    n_chars = len(text.decode("utf-8", "ignore"))
    assert abs(float(char) - nats * len(targets) / n_chars) < 1e-2 * nats
    bits = nats / math.log(2) * len(targets) / len(text)
    assert float(byte) == pytest.approx(bits, abs=2e-4)


def test_it_goes_on_with_the_tokenizer_that_it_has(trained, tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT)
    shutil.copytree(trained / "run", tmp_path / "run")
    config = runs.settings(tmp_path, data__tokenizer="bpe:300", train__max_iters=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "train", None)  # None is trained again.
        assert runs.start(config, tmp_path / "run") == 0
    before, after = (
        runs.newest(folder / "run").meta["tokenizer"] for folder in (trained, tmp_path)
    )
    assert before == after and runs.steps(tmp_path / "run")[-1] == 8
    for other in ("char", "bpe:301", "gpt2"):
        set_knob(config, "data.tokenizer", other)
        with pytest.raises(UserError, match=f"data.tokenizer: {other}; .* has bpe:300: that would"):
            runs.start(config, tmp_path / "run")


def test_a_fork_has_the_checkpoints_tokenizer(trained, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT + "Another text, of Ünknown words: 世界.\n" * 9)
    fork = dict(init_from=str(trained / "run"), train__max_iters=7)
    config = runs.settings(tmp_path, **fork)
    assert runs.start(config, tmp_path / "fork") == 0
    parent, child = (runs.newest(each).meta for each in (trained / "run", tmp_path / "fork"))
    assert child["tokenizer"] == parent["tokenizer"]
    assert child["config"]["data.tokenizer"] == "bpe:300"
    assert config.data.tokenizer == "char"  # What was asked for is left alone.
    other = runs.settings(tmp_path, **fork, data__tokenizer="bpe:301")
    with pytest.raises(UserError, match="data.tokenizer: bpe:301; the checkpoint .* has bpe:300"):
        runs.start(other, tmp_path / "other")
    with pytest.raises(UserError, match="data.tokenizer: char; the checkpoint .* has bpe:300"):
        runs.start(config, tmp_path / "other", ["data.tokenizer"])
    assert not (tmp_path / "other").exists()


class Checkpoint:
    """As much of one as its tokenizer needs."""

    def __init__(self, tokenizer, **config):
        self.meta = {"tokenizer": tokenizer.to_json(), "config": config}


def test_a_fork_may_say_what_ids_stand_for(tmp_path):
    """A run on token files knows of its tokens only how many there are."""
    config = runs.settings(tmp_path, data__tokenizer="bpe:300")
    parent = Checkpoint(IdTokenizer(300))
    assert forked_config(config, ["data.tokenizer"], parent) is config
    made = read_inputs(config, parent, is_fork=True).tokenizer
    assert made == read_inputs(config).tokenizer
    with pytest.raises(UserError, match="bpe:300; has 300 ids; the checkpoint has 301"):
        read_inputs(config, Checkpoint(IdTokenizer(301)), is_fork=True)
    plain = runs.settings(tmp_path)
    old = Checkpoint(CharTokenizer.of_text(tiny.TEXT))  # Written before there was the knob.
    assert forked_config(plain, [], old) is plain


def test_what_takes_its_time_is_named_and_characters_are_silent(tmp_path):
    import contextlib

    named = []

    @contextlib.contextmanager
    def doing(what):
        named.append(what)
        yield

    read_inputs(runs.settings(tmp_path), doing=doing)
    assert named == []
    read_inputs(runs.settings(tmp_path, data__tokenizer="bpe:260"), doing=doing)
    assert named == ["making the tokenizer bpe:260", "turning the text into tokens"]


def test_tokens_and_characters_of_one_text(tmp_path):
    """Characters are as they always were, whatever the knob is called."""
    plain = read_inputs(runs.settings(tmp_path))
    assert plain.tokenizer == CharTokenizer.of_text(tiny.TEXT)
    assert pickle.loads(pickle.dumps(plain.tokenizer)) == plain.tokenizer
    tokens = read_inputs(runs.settings(tmp_path, data__tokenizer="bpe:300"))
    text = tokens.tokenizer.decode(np.concatenate([tokens.splits.train, tokens.splits.val]))
    assert (
        text
        == tiny.TEXT
        == plain.tokenizer.decode(np.concatenate([plain.splits.train, plain.splits.val]))
    )
    assert len(tokens.splits.train) < len(plain.splits.train)
