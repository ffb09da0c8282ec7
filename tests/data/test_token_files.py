"""Token files, nanoGPT's train.bin and val.bin: read, checked, trained on, sampled from."""

import hashlib
import json
import os
import pickle
import re

import forked
import numpy as np
import pytest
import runs
import tiny

from gptjax import evaluate, sample
from gptjax.config.config import set_knob
from gptjax.data import corpus, markov, nanogpt_meta, splits, token_files
from gptjax.data.tokenizer import CharTokenizer, IdTokenizer
from gptjax.prepare import describe_nanogpt, draw
from gptjax.run.runlog import read_records
from gptjax.system import files as files_module
from gptjax.system.errors import UserError

# Ids of a vocabulary of 50, and how many of each split; both primes.
VOCABULARY, N_TRAIN, N_VAL = 50, 1009, 211

META = {"vocab_size": VOCABULARY, "name": "fifty", "entropy_nats": 1.25}


def write(folder, *, meta=META, **splits):
    """A folder of token files; splits and meta are given as arrays, as bytes or as an object."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    drawn = {"train": rng.integers(0, 50, N_TRAIN), "val": rng.integers(0, 50, N_VAL)}
    for name, ids in (drawn | splits).items():
        if ids is not None:
            raw = ids if isinstance(ids, bytes) else np.asarray(ids, "<u2").tobytes()
            (folder / f"{name}.bin").write_bytes(raw)
    if meta is not None:
        raw = meta if isinstance(meta, bytes) else json.dumps(meta).encode()
        (folder / "meta.json").write_bytes(raw)
    return folder


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "tokens")


def settings(folder, **knobs):
    """A config of five updates on the tokens of a folder."""
    model = dict(n_layer=1, n_head=2, n_embd=6, block_size=5)
    values = {f"model__{name}": value for name, value in model.items()}
    values |= dict(train__max_iters=5, checkpoint__interval=2, eval__max_tokens=0)
    return tiny.config(**{**values, "data__source": f"tokens:{folder}", **knobs})


# Reading.


def test_ids_are_mapped_and_not_copied(files):
    found = corpus.load(f"tokens:{files}", fallback="synthetic")
    assert (found.name, found.fallback_reason) == ("tokens:fifty", "")
    tokenizer = splits.tokenizer(found, tiny.config().data)
    assert tokenizer == IdTokenizer(VOCABULARY)
    found_splits = splits.split(found, tokenizer, tiny.config().data)
    for ids, name in ((found_splits.train, "train"), (found_splits.val, "val")):
        assert isinstance(ids, np.memmap) and not ids.flags.writeable
        assert ids.dtype == np.uint16
        np.testing.assert_array_equal(ids, np.fromfile(files / f"{name}.bin", "<u2"))
    assert found_splits.floor_nats == 1.25


def test_the_digest_is_of_both_files_and_of_where_they_meet(files, monkeypatch):
    monkeypatch.setattr(token_files, "_CHUNK", 7)
    train, val = ((files / f"{name}.bin").read_bytes() for name in ("train", "val"))
    wanted = hashlib.sha256(b"train.bin %d " % len(train) + train)
    wanted.update(b"val.bin %d " % len(val) + val)
    assert token_files.read(str(files)).sha256 == wanted.hexdigest()
    (files / "train.bin").write_bytes(train + val[:2])
    (files / "val.bin").write_bytes(val[2:])
    assert token_files.read(str(files)).sha256 != wanted.hexdigest()


def test_without_a_description_they_are_gpt2s(tmp_path):
    found = token_files.read(str(write(tmp_path / "owt", meta=None, val=[50_256, 0, 198])))
    assert (found.name, found.vocab_size, found.entropy_nats) == ("tokens:owt", 50_257, None)
    with pytest.raises(UserError, match="val.bin; has the id 50257, and the vocabulary 50257 ids"):
        token_files.read(str(write(tmp_path / "owt", meta=None, val=[50_257, 0])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(train=b""), "train.bin; has 0 bytes; must hold ids of two bytes each (uint16)."),
        (dict(val=b"\0\0\1"), "val.bin; has 3 bytes; must hold ids of two bytes each (uint16)."),
        (dict(val=None), "val.bin; cannot be read: No such file or directory."),
        (
            dict(train=[0] * 15 + [50] + [0] * 15),
            "train.bin; has the id 50, and the vocabulary 50 ids. Give the right vocab_size",
        ),
        (dict(meta=b"{"), "meta.json; is not JSON."),
        (dict(meta=b"\xff"), "meta.json; is not JSON."),
        (dict(meta=b"[" * 60_000), "meta.json; is not JSON."),
        (dict(meta=b" " * 2**16 + b"{}"), "meta.json; is not a file of at most 64 KiB."),
        (dict(meta=[]), "meta.json; must have vocab_size, name and entropy_nats alone."),
        (dict(meta={"vocab_size": 50}), "meta.json; must have vocab_size, name and entropy_nats"),
        (dict(meta=META | {"vocab_size": 0}), "meta.json: vocab_size: 0; must be 1 to 65536."),
        (dict(meta=META | {"vocab_size": 2**40}), f"vocab_size: {2**40}; must be 1 to 65536."),
        (dict(meta=META | {"vocab_size": "50"}), "vocab_size: '50'; must be 1 to 65536."),
        (dict(meta=META | {"name": ""}), "name: ''; must be printable text of 1 to 100"),
        (dict(meta=META | {"name": "\x1b[2J"}), "name: '\\x1b[2J'; must be printable text"),
        (dict(meta=META | {"entropy_nats": 4.0}), "entropy_nats: 4.0; must be null or from 0 to"),
        (dict(meta=META | {"entropy_nats": -0.1}), "entropy_nats: -0.1; must be null or from 0"),
        (dict(meta=META | {"entropy_nats": True}), "entropy_nats: True; must be null or from 0"),
        (dict(meta=META | {"entropy_nats": np.nan}), "entropy_nats: nan; must be null or from 0"),
        (dict(meta=META | {"entropy_nats": 10**400}), "must be null or from 0 to 3.9120, the log"),
    ],
)
def test_what_is_wrong_with_the_files_is_said(tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr(token_files, "_CHUNK", 7)
    folder = write(tmp_path / "tokens", **changes)
    config = settings(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        runs.start(config, tmp_path / "run")
    assert str(folder) in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_none_and_a_file_that_is_a_folder(tmp_path, files):
    with pytest.raises(UserError, match="nowhere/train.bin; cannot be read: No such file"):
        token_files.read(str(tmp_path / "nowhere"))
    (files / "train.bin").unlink()
    (files / "train.bin").mkdir()
    with pytest.raises(UserError, match="train.bin; is not a file"):
        token_files.read(str(files))


def test_of_files_beyond_what_is_read_whole_parts_are(tmp_path, monkeypatch):
    monkeypatch.setattr(token_files, "_MOST_READ", N_TRAIN + N_VAL - 1)
    monkeypatch.setattr(token_files, "_N_PARTS", 3)
    monkeypatch.setattr(token_files, "_PART", 20)
    folder = write(tmp_path / "tokens")
    train, val = (np.fromfile(folder / f"{name}.bin", "<u2") for name in ("train", "val"))
    digest = hashlib.sha256()
    for name, ids in (("train", train), ("val", val)):
        digest.update(f"{name}.bin {ids.nbytes} ".encode())
        for start in (0, (len(ids) - 10) // 2, len(ids) - 10):
            digest.update(ids[start : start + 10].tobytes())
    found = token_files.read(str(folder))
    assert found.sha256 == digest.hexdigest()
    train[-1] = 50
    write(folder, train=train)
    with pytest.raises(UserError, match="train.bin; has the id 50"):
        token_files.read(str(folder))


def test_a_split_must_hold_a_window(tmp_path):
    folder = write(tmp_path / "tokens", val=[1, 2, 3, 4, 5])
    with pytest.raises(UserError, match="block_size: 5; needs 6 tokens; val has 5"):
        runs.start(settings(folder), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Runs.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with tokens and a finished run on them."""
    folder = tmp_path_factory.mktemp("trained")
    write(folder / "tokens")
    assert runs.start(settings(folder / "tokens"), folder / "run") == 0
    return folder


def test_a_run_says_what_it_trains_on_and_how_far_it_is(files, tmp_path, capsys):
    assert runs.start(settings(files), tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "corpus tokens:fifty: 1,220 tokens, 50 symbols; 1,009 train and 211 val" in printed
    assert "floor: no model can have a val loss below 1.2500" in printed
    assert re.search(r"step 5: train .* nats/token, \d\.\d{4} above the floor of the tok", printed)
    assert "nats/char" not in printed
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert records[0]["corpus_name"] == "tokens:fifty"
    assert records[0]["corpus_sha256"] == token_files.read(str(files)).sha256
    # Nothing is known at first; the ids are random, so that nothing is to be learned.
    (first, *_) = [record for record in records if record["kind"] == "eval"]
    assert first["val_loss"] == pytest.approx(np.log(VOCABULARY), abs=0.1)


def test_a_run_is_stopped_and_goes_on(trained, tmp_path, capsys):
    config = settings(trained / "tokens")
    with runs.stopped_after(3):
        assert runs.start(config, tmp_path / "run") == 128 + 15
    assert runs.start(config, tmp_path / "run") == 0
    assert "resumed at step 4" in capsys.readouterr().out
    found, wanted = runs.newest(tmp_path / "run"), runs.newest(trained / "run")
    assert found.step == wanted.step == 5
    tiny.assert_same_bits(found.state.params, wanted.state.params)


def test_other_tokens_are_not_the_same_run_but_may_be_a_fork(trained, tmp_path):
    folder = write(tmp_path / "tokens", train=np.arange(N_TRAIN) % 50)
    config = settings(folder)
    with runs.stopped_after(2):
        runs.start(config, tmp_path / "run")
    write(folder)
    with pytest.raises(UserError, match="corpus tokens:fifty: sha256 .* differs from the check"):
        runs.start(config, tmp_path / "run")
    set_knob(config, "init_from", str(tmp_path / "run"))
    assert runs.start(config, tmp_path / "fork") == 0


def test_a_fork_needs_tokens_of_the_same_kind(trained, tmp_path):
    fork = settings(trained / "tokens", init_from=str(trained / "run"), train__max_iters=6)
    text = tmp_path / "text.txt"
    text.write_text(tiny.TEXT)
    set_knob(fork, "data.source", f"text:{text}")
    with pytest.raises(UserError, match="corpus text:text.txt: '0:'; is no token id"):
        runs.start(fork, tmp_path / "fork")
    more = write(tmp_path / "more", meta=META | {"vocab_size": 51})
    set_knob(fork, "data.source", f"tokens:{more}")
    with pytest.raises(UserError, match="ids of 51 symbols; the checkpoint knows 50 tokens"):
        runs.start(fork, tmp_path / "fork")
    found = token_files.read(str(trained / "tokens"))
    with pytest.raises(UserError, match="ids of 50 symbols; the checkpoint knows 2 chars"):
        found.check_known(CharTokenizer("ab"))
    assert not (tmp_path / "fork").exists()


def test_a_run_is_evaluated_per_token(trained, capsys):
    evaluate.evaluate(str(trained / "run"), step="latest", context=0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("step 5 on tokens:fifty, 210 tokens of val")
    last = read_records(trained / "run" / "metrics.jsonl")
    last = [record for record in last if record["kind"] == "eval"][-1]
    assert lines[1].startswith(f"val {last['val_loss']:.4f} ± {last['val_sem']:.4f} nats/token at")
    assert lines[2].startswith("    floor 1.2500: val is ")
    assert len(lines) == 3  # How many bytes a token stands for is not known.


@pytest.mark.parametrize(("prompt", "begun"), [("7 12", "7 12"), ("", "49")])
def test_a_run_is_sampled_as_numbers(trained, capsys, prompt, begun):
    numbers = dict(num_samples=2, max_new_tokens=40, temperature=1.0, top_k=0, seed=1, stride=1)
    sample.sample(str(trained / "run"), step="best", prompt=prompt, prompt_file="", **numbers)
    *texts, end = capsys.readouterr().out.split("\n---------------\n")
    assert end == "" and len(texts) == 2 and texts[0] != texts[1]
    for text in texts:
        assert text.startswith(f"{begun} ")
        ids = [int(word) for word in text.split(" ")]
        assert len(ids) == len(begun.split()) + 40 and max(ids) < VOCABULARY


def test_a_prompt_of_letters_is_refused(trained):
    numbers = dict(num_samples=1, max_new_tokens=1, temperature=1.0, top_k=0, seed=1, stride=1)
    with pytest.raises(UserError, match="prompt: 'ROMEO:'; is no token id; ids are 0 to 49"):
        sample.sample(str(trained / "run"), step="best", prompt="ROMEO:", prompt_file="", **numbers)


def test_a_padded_vocabulary_is_in_the_loss_and_never_in_a_sample(trained, tmp_path, capsys):
    config = settings(trained / "tokens", model__vocab_multiple=64, train__max_iters=0)
    assert runs.start(config, tmp_path / "run") == 0
    found = runs.newest(tmp_path / "run")
    assert found.state.params["wte"]["embedding"][...].shape == (64, 6)
    assert found.meta["tokenizer"] == {"kind": "ids", "vocab_size": VOCABULARY}
    (first,) = [r for r in read_records(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "eval"]
    assert first["val_loss"] == pytest.approx(np.log(64), abs=0.1)  # ln 50 is 0.25 less.
    capsys.readouterr()
    numbers = dict(num_samples=3, max_new_tokens=100, temperature=5.0, top_k=0, seed=1, stride=1)
    sample.sample(str(tmp_path / "run"), step="best", prompt="1", prompt_file="", **numbers)
    ids = [int(word) for word in re.findall(r"[0-9]+", capsys.readouterr().out)]
    assert len(ids) == 3 * 101 and max(ids) == VOCABULARY - 1

    fork = settings(trained / "tokens", init_from=str(trained / "run"), model__vocab_multiple=64)
    with pytest.raises(
        UserError, match="model.vocab_multiple: 64; the checkpoint .* has 1. A fork"
    ):
        runs.start(fork, tmp_path / "fork")


# Prepared ones.


@pytest.fixture(scope="module")
def table():
    return markov.successors(7)


def test_an_id_has_sixteen_successors_all_different(table):
    assert table.shape == (50_257, 16) and table.dtype == np.uint16 and table.max() == 50_256
    sorted_table = np.sort(table, axis=1)
    assert (sorted_table[:, 1:] != sorted_table[:, :-1]).all()
    # Zipf: the hundredth of the ids that is most frequent makes up four tenths of the table.
    counts = np.sort(np.bincount(table.reshape(-1), minlength=50_257))[::-1]
    assert 0.35 < counts[:503].sum() / counts.sum() < 0.5
    assert not np.array_equal(table, markov.successors(8))
    np.testing.assert_array_equal(table, markov.successors(7))


def test_probabilities_are_those_of_the_entropy():
    shares = markov.probabilities()
    assert shares.sum() == 1 and (np.diff(shares) < 0).all() and len(shares) == 16
    assert (shares * 2**16 == np.round(shares * 2**16)).all()
    harmonic = sum(1 / rank for rank in range(1, 17))
    np.testing.assert_allclose(shares, [1 / rank / harmonic for rank in range(1, 17)], atol=2e-5)


def test_measured_entropy_is_the_stated_one(table):
    """Of every pair of neighbours, -ln P of the second by its rank among the first's successors."""
    chains = np.concatenate(list(markov.chains(table, 2_000_000, 7, stream=1)), axis=1)
    assert chains.shape[0] == 40
    before, after = chains[:, :-1].reshape(-1), chains[:, 1:].reshape(-1)
    is_rank = table[before] == after[:, None]
    assert (is_rank.sum(axis=1) == 1).all()
    nats = -np.log(markov.probabilities())[is_rank.argmax(axis=1)]
    sem = nats.std() / np.sqrt(len(nats))
    assert 0 < sem < 1e-3
    assert nats.mean() == pytest.approx(markov.entropy_nats(), abs=4 * sem)
    shares = np.bincount(is_rank.argmax(axis=1), minlength=16) / len(nats)
    np.testing.assert_allclose(shares, markov.probabilities(), atol=0.002)
    # Successive choices have nothing to do with each other.
    ranks = is_rank.argmax(axis=1).reshape(40, -1)
    assert abs(np.corrcoef(ranks[:, 1:].reshape(-1), ranks[:, :-1].reshape(-1))[0, 1]) < 0.004


def test_what_was_prepared_is_trained_on_and_its_floor_said(tmp_path, capsys):
    folder = tmp_path / "data" / "markov"
    numbers = ("--n_tokens=60000", "--n_val=1009", "--seed=7")
    flags = ("--dataset=markov", f"--out_dir={folder}", *numbers)
    ended = forked.run(tmp_path, "prepare", *flags)
    assert (ended.code, ended.stderr) == (0, "")
    assert "58,991 train and 1,009 val tokens of 50,257 symbols; entropy 2.3589" in ended.stdout
    assert sorted(path.name for path in folder.iterdir()) == ["meta.json", "train.bin", "val.bin"]
    found = token_files.read(str(folder))
    assert (len(found.train), len(found.val)) == (58_991, 1009)
    assert (found.name, found.vocab_size) == ("tokens:markov-7", 50_257)
    assert found.entropy_nats == markov.entropy_nats()
    # Val is no part of train.
    assert found.val[:20].tobytes() not in found.train.tobytes()
    config = settings(folder, train__max_iters=3, model__vocab_multiple=128)
    assert runs.start(config, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    assert "floor: no model can have a val loss below 2.3589" in printed
    assert re.search(r"step 0: .* 8\.\d+ above the floor of the tokens:markov-7 corpus", printed)
    ended = forked.run(tmp_path, "prepare", *flags)
    assert ended.code == 2
    assert f"--out_dir: {folder}; is not empty. Choose another --out_dir." in ended.stderr


def test_the_same_seed_gives_the_same_files(tmp_path):
    read = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        prepared = dict(out_dir=str(tmp_path / name), n_tokens=9000, val_fraction=0.01, n_val=0)
        draw("markov", seed=seed, **prepared)
        read.append(token_files.read(str(tmp_path / name)))
    assert read[0].sha256 == read[1].sha256 != read[2].sha256
    assert len(read[0].val) == 90


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n_tokens=1), "--n_tokens: 1; must be from 2 to 2147483647."),
        (dict(n_tokens=2**31), "--n_tokens: 2147483648; must be from 2 to 2147483647."),
        (dict(seed=-1), "--seed: -1; must be an integer in [0, 2**32)."),
        (dict(val_fraction=0.0), "--val_fraction: 0.0; must be in (0, 1)."),
        (dict(val_fraction=float("nan")), "--val_fraction: nan; must be in (0, 1)."),
        (dict(n_val=-1), "--n_val: -1; must be ≥ 0 and < n_tokens 100."),
        (dict(n_val=100), "--n_val: 100; must be ≥ 0 and < n_tokens 100."),
        (dict(out_dir="text.txt"), "text.txt is a file. Choose another --out_dir."),
        (dict(out_dir="."), "--out_dir: .; is not empty. Choose another --out_dir."),
    ],
)
def test_what_cannot_be_prepared_is_refused(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").touch()
    asked = dict(dataset="markov", out_dir="new", n_tokens=100, seed=1, val_fraction=0.1, n_val=0)
    with pytest.raises(UserError, match=re.escape(message)):
        draw(**asked | changes)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_disk_too_small_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "free_space", lambda folder: 19)
    out_dir = str(tmp_path / "new")
    with pytest.raises(UserError, match="new; 20 bytes are needed, 19 are free"):
        draw("markov", out_dir=out_dir, n_tokens=10, seed=1, val_fraction=0.1, n_val=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtype", "words"),
    [("int64", "8 bytes each, int64"), ("uint32", "4 bytes each, uint32"), ("int32", "4 bytes")],
)
def test_p28_files_of_wider_ids_are_refused(tmp_path, dtype, words):
    folder = write(tmp_path / "tokens")
    np.arange(40, dtype=dtype).tofile(folder / "val.bin")
    with pytest.raises(UserError, match=f"val.bin; has ids of {words}.*must be of two"):
        token_files.read(str(folder))
    np.arange(40).astype("uint16").tofile(folder / "val.bin")
    assert len(token_files.read(str(folder)).val) == 40


def write_meta_pkl(folder, meta):
    folder.mkdir(exist_ok=True)
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


# As nanoGPT's data/shakespeare_char/prepare.py writes it.
SYMBOLS = "abcdefg"
NANOGPT_META = {
    "vocab_size": len(SYMBOLS),
    "itos": dict(enumerate(SYMBOLS)),
    "stoi": {symbol: i for i, symbol in enumerate(SYMBOLS)},
}


def test_p28_a_folder_of_nanogpts_characters_is_not_taken_for_gpt2s_tokens(tmp_path, capsys):
    folder = tmp_path / "shakespeare_char"
    write_meta_pkl(folder, NANOGPT_META)
    for file in ("train.bin", "val.bin"):
        (np.arange(30) % len(SYMBOLS)).astype("uint16").tofile(folder / file)
    with pytest.raises(UserError, match=r"has a meta.pkl.*prepare.py --from_nanogpt"):
        token_files.read(str(folder))
    describe_nanogpt(str(folder))
    assert "7 symbols" in capsys.readouterr().out
    assert token_files.read(str(folder)).vocab_size == 7
    with pytest.raises(UserError, match="is there already"):
        describe_nanogpt(str(folder))


class Hostile:
    """Unpickled as any pickle is, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda path: pickle.dumps(Hostile(path)), "is not plain data: it names posix.mkdir"),
        (lambda path: pickle.dumps({"vocab_size": Hostile(path)}), "is not plain data"),
        (lambda path: b"", "is not plain data"),
        (lambda path: b"\x80\x04garbage", "is not plain data"),
        (lambda path: pickle.dumps([1]), "has no vocab_size"),
        (lambda path: pickle.dumps({"vocab_size": True}), "has no vocab_size"),
        (lambda path: pickle.dumps({"vocab_size": 0}), "has no vocab_size"),
        (lambda path: pickle.dumps({"vocab_size": 7, "x": "y" * 5_000_000}), "is larger than"),
    ],
)
def test_p23_a_hostile_meta_pkl_is_refused_and_runs_nothing(tmp_path, content, words):
    path = str(tmp_path / "made")
    (tmp_path / "meta.pkl").write_bytes(content(path))
    with pytest.raises(UserError, match=words):
        describe_nanogpt(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["meta.pkl"]


def test_the_characters_of_a_meta_pkl_are_had_in_the_order_of_their_ids(tmp_path):
    write_meta_pkl(tmp_path, NANOGPT_META | {"itos": {i: s for i, s in enumerate("gfedcba")}})
    assert nanogpt_meta.symbols(tmp_path / "meta.pkl", flag="--data") == "gfedcba"


@pytest.mark.parametrize("itos", [None, {}, {0: "a"}, dict.fromkeys(range(7), "ab"), "abcdefg"])
def test_a_meta_pkl_without_them_is_refused(tmp_path, itos):
    write_meta_pkl(tmp_path, NANOGPT_META | {"itos": itos})
    with pytest.raises(UserError, match="--data: .*meta.pkl; has no itos of 7 characters"):
        nanogpt_meta.symbols(tmp_path / "meta.pkl", flag="--data")


def test_a_vocabulary_far_above_the_ids_is_warned_of(tmp_path, capsys):
    """Of the right one nothing is said."""
    for vocab_size, is_warned in ((41, False), (1000, True)):
        folder = write(tmp_path / str(vocab_size), meta=META | {"vocab_size": vocab_size})
        for file in ("train.bin", "val.bin"):
            (np.arange(400) % 41).astype("uint16").tofile(folder / file)
        assert token_files.read(str(folder)).highest_id == 40
        config = runs.settings(tmp_path, data__source=f"tokens:{folder}", train__max_iters=0)
        assert runs.start(config, tmp_path / f"run{vocab_size}") == 0
        words = "warning: the highest id is 40, far below the vocabulary's 1,000; check vocab_size"
        assert (words in capsys.readouterr().out) == is_warned
