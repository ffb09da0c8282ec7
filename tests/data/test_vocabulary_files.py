"""vocab.json and merges.txt: GPT-2's own, others that are written here, and wrong ones."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from gptjax.data import bpe, hub, vocabulary_files
from gptjax.data.tokenizer import make_tokenizer
from gptjax.system.errors import UserError

DATA_DIR = os.environ.get("GPTJAX_DATA_DIR", "")
GPT2_FILES = Path(DATA_DIR or "/nowhere", "gpt2")


@pytest.fixture
def made():
    return bpe.train(["the cat sat on the mat, the hat sat on the cat\n" * 3], 270)


@pytest.fixture
def folder(tmp_path, made):
    """The files as GPT-2's are written."""
    ids = {token: number for number, token in enumerate(made.tokens.split("\n"))}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + made.merges + "\n")
    return tmp_path


def test_files_are_read_as_they_were_written(folder, made):
    assert make_tokenizer(str(folder), []) == made
    (folder / "merges.txt").write_bytes(made.merges.replace("\n", "\r\n").encode())
    assert vocabulary_files.read_folder(str(folder)) == made


def test_ids_may_be_in_any_order(folder, made):
    """Other programs put what marks a text first."""
    tokens = made.tokens.split("\n")
    ids = {token: number for number, token in enumerate([tokens[-1], *tokens[:-1]])}
    (folder / "vocab.json").write_text(json.dumps(dict(sorted(ids.items()))))
    found = vocabulary_files.read_folder(str(folder))
    assert found.end_of_text == 0
    assert (found.encode("the cat") - 1 == made.encode("the cat")).all()
    assert found.decode(found.encode("the cat")) == "the cat"


def change_ids(change):
    def changed(folder):
        path = folder / "vocab.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return changed


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / "vocab.json").unlink(), "/vocab.json; cannot be read: No such file"),
        (lambda f: (f / "merges.txt").unlink(), "/merges.txt; cannot be read: No such file"),
        (
            lambda f: ((f / "vocab.json").unlink(), (f / "vocab.json").mkdir()),
            "/vocab.json; is not a file of at most 16 MiB",
        ),
        (
            lambda f: (f / "vocab.json").write_bytes((f / "vocab.json").read_bytes()[:-9]),
            ": vocab.json; is not JSON, or is cut short",
        ),
        (lambda f: (f / "vocab.json").write_text("[" * 100_000), ": vocab.json; is not JSON"),
        (lambda f: (f / "vocab.json").write_text("[1]"), "must be a JSON object: the id of each"),
        (lambda f: (f / "vocab.json").write_text('{"a": "b"}'), "must be a JSON object: the id"),
        (lambda f: (f / "vocab.json").write_text('{"a": true}'), "must be a JSON object: the id"),
        (change_ids(lambda ids: ids | {"a": 1}), "must have the ids from 0 on, each once"),
        (change_ids(lambda ids: ids | {"zz": 999}), "must have the ids from 0 on, each once"),
        (change_ids(lambda ids: ids | {"z\nz": len(ids)}), "has a token with a newline"),
        (change_ids(lambda ids: {"a": 0, "b": 1}), "has 2 tokens; must be 256, of a byte each"),
        (
            lambda f: (f / "merges.txt").write_bytes((f / "merges.txt").read_bytes()[:-4]),
            "vocab.json and merges.txt must belong together, and be whole.",
        ),
        (
            lambda f: (f / "merges.txt").write_text("#version: 0.2\nq q\n"),
            "has a merge, number 1 ('q q'), that makes no token of the vocabulary",
        ),
        (lambda f: (f / "merges.txt").write_bytes(b"\xff\xfe"), ": merges.txt; is not UTF-8"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_refused(folder, damage, words):
    damage(folder)
    with pytest.raises(UserError) as error:
        vocabulary_files.read_folder(str(folder))
    assert str(error.value).startswith(f"data.tokenizer: {folder}") and words in str(error.value)


@pytest.mark.parametrize("name", ["cahr", "gtp2", "bpe", "no/such/folder", "x" * 300, "a\0b"])
def test_what_is_no_folder_is_refused(name):
    with pytest.raises(UserError, match="is neither char, bpe:N, gpt2 nor a folder"):
        make_tokenizer(name, [])


def test_gpt2_is_looked_for_in_the_data_folder_and_must_be_gpt2_s(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    (data / "gpt2").symlink_to(folder)
    monkeypatch.setenv("GPTJAX_DATA_DIR", str(data))
    sha256 = hashlib.sha256((folder / "vocab.json").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"gpt2/vocab.json; is not GPT-2's: sha256 {sha256}, want"):
        make_tokenizer("gpt2", [])


@pytest.mark.skipif(not GPT2_FILES.is_dir(), reason="GPTJAX_DATA_DIR has no gpt2/")
def test_gpt2_s_own_files(monkeypatch):
    monkeypatch.setenv("GPTJAX_DATA_DIR", DATA_DIR)
    monkeypatch.setattr(hub, "folder_of", None)  # It is not asked.
    found = make_tokenizer("gpt2", [])
    assert found == vocabulary_files.read_folder(str(GPT2_FILES))
    assert found.vocab_size == 50_257


def test_gpt2_from_the_hub(folder, made, monkeypatch):
    def fetched(repository, names, *, flag, value, otherwise):
        assert (repository, flag, value) == ("openai-community/gpt2", "data.tokenizer", "gpt2")
        assert names == ["vocab.json", "merges.txt"] and "$GPTJAX_DATA_DIR/gpt2" in otherwise
        return folder

    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in vocabulary_files.GPT2_SHA256
    }
    monkeypatch.delenv("GPTJAX_DATA_DIR", raising=False)
    monkeypatch.setattr(hub, "folder_of", fetched)
    monkeypatch.setattr(vocabulary_files, "GPT2_SHA256", digests)
    assert make_tokenizer("gpt2", []) == made
