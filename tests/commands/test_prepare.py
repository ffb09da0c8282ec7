"""Documents prepared: every token once, however often the work is killed, and what is refused."""

import gzip
import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
import runs

from gptjax import prepare
from gptjax.data import encoders, shards, texts
from gptjax.data import manifest as manifests
from gptjax.data.preparation import STATE, Order
from gptjax.data.tokenizer import CharTokenizer
from gptjax.system.errors import UserError

DOCUMENTS = [f"Document {n} h\u00e9as {'word ' * (n % 7)}{n}" for n in range(1, 98)]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Blocks are made into ids in this process, in the same order."""

    def in_order(work, blocks, n_processes):
        for block in blocks:
            yield block, work(block)

    monkeypatch.setattr(encoders, "in_order", in_order)
    monkeypatch.setattr(texts, "PIECE", 64)


def jsonl(path, found=DOCUMENTS, opened=open):
    path.parent.mkdir(exist_ok=True)
    with opened(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text, "n": n}) + "\n" for n, text in enumerate(found))


def prepared(folder, dataset, **changes):
    settings = dict(tokenizer="char", field="text", val_fraction=0.2, shard_tokens=97)
    prepare.prepare(Order(dataset, **settings | changes), out_dir=str(folder), processes=1)
    return read(folder)


def read(folder):
    """The manifest, and the ids and the documents' places of each split, from the files alone."""
    manifest = json.loads((folder / "manifest.json").read_text())
    ids, places = {}, {}
    for split, listed in manifest["shards"].items():
        parts, found, n_before = [], [], 0
        for shard in listed:
            raw = (folder / shard["file"]).read_bytes()
            assert hashlib.sha256(raw).hexdigest() == shard["sha256"]
            parts.append(np.frombuffer(raw, manifest["dtype"]))
            starts = np.fromfile(folder / shard["file"].replace(".bin", ".starts"), "<u8")
            found += [n_before + int(start) for start in starts]
            n_before += shard["n_tokens"]
        ids[split], places[split] = np.concatenate(parts), found
    return manifest, ids, places


def written(manifest, ids):
    symbols = manifest["tokenizer"]["symbols"]
    return "".join(symbols[number] for number in ids)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_of_json_become_documents(tmp_path, suffix):
    opened = gzip.open if suffix else open
    jsonl(tmp_path / "in" / f"a.jsonl{suffix}", DOCUMENTS[:40], opened)
    jsonl(tmp_path / "in" / f"b.jsonl{suffix}", DOCUMENTS[40:], opened)
    manifest, ids, places = prepared(tmp_path / "out", f"jsonl:{tmp_path}/in/*")
    n_train = len(places["train"])
    assert 70 < n_train < 85 and n_train + len(places["val"]) == 97
    for split, wanted in (("train", DOCUMENTS[:n_train]), ("val", DOCUMENTS[n_train:])):
        assert written(manifest, ids[split]) == "".join(text + "\n\n" for text in wanted)
        ends = [*places[split][1:], len(ids[split])]
        pairs = zip(places[split], ends, strict=True)
        found = [written(manifest, ids[split][start:end]) for start, end in pairs]
        assert found == [text + "\n\n" for text in wanted]
    lengths = [shard["n_tokens"] for shard in manifest["shards"]["train"]]
    assert set(lengths[:-1]) == {97} and len(lengths) > 5
    assert shards.read(str(tmp_path / "out")).size == f"{sum(map(len, ids.values())):,} tokens"
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir() if path.is_file()) == sorted(
        [".json"] + [".bin", ".starts"] * sum(map(len, manifest["shards"].values()))
    )


def test_a_text_is_cut_where_val_begins_and_nothing_is_added(tmp_path):
    text = "".join(f"{word} and\n" for word in DOCUMENTS)
    (tmp_path / "text.txt").write_text(text)
    manifest, ids, places = prepared(tmp_path / "out", f"text:{tmp_path}/text.txt")
    train, val = (written(manifest, ids[split]) for split in ("train", "val"))
    assert train + val == text and val[0].isspace()
    assert abs(len(train) / len(text) - 0.8) < 0.01
    assert places == {"train": [0], "val": []}


def test_texts_of_several_files_have_a_blank_line_between(tmp_path):
    for name, text in (("b", "second text\n"), ("a", "first"), ("c", ""), ("d", "last one " * 9)):
        (tmp_path / name).write_text(text)
    manifest, ids, places = prepared(tmp_path / "out", f"text:{tmp_path}/[a-d]", val_fraction=0.5)
    joined = written(manifest, np.concatenate([ids["train"], ids["val"]]))
    assert joined == "first\n\nsecond text\n\n\n" + "last one " * 9 + "\n\n"
    assert places == {"train": [0, 7, 21], "val": []}


def test_what_was_prepared_is_trained_on(tmp_path, capsys):
    jsonl(tmp_path / "a.jsonl")
    manifest, ids, _ = prepared(tmp_path / "out", f"jsonl:{tmp_path}/a.jsonl")
    config = runs.settings(tmp_path, data__source=f"tokens:{tmp_path}/out", train__max_iters=2)
    assert runs.start(config, tmp_path / "run") == 0
    assert f"corpus tokens:out: {sum(map(len, ids.values())):,} tokens" in capsys.readouterr().out
    prepare.check_shards(str(tmp_path / "out"))
    assert "shards are as manifest.json says" in capsys.readouterr().out


class Killed(BaseException):
    """As if the process had ended here."""


@pytest.mark.parametrize("kind", ["jsonl", "text"])
def test_work_that_is_cut_short_anywhere_goes_on_without_a_token_lost_or_twice(
    tmp_path, monkeypatch, kind
):
    if kind == "jsonl":
        jsonl(tmp_path / "a.jsonl", DOCUMENTS[:50])
        jsonl(tmp_path / "b.jsonl", DOCUMENTS[50:])
        dataset = f"jsonl:{tmp_path}/*.jsonl"
    else:
        (tmp_path / "a.txt").write_text(" ".join(DOCUMENTS[:60]))
        (tmp_path / "b.txt").write_text("\n".join(DOCUMENTS[60:]))
        dataset = f"text:{tmp_path}/*.txt"
    wanted = prepared(tmp_path / "whole", dataset)
    monkeypatch.setattr("gptjax.data.preparation._COMMIT_SECONDS", 0.0)
    rng, folder, n_killed = random.Random(1), tmp_path / "out", 0

    def in_order(work, blocks, n_processes):
        left = rng.randrange(1, 6)
        for block in blocks:
            if isinstance(work, encoders.Encoder):
                if not left:
                    raise Killed
                left -= 1
            yield block, work(block)

    monkeypatch.setattr(encoders, "in_order", in_order)
    while not (folder / "manifest.json").exists():
        try:
            prepared(folder, dataset)
        except Killed:
            n_killed += 1
            committed = json.loads((folder / STATE).read_text())["written"]
            if committed["open"]:  # What was written behind that.
                split = committed["open"]["split"]
                name = f"{split}-{len(committed['shards'][split]):05d}"
                for suffix in (".bin", ".starts"):
                    with open(folder / (name + suffix), "ab") as file:
                        file.write(b"garbage!")
    found = read(folder)
    assert n_killed > 3 and found[0]["shards"] == wanted[0]["shards"]
    assert found[0]["tokenizer"] == wanted[0]["tokenizer"]
    for path in (tmp_path / "whole").iterdir():
        if path.suffix in (".bin", ".starts"):
            assert (folder / path.name).read_bytes() == path.read_bytes()


def committed(folder):
    """What is known to be written."""
    try:
        return (folder / STATE).read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_a_command_killed_again_and_again_loses_no_token(tmp_path):
    rng = random.Random(2)
    jsonl(
        tmp_path / "in" / "a.jsonl", [" ".join(rng.choices(DOCUMENTS, k=40)) for _ in range(9000)]
    )
    flags = [f"--dataset=jsonl:{tmp_path}/in/*", "--processes=2", "--shard_tokens=1000003"]
    done = forked.run(tmp_path, "prepare", *flags, f"--out_dir={tmp_path}/whole")
    assert done.code == 0, done.stderr
    folder, n_killed = tmp_path / "out", 0
    while not (folder / "manifest.json").exists():
        before = committed(folder)
        command = forked.Command(
            tmp_path, "prepare", *flags, f"--out_dir={folder}", prepare=runs.commit_often
        )
        while command.is_running() and committed(folder) == before:
            time.sleep(0.01)
        if command.is_running():
            time.sleep(rng.random() / 10)
            command.send(signal.SIGKILL)
        n_killed += command.wait().code == -signal.SIGKILL
    assert n_killed > 1
    whole, found = read(tmp_path / "whole"), read(folder)
    assert whole[0]["shards"] == found[0]["shards"]


@pytest.mark.slow
def test_ctrl_c_says_so_and_no_more(tmp_path):
    jsonl(tmp_path / "in" / "a.jsonl", [" ".join(DOCUMENTS)] * 5_000)
    folder, program = tmp_path / "out", tmp_path / "program.py"
    program.write_text(  # Slowly, so that it cannot be done before the signal comes.
        "import runpy, signal, sys\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)  # nohup ignores it.\n"
        f"    sys.path.append({str(Path(runs.__file__).parent)!r})\n"
        "    import runs\n"
        "    runs.commit_often()\n"
        f"    runpy.run_path({str(forked.SCRIPTS / 'prepare.py')!r}, run_name='__main__')\n"
    )
    command = [sys.executable, program, f"--dataset=jsonl:{tmp_path}/in/*", f"--out_dir={folder}"]
    with subprocess.Popen([*command, "--processes=2"], stderr=subprocess.PIPE, text=True) as child:
        while not committed(folder) and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        # To its end, when the processes that it started are gone, too.
        said = child.stderr.read().splitlines()
    assert child.returncode == 130
    assert said[-1] == "gptjax: interrupted" and "resource_tracker" not in str(said)


# Bad input.


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"text": "a"}\n{"text": \n', "a.jsonl, line 2; is not JSON."),
        ('{"text": "a"}\n' * 20 + "\n\n[1]\n", "line 23; must be an object with a text called"),
        ('{"text": "a"}\n{"body": "b"}', "line 2; must be an object with a text called 'text'. N"),
        ('{"text": 7}', "line 1; must be an object with a text called 'text'."),
        ('{"text": "\\ud800"}', "line 1; has half of a surrogate pair, which is no text."),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path, lines, message):
    (tmp_path / "a.jsonl").write_text(lines + '\n{"text": "b"}' * 9)
    with pytest.raises(UserError, match=re.escape(message)):
        prepared(tmp_path / "out", f"jsonl:{tmp_path}/a.jsonl")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("found", [["all"], []])
def test_too_few_documents_are_refused(tmp_path, found):
    jsonl(tmp_path / "a.jsonl", found)
    with pytest.raises(UserError, match="--val_fraction: 0.2; leaves no document for"):
        prepared(tmp_path / "out", f"jsonl:{tmp_path}/a.jsonl")


def test_a_line_of_val_is_numbered_as_in_its_file(tmp_path):
    jsonl(tmp_path / "a.jsonl")
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write("no JSON\n")
    with pytest.raises(UserError, match="line 98; is not JSON"):
        prepared(tmp_path / "out", f"jsonl:{tmp_path}/a.jsonl")


def test_documents_without_text_are_left_out_and_counted(tmp_path, capsys):
    jsonl(tmp_path / "a.jsonl", ["one", "", "two", "", "three", *"abcd"])
    manifest, ids, _ = prepared(tmp_path / "out", f"jsonl:{tmp_path}/a.jsonl")
    both = np.concatenate([ids["train"], ids["val"]])
    assert written(manifest, both) == "\n\n".join(["one", "two", "three", *"abcd", ""])
    assert "2 documents had no text and were left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(dataset="jsonl:nowhere/*"), "--dataset: jsonl:nowhere/*; there is no such file."),
        (dict(tokenizer="bpe:x"), "--tokenizer: bpe:x; must be char, gpt2, a path or bpe:N"),
        (dict(val_fraction=0.0), "--val_fraction: 0.0; must be in (0, 1)."),
        (dict(shard_tokens=0), "--shard_tokens: 0; must be ≥ 1."),
        (dict(dataset="gptjax_no_such_set"), "gptjax_no_such_set; unknown dataset"),
    ],
)
def test_what_cannot_be_prepared_is_refused(tmp_path, changes, message):
    jsonl(tmp_path / "a.jsonl")
    dataset = changes.pop("dataset", f"jsonl:{tmp_path}/a.jsonl")
    with pytest.raises(UserError, match=re.escape(message)):
        prepared(tmp_path / "out", dataset, **changes)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_work_is_refused(tmp_path, monkeypatch):
    jsonl(tmp_path / "a.jsonl")
    dataset = f"jsonl:{tmp_path}/a.jsonl"
    monkeypatch.setattr("gptjax.data.preparation._COMMIT_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("gptjax.data.preparation.Preparation._finish", _killed)
        with pytest.raises(Killed):
            prepared(tmp_path / "out", dataset)
    with pytest.raises(UserError, match="was begun with --val_fraction 0.2. Give --val_fraction"):
        prepared(tmp_path / "out", dataset, val_fraction=0.3)
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write('{"text": "more"}')
    with pytest.raises(UserError, match="a.jsonl has changed since. Choose another"):
        prepared(tmp_path / "out", dataset)
    (tmp_path / "out" / STATE).write_text("{")
    with pytest.raises(UserError, match=f"{STATE}; cannot be read"):
        prepared(tmp_path / "out", dataset)
    jsonl(tmp_path / "b.jsonl")
    prepared(tmp_path / "whole", f"jsonl:{tmp_path}/b.jsonl")
    with pytest.raises(UserError, match="--out_dir: .*whole; is prepared already"):
        prepared(tmp_path / "whole", f"jsonl:{tmp_path}/b.jsonl")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(UserError, match="used; is not empty"):
        prepared(tmp_path / "used", f"jsonl:{tmp_path}/b.jsonl")


def _killed(*arguments):
    raise Killed


def test_packed_files_that_are_cut_short_are_named(tmp_path):
    raw = gzip.compress(json.dumps({"text": "words " * 500}).encode() * 9)
    (tmp_path / "a.jsonl.gz").write_bytes(raw[:-20])
    with pytest.raises(UserError, match="a.jsonl.gz; is cut short or damaged"):
        prepared(tmp_path / "out", f"jsonl:{tmp_path}/*.gz")
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip at all")
    with pytest.raises(UserError, match="a.jsonl.gz; is cut short or damaged"):
        prepared(tmp_path / "out", f"jsonl:{tmp_path}/*.gz")


def test_zstandards_frames_are_read_and_a_cut_one_is_named(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    lines = [json.dumps({"text": text}).encode() + b"\n" for text in DOCUMENTS]
    frames = [zstandard.compress(b"".join(lines[:50])), zstandard.compress(b"".join(lines[50:]))]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames))
    jsonl(tmp_path / "b" / "a.jsonl")
    found = prepared(tmp_path / "out", f"jsonl:{tmp_path}/*.zst")
    (tmp_path / "plain.jsonl").write_bytes(b"".join(lines))
    assert (
        found[0]["shards"] == prepared(tmp_path / "o", f"jsonl:{tmp_path}/plain.jsonl")[0]["shards"]
    )
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(frames)[:-9])
    with pytest.raises(UserError, match="a.jsonl.zst; is cut short or damaged: it ends within a f"):
        prepared(tmp_path / "cut", f"jsonl:{tmp_path}/*.zst")


def test_a_vocabulary_of_more_than_16_bits_makes_shards_of_32(tmp_path):
    symbols = "".join(chr(point) for point in range(0x10000, 0x10000 + 65_600))
    (tmp_path / "a.txt").write_text("a b " + symbols + " c" * 40_000)
    manifest, ids, _ = prepared(tmp_path / "out", f"text:{tmp_path}/a.txt", shard_tokens=50_000)
    assert manifest["dtype"] == "uint32" and ids["train"].max() == 65_603
    assert manifests.read(tmp_path / "out").tokenizer == CharTokenizer(" abc" + symbols)
