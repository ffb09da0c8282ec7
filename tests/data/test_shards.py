"""Token shards: written by hand, read, checked, and trained on."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import runs
import tiny

from gptjax.config.config import set_knob
from gptjax.data import corpus, shards, splits
from gptjax.data.tokenizer import CharTokenizer, IdTokenizer
from gptjax.system.errors import UserError

TOKENIZER = CharTokenizer("\n abcdefg")
# Three shards of train, two of val, whose lengths have no common factor.
LENGTHS = {"train": [211, 307, 101], "val": [53, 47]}


def write(folder, *, dtype="uint16", tokenizer=TOKENIZER, high=9, changes=None):
    """A folder of shards; `changes` are put into its manifest. Returns the ids of each split."""
    folder.mkdir(exist_ok=True)
    rng, ids, listed = np.random.default_rng(0), {}, {"train": [], "val": []}
    for split, lengths in LENGTHS.items():
        ids[split] = rng.integers(0, high, sum(lengths)).astype(dtype)
        for number, part in enumerate(np.split(ids[split], np.cumsum(lengths)[:-1])):
            starts = np.array([0, 7, 30][: 3 - number], "<u8")
            name = f"{split}-{number:05d}"
            (folder / f"{name}.bin").write_bytes(part.tobytes())
            (folder / f"{name}.starts").write_bytes(starts.tobytes())
            listed[split].append(
                {
                    "file": f"{name}.bin",
                    "n_tokens": len(part),
                    "n_documents": len(starts),
                    "sha256": hashlib.sha256(part.tobytes()).hexdigest(),
                    "starts_sha256": hashlib.sha256(starts.tobytes()).hexdigest(),
                }
            )
    manifest = {
        "format": 1,
        "name": "hand",
        "dtype": dtype,
        "tokenizer": tokenizer.to_json(),
        "entropy_nats": None,
        "shards": listed,
    }
    manifest |= changes or {}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return ids


@pytest.mark.parametrize("dtype", ["uint16", "uint32"])
def test_shards_are_one_text_under_their_own_name(tmp_path, dtype):
    ids = write(tmp_path / "tokens", dtype=dtype)
    found = corpus.load(f"tokens:{tmp_path / 'tokens'}", fallback="")
    assert (found.name, found.size, found.vocab_size) == ("tokens:hand", "719 tokens", 9)
    assert splits.tokenizer(found, tiny.config().data) == TOKENIZER
    both = splits.split(found, TOKENIZER, tiny.config().data)
    np.testing.assert_array_equal(np.asarray(both.train), ids["train"])
    np.testing.assert_array_equal(np.asarray(both.val), ids["val"])
    np.testing.assert_array_equal(both.joined, [*ids["train"], *ids["val"]])
    assert both.joined.dtype == dtype


def test_the_digest_is_of_the_ids_and_the_tokenizer(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", changes={"name": "another"})
    write(tmp_path / "c", tokenizer=CharTokenizer("\n abcdefgh"))
    a, b, c = (shards.read(str(tmp_path / name)).sha256 for name in "abc")
    assert a == b != c


def first_shard(**changes):
    def change(folder):
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["shards"]["train"][0] |= changes
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return change


def manifest(**changes):
    def change(folder):
        stored = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps(stored | changes))

    return change


def content(name, raw):
    return lambda folder: (folder / name).write_bytes(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "val-00001.bin").unlink(),
            "val-00001.bin; cannot be read: No su",
        ),
        (lambda folder: (folder / "val-00001.starts").unlink(), "val-00001.starts; cannot be read"),
        (
            content("train-00001.bin", bytes(612)),
            "00001.bin; has 612 bytes; manifest.json says 307",
        ),
        (content("train-00001.bin", bytes(614)), "train-00001.bin; its sha256 is not the one in"),
        (content("train-00001.starts", bytes(16)), "00001.starts; its sha256 is not the one in"),
        (first_shard(n_tokens=210), "has 422 bytes; manifest.json says 210 tokens, 420."),
        (first_shard(n_tokens=0), "shard 0 of train: n_tokens: 0; must be ≥ 1."),
        (first_shard(n_tokens=True), "n_tokens: True; must be ≥ 1."),
        (first_shard(n_documents=4), "00000.starts; must be where 4 documents begin, in order."),
        (first_shard(sha256="0" * 64), "train-00000.bin; its sha256 is not the one in manifest"),
        (first_shard(sha256="x"), "sha256: 'x'; must be 64 hex digits."),
        (first_shard(file="../../etc/passwd"), "'../../etc/passwd'; must be train-00000.bin."),
        (first_shard(more=1), "must have file, n_tokens, n_documents, sha256, starts_sha256 alone"),
        (content("manifest.json", b"{"), "manifest.json; is not JSON."),
        (content("manifest.json", b"[]"), "manifest.json: format: []; must be 1."),
        (manifest(format=2), "manifest.json: format: 2; must be 1."),
        (manifest(name=""), "name: ''; must be printable text of 1 to 100 characters."),
        (manifest(dtype="int64"), "dtype: 'int64'; must be uint16 or uint32."),
        (manifest(tokenizer=7), "tokenizer: 7; must be an object."),
        (manifest(tokenizer={"kind": "magic"}), "tokenizer: magic; must be of kind"),
        (
            manifest(tokenizer={"kind": "char", "symbols": "ab"}),
            "has the id 8, and the tokenizer 2",
        ),
        (
            manifest(tokenizer=IdTokenizer(65_537).to_json()),
            "dtype: uint16; uint16 holds 65,536 ids at most, and the tokenizer has 65,537.",
        ),
        (manifest(shards={}), "shards: {}; must be those of train and val."),
        (manifest(shards={"train": [], "val": []}), "train: []; must be a list of shards."),
        (manifest(entropy_nats=3.0), "entropy_nats: 3.0; must be null or from 0 to 2.1972"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, change, message):
    write(tmp_path / "tokens")
    change(tmp_path / "tokens")
    with pytest.raises(UserError, match=re.escape(message)):
        shards.read(str(tmp_path / "tokens"))


def test_of_a_large_folder_sizes_are_looked_at_and_no_id(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_MOST_READ", 100)
    write(tmp_path / "tokens")
    (tmp_path / "tokens" / "train-00001.bin").write_bytes(bytes(614))
    assert len(shards.read(str(tmp_path / "tokens")).train) == 619
    (tmp_path / "tokens" / "train-00001.bin").write_bytes(bytes(612))
    with pytest.raises(UserError, match="has 612 bytes"):
        shards.read(str(tmp_path / "tokens"))


def settings(folder, **knobs):
    model = dict(n_layer=1, n_head=2, n_embd=6, block_size=5)
    values = {f"model__{name}": value for name, value in model.items()}
    values |= dict(train__max_iters=5, checkpoint__interval=2, data__source=f"tokens:{folder}")
    return tiny.config(**{**values, **knobs})


def test_a_run_on_shards_is_that_on_the_same_ids_in_one_file(tmp_path, capsys):
    ids = write(tmp_path / "shards")
    one = tmp_path / "one"
    one.mkdir()
    for split, each in ids.items():
        each.tofile(one / f"{split}.bin")
    meta = {"vocab_size": TOKENIZER.vocab_size, "name": "one", "entropy_nats": None}
    (one / "meta.json").write_text(json.dumps(meta))
    for name in ("shards", "one"):
        assert runs.start(settings(tmp_path / name), tmp_path / f"run_{name}") == 0
    found, wanted = (runs.newest(tmp_path / f"run_{name}") for name in ("shards", "one"))
    tiny.assert_same_bits(found.state.params, wanted.state.params)
    assert found.meta["tokenizer"] == TOKENIZER.to_json()
    assert found.meta["val_sha256"] == wanted.meta["val_sha256"]
    val = np.load(tmp_path / "run_shards" / "val_tokens.npy")
    np.testing.assert_array_equal(val, ids["val"])
    assert "corpus tokens:hand: 719 tokens, 9 symbols" in capsys.readouterr().out


def test_a_run_goes_on_on_shards_of_its_own_tokenizer_alone(tmp_path):
    write(tmp_path / "tokens")
    config = settings(tmp_path / "tokens")
    with runs.stopped_after(2):
        runs.start(config, tmp_path / "run")
    shutil.move(tmp_path / "tokens", tmp_path / "moved")
    set_knob(config, "data.source", f"tokens:{tmp_path / 'moved'}")
    with runs.stopped_after(4):
        runs.start(config, tmp_path / "run")
    write(tmp_path / "moved", tokenizer=CharTokenizer("\n abcdefx"))
    with pytest.raises(UserError, match="differs from the checkpoint's"):
        runs.start(config, tmp_path / "run")
    fork = settings(tmp_path / "moved", init_from=str(tmp_path / "run"))
    with pytest.raises(UserError, match="its tokenizer, of 9 symbols; is not the checkpoint's"):
        runs.start(fork, tmp_path / "fork")
