"""Where the text comes from: files, TFDS, a local web server, and what happens without them."""

import errno
import hashlib
import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import ml_collections
import numpy as np
import pytest
import tensorflow_datasets as tfds

from gptjax.data import corpus, datasets, splits, texts
from gptjax.data.synthetic import write_play
from gptjax.data.tokenizer import CharTokenizer
from gptjax.system.errors import UserError

# The fixture below hides the variable, so that no test reads the user's data by accident.
DATA_DIR = os.environ.get("GPTJAX_DATA_DIR", "")

# A byte order mark, both line ends, NUL and characters of two and four bytes.
RAW = "\ufeffFirst Citizen:\r\nBefore we proceed,\x00 h\u00e9ar me \U0001f600\n".encode() * 101
SHA256 = hashlib.sha256(RAW).hexdigest()
OTHER_SHA256 = hashlib.sha256(b"another text").hexdigest()


@pytest.fixture(autouse=True)
def tfds_folder(tmp_path, monkeypatch):
    """TFDS's data folder, empty; no proxy is asked, and nothing may import TensorFlow."""
    folder = tmp_path / "tensorflow_datasets"
    # TFDS reads TFDS_DATA_DIR when it is imported; the variable is for child processes.
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    monkeypatch.delenv("GPTJAX_DATA_DIR", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    # TFDS leaves an empty temporary folder for every builder.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # Left alone, TFDS asks ten times over minutes: a test that fails should do so at once.
    monkeypatch.setattr("tensorflow_datasets.core.download.downloader.MAX_RETRIES", 1)
    yield folder
    assert "tensorflow" not in sys.modules


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def text_of(found):
    """All of a corpus's text."""
    return "".join(found.text.pieces())


def sha256_of_file(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Files named text:PATH.


@pytest.mark.parametrize(
    "raw",
    [
        b"plain\n",
        b"\r\n carriage\rreturns \r\n",
        b"\xef\xbb\xbfa byte order mark",
        b"\x00NUL\x00",
        RAW,
    ],
    ids=["plain", "CRLF", "BOM", "NUL", "all"],
)
def test_a_file_is_read_as_it_stands(tmp_path, raw):
    path = tmp_path / "my play.txt"
    path.write_bytes(raw)
    found = corpus.load(f"text:{path}", fallback="")
    assert text_of(found).encode("utf-8") == raw
    assert found.sha256 == sha256_of_file(path)
    assert (found.name, found.log_probs, found.fallback_reason) == ("text:my play.txt", None, "")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.txt").touch()
    with pytest.raises(UserError, match=r"empty\.txt; is empty \(0 bytes\)"):
        corpus.load(f"text:{tmp_path}/empty.txt", fallback="synthetic")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff", "is not UTF-8 at byte 0 (0xff)"),
        ("né".encode("latin-1"), "is not UTF-8 at byte 1 (0xe9)"),
        ("né ".encode() + b"\x80", "is not UTF-8 at byte 4 (0x80)"),
        ("four letters".encode("utf-16"), "is not UTF-8 at byte 0 (0xff)"),
    ],
)
def test_a_file_that_is_not_utf8_is_refused(tmp_path, raw, message):
    path = tmp_path / "latin.txt"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=re.escape(f"data: {path}; {message}")):
        corpus.load(f"text:{path}", fallback="synthetic")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "nowhere" / "input.txt"
    message = f"data.source: {path}; cannot be read: No such file or directory"
    with pytest.raises(UserError, match=re.escape(message)):
        corpus.load(f"text:{path}", fallback="synthetic")


def test_a_directory_is_refused(tmp_path):
    message = f"data.source: {tmp_path}; cannot be read: Is a directory"
    with pytest.raises(UserError, match=re.escape(message)):
        corpus.load(f"text:{tmp_path}", fallback="synthetic")


@pytest.mark.parametrize("source", ["text:", "TEXT:a.txt", "tokens:"])
def test_a_kind_without_its_name_is_told_how_to_go_on(source):
    kind = source.partition(":")[0].lower()
    with pytest.raises(UserError, match=f"unknown dataset.* Write {kind}: and then what it is"):
        corpus.load(source, fallback="synthetic")


def test_a_data_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setenv("GPTJAX_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(Path, "stat", denied)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(UserError, match="input.txt; cannot be read: Permission denied"):
        corpus.load("tiny_shakespeare", fallback="synthetic")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    path = tmp_path / "secret.txt"
    path.write_bytes(RAW)
    path.chmod(0)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        corpus.load(f"text:{path}", fallback="synthetic")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("tiny_shakspeare", "did you mean 'tiny_shakespeare'?"),
        ("syntetic", "did you mean 'synthetic'?"),
        ("data/input.txt", "For TFDS's: tfds:data/input.txt; for a file: text:data/input.txt."),
        ("text:", "must be one of tiny_shakespeare, text:PATH, tfds:NAME, tokens:DIR, synthetic"),
        ("tfds:", "must be one of tiny_shakespeare, text:PATH, tfds:NAME, tokens:DIR, synthetic"),
        ("tokens:", "must be one of tiny_shakespeare, text:PATH, tfds:NAME, tokens:DIR, synthetic"),
        ("token:out", "unknown dataset"),
    ],
)
def test_an_unknown_source_is_refused(source, hint):
    with pytest.raises(UserError, match=re.escape(f"data.source: {source}; ")) as error:
        corpus.load(source, fallback="synthetic")
    assert hint in str(error.value)


def text_in_memory(text):
    return texts.in_memory("x", text.encode())


def test_a_changed_text_is_noticed():
    found = corpus.Corpus("text:x", text_in_memory(RAW.decode()))
    corpus.check_unchanged(found, SHA256)
    with pytest.raises(UserError, match=f"{SHA256[:16]}….*{OTHER_SHA256[:16]}…"):
        corpus.check_unchanged(found, OTHER_SHA256)


def test_the_synthetic_source():
    found = corpus.load("synthetic", fallback="")
    play = write_play()
    assert (found.name, text_of(found), found.fallback_reason) == ("synthetic", play.text, "")
    assert found.sha256 == hashlib.sha256(play.text.encode()).hexdigest()
    np.testing.assert_array_equal(found.log_probs, play.log_probs)


# Tiny Shakespeare in GPTJAX_DATA_DIR.


def test_the_real_tiny_shakespeare(monkeypatch):
    if not DATA_DIR:
        pytest.skip("set GPTJAX_DATA_DIR to a folder that holds tiny_shakespeare/input.txt")
    monkeypatch.setenv("GPTJAX_DATA_DIR", DATA_DIR)
    found = corpus.load("tiny_shakespeare", fallback="")
    assert (found.name, found.fallback_reason, found.log_probs) == ("tiny_shakespeare", "", None)
    assert found.sha256 == sha256_of_file(Path(DATA_DIR) / "tiny_shakespeare" / "input.txt")
    assert text_of(found).startswith("First Citizen:\nBefore we proceed any further")
    # What nanoGPT's data/shakespeare_char/prepare.py prints.
    tokenizer = CharTokenizer.of_text(text_of(found))
    assert tokenizer.symbols == "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    settings = ml_collections.ConfigDict({"val_fraction": 0.1})
    found_splits = splits.split(found, tokenizer, settings)
    assert (len(found_splits.train), len(found_splits.val)) == (1_003_854, 111_540)


def put_shakespeare(folder, raw, monkeypatch):
    path = folder / "tiny_shakespeare" / "input.txt"
    path.parent.mkdir()
    path.write_bytes(raw)
    monkeypatch.setenv("GPTJAX_DATA_DIR", str(folder))
    return path


def test_the_data_folder_is_searched_first(tmp_path, monkeypatch):
    put_shakespeare(tmp_path, RAW, monkeypatch)
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", SHA256)
    monkeypatch.setattr(datasets, "probe", lambda url: pytest.fail("the network was asked"))
    found = corpus.load("tiny_shakespeare", fallback="")
    assert (found.name, found.sha256) == ("tiny_shakespeare", SHA256)
    assert text_of(found).encode() == RAW


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_copy_with_windows_line_ends_is_told_as_one(tmp_path, monkeypatch, mark):
    text = b"First Citizen:\nBefore we proceed\n"
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(text).hexdigest())
    put_shakespeare(tmp_path, mark + text.replace(b"\n", b"\r\n"), monkeypatch)
    with pytest.raises(UserError, match="its line ends were changed: .* Copy the file as it was"):
        corpus.load("tiny_shakespeare", fallback="synthetic")


@pytest.mark.parametrize("fallback", ["", "synthetic"])
def test_p19_wrong_bytes_in_the_data_folder_are_refused(tmp_path, monkeypatch, fallback):
    path = put_shakespeare(tmp_path, RAW, monkeypatch)
    message = (
        f"data: {path}; sha256 mismatch: got {SHA256}, want "
        # TFDS's checksums.tsv for char-rnn's input.txt.
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed."
    )
    with pytest.raises(UserError, match=re.escape(message)):
        corpus.load("tiny_shakespeare", fallback=fallback)
    assert path.read_bytes() == RAW


# Tiny Shakespeare from a server.


class TextServer(http.server.ThreadingHTTPServer):
    """Serves RAW at any path of 127.0.0.1, or does what its attributes say instead."""

    status = 200
    declares_length = True
    n_bytes_sent = len(RAW)  # After these the connection is closed.
    hangs = False  # After these the connection is left open instead, until `released` is set.

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/input.txt"
        self.requests = []
        self.sent = threading.Event()
        self.released = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    server: TextServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.server.requests.append(self.command)
        self.send_response(self.server.status)
        if self.server.declares_length:
            self.send_header("Content-Length", str(len(RAW)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(RAW[: self.server.n_bytes_sent])
        self.wfile.flush()
        self.server.sent.set()
        if self.server.hangs:
            self.server.released.wait(30)


@pytest.fixture
def server():
    with TextServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def fetch(server, sha256=SHA256):
    return datasets.shakespeare_builder_text(server.url, sha256, len(RAW))


def test_a_download_is_byte_equal_and_done_once(server):
    assert not datasets.prepared_shakespeare().exists()
    assert fetch(server) == RAW
    assert server.requests == ["HEAD", "GET"]
    assert list(datasets.prepared_shakespeare().glob("*.array_record-*"))
    assert fetch(server) == RAW
    assert server.requests == ["HEAD", "GET"]


def test_tiny_shakespeare_comes_from_its_server(server, monkeypatch):
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", server.url)
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", SHA256)
    monkeypatch.setattr(corpus, "SHAKESPEARE_SIZE", len(RAW))
    found = corpus.load("tiny_shakespeare", fallback="synthetic")
    assert (found.name, found.sha256, found.fallback_reason) == ("tiny_shakespeare", SHA256, "")
    assert text_of(found).encode() == RAW


def test_the_checksum_is_that_of_tfds():
    # Beside the code of TFDS's own tiny_shakespeare, which needs TensorFlow to run.
    folder = Path(tfds.__file__).parent / "datasets" / "tiny_shakespeare"
    known = (folder / "checksums.tsv").read_text().split()
    expected = [corpus.SHAKESPEARE_URL, str(corpus.SHAKESPEARE_SIZE), corpus.SHAKESPEARE_SHA256]
    assert known[:3] == expected


# What a second process does: argv is the server's URL, the sha256 and the size.
CHILD = """
import sys
from gptjax.data import corpus
from gptjax.data import datasets
assert "tensorflow_datasets" not in sys.modules
raw = datasets.shakespeare_builder_text(sys.argv[1], sys.argv[2], int(sys.argv[3]))
assert "tensorflow" not in sys.modules
print("sha256", __import__("hashlib").sha256(raw).hexdigest())
"""


def start_child(server):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, server.url, SHA256, str(len(RAW))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_process_without_tensorflow_prepares_the_text_for_the_next(server):
    output, _ = start_child(server).communicate(timeout=60)
    assert f"sha256 {SHA256}" in output
    assert server.requests == ["HEAD", "GET"]
    assert fetch(server) == RAW
    assert server.requests == ["HEAD", "GET"]


def test_p19_a_process_killed_while_downloading_does_no_harm(server, tfds_folder):
    server.hangs, server.n_bytes_sent = True, len(RAW) // 2
    child = start_child(server)
    assert server.sent.wait(60)
    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=60)
    server.hangs, server.n_bytes_sent = False, len(RAW)
    assert fetch(server) == RAW


def test_p19_a_wrong_download_is_refused_and_not_kept(server, tfds_folder):
    with pytest.raises(UserError, match="sha256 mismatch.*nothing was kept") as error:
        fetch(server, sha256=OTHER_SHA256)
    assert server.url in str(error.value)
    assert re.search(f"{OTHER_SHA256}.*{SHA256}", str(error.value))
    assert "\n" not in str(error.value)
    assert server.requests == ["HEAD", "GET"]
    assert files_in(tfds_folder) == []
    # Nor does the next call take it for good.
    with pytest.raises(UserError, match="sha256 mismatch"):
        fetch(server, sha256=OTHER_SHA256)
    assert fetch(server) == RAW


def test_p19_half_a_download_is_not_taken_for_the_text(server, tfds_folder):
    server.n_bytes_sent = len(RAW) // 2
    with pytest.raises(datasets.Offline, match="the download broke off: .*IncompleteRead"):
        fetch(server)
    assert files_in(tfds_folder) == []
    server.n_bytes_sent = len(RAW)
    assert fetch(server) == RAW


def test_half_a_download_of_undeclared_length_is_not_taken_for_the_text(server, tfds_folder):
    server.n_bytes_sent, server.declares_length = len(RAW) // 2, False
    with pytest.raises(UserError, match="sha256 mismatch"):
        fetch(server)
    assert files_in(tfds_folder) == []


def test_a_text_that_has_moved(server, tfds_folder):
    server.status = 404
    with pytest.raises(datasets.Offline, match=f"the download broke off: .*{server.url}.*404"):
        fetch(server)
    assert files_in(tfds_folder) == []
    assert not list(tfds_folder.rglob("*.tmp.*"))


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_in_trouble_is_not_asked_again_and_again(server, status):
    server.status = status
    with pytest.raises(datasets.Offline, match=f"HTTP {status}"):
        fetch(server)
    assert server.requests == ["HEAD"]


def prepared_file(tfds_folder):
    (path,) = tfds_folder.glob("gptjax_tiny_shakespeare/*/*.array_record-*")
    return path


def cut_short(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_byte(path):
    raw = bytearray(path.read_bytes())
    raw[100] ^= 0xFF
    path.write_bytes(raw)


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, flip_a_byte])
def test_a_damaged_copy_is_refused(server, tfds_folder, damage):
    fetch(server)
    path = prepared_file(tfds_folder)
    damage(path)
    message = f"data: {path.parent}; the copy prepared here is damaged. Delete this folder."
    with pytest.raises(UserError, match=re.escape(message)):
        fetch(server)


def test_a_copy_of_another_text_is_refused(server):
    fetch(server)
    with pytest.raises(UserError, match="the copy prepared here is damaged"):
        fetch(server, sha256=OTHER_SHA256)


# Tiny Shakespeare from nowhere.


@pytest.fixture
def offline(monkeypatch):
    """Tiny Shakespeare's address refuses every connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # Bound, never listening: nobody else gets the port.
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/input.txt"
        monkeypatch.setattr(corpus, "SHAKESPEARE_URL", url)
        yield


def test_p19_offline_the_synthetic_corpus_stands_in_under_its_own_name(offline, tfds_folder):
    start = time.monotonic()
    found = corpus.load("tiny_shakespeare", fallback="synthetic")
    assert time.monotonic() - start < 5
    assert found.name == "synthetic"
    assert text_of(found) == write_play().text
    assert found.log_probs is not None
    assert found.fallback_reason.startswith("tiny_shakespeare cannot be downloaded (")
    assert "Connection refused" in found.fallback_reason
    assert files_in(tfds_folder) == []


def test_offline_without_a_fallback_is_an_error(offline):
    with pytest.raises(UserError, match="data.source: tiny_shakespeare; cannot be down") as error:
        corpus.load("tiny_shakespeare", fallback="")
    assert "Put it at $GPTJAX_DATA_DIR/tiny_shakespeare/input.txt." in str(error.value)


def test_an_empty_data_folder_is_passed_over(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("GPTJAX_DATA_DIR", str(tmp_path))
    with pytest.raises(UserError, match="Connection refused"):
        corpus.load("tiny_shakespeare", fallback="")


def test_a_broken_download_falls_back_too(server, monkeypatch):
    server.n_bytes_sent = 5
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", server.url)
    found = corpus.load("tiny_shakespeare", fallback="synthetic")
    assert found.name == "synthetic"
    assert "the download broke off" in found.fallback_reason


def test_a_folder_that_cannot_be_written_falls_back_and_is_named(server, tfds_folder, monkeypatch):
    tfds_folder.touch()  # A file where the folder should be.
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", server.url)
    found = corpus.load("tiny_shakespeare", fallback="synthetic")
    assert found.name == "synthetic"
    assert str(tfds_folder) in found.fallback_reason


def test_a_wrong_download_does_not_fall_back(server, monkeypatch):
    monkeypatch.setattr(corpus, "SHAKESPEARE_URL", server.url)
    with pytest.raises(UserError, match="sha256 mismatch"):
        corpus.load("tiny_shakespeare", fallback="synthetic")


def test_a_silent_host_is_given_up(monkeypatch):
    monkeypatch.setattr(datasets, "_PROBE_SECONDS", 0.3)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # Connections are accepted; no answer ever comes.
        start = time.monotonic()
        with pytest.raises(datasets.Offline, match="timed out|no answer within"):
            datasets.probe(f"http://127.0.0.1:{listener.getsockname()[1]}/input.txt")
        assert time.monotonic() - start < 2


def test_a_silent_name_server_is_given_up(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(datasets, "_PROBE_SECONDS", 0.3)
    # Name resolution has no timeout of its own.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(30) and [])
    start = time.monotonic()
    with pytest.raises(datasets.Offline, match="no answer within"):
        datasets.probe("http://host.invalid/input.txt")
    assert time.monotonic() - start < 2
    released.set()


# TFDS's datasets. A builder is registered when its class is defined.


class GptjaxTwoScenes(tfds.core.GeneratorBasedBuilder):
    """Two splits, whose examples have two texts and a number."""

    VERSION = tfds.core.Version("1.0.0")
    SCENES = {
        "train": ["\ufeffEnter Ghost.\r\n", "Exit\x00 Ghost."],
        "test": ["H\u00e9las! \U0001f600"],
    }

    def _info(self):
        features = {"author": tfds.features.Text(), "n": np.int32, "text": tfds.features.Text()}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(texts) for name, texts in self.SCENES.items()}

    def _generate_examples(self, texts):
        for n, text in enumerate(texts):
            yield n, {"author": "anonymous", "n": n, "text": text}


class GptjaxOnlyTitles(GptjaxTwoScenes):
    """Its text is not called "text", and one is not UTF-8."""

    SCENES = {"train": ["A Comedy", b"Caf\xe9"]}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict({"title": tfds.features.Text()}),
            disable_shuffling=True,
        )

    def _generate_examples(self, texts):
        for n, text in enumerate(texts):
            yield n, {"title": text}


class GptjaxOnlyNumbers(GptjaxTwoScenes):
    def _info(self):
        features = tfds.features.FeaturesDict({"n": np.int32})
        return tfds.core.DatasetInfo(builder=self, features=features)


class GptjaxUnchecked(GptjaxTwoScenes):
    """Downloads a file of which nobody has written down the checksum."""

    def _split_generators(self, dl_manager):
        dl_manager.download("http://127.0.0.1:9/unchecked.txt")
        return super()._split_generators(dl_manager)


class GptjaxNeedsTensorflow(GptjaxTwoScenes):
    def _generate_examples(self, texts):
        yield from import_tensorflow()


class GptjaxNeedsTensorflowAtOnce(GptjaxTwoScenes):
    def _info(self):
        return import_tensorflow()


def import_tensorflow():
    """Fails as `import tensorflow` does where it is not installed."""
    raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")


@pytest.fixture
def tfds_online(monkeypatch):
    """The hosts that TFDS would download from seem to answer; its Google bucket is not asked."""
    monkeypatch.setattr(datasets, "probe", lambda url: None)
    gcs = tfds.core.utils.gcs_utils
    monkeypatch.setattr(gcs, "is_dataset_on_gcs", lambda _: pytest.fail("Google was asked"))


def test_a_tfds_dataset_is_its_texts_with_blank_lines_between(tfds_online, tfds_folder):
    found = corpus.load("tfds:gptjax_two_scenes", fallback="")
    # The train split first, then test.
    expected = "\ufeffEnter Ghost.\r\n\n\nExit\x00 Ghost.\n\nH\u00e9las! \U0001f600"
    assert text_of(found) == expected
    assert found.sha256 == hashlib.sha256(expected.encode()).hexdigest()
    assert (found.name, found.fallback_reason) == ("tfds:gptjax_two_scenes", "")
    assert list(tfds_folder.glob("gptjax_two_scenes/1.0.0/*.array_record-*"))


def test_a_prepared_tfds_dataset_needs_no_network(tfds_online, monkeypatch):
    first = corpus.load("tfds:gptjax_two_scenes:1.0.0", fallback="")
    monkeypatch.setattr(datasets, "probe", lambda url: pytest.fail("the network was asked"))
    assert text_of(corpus.load("tfds:gptjax_two_scenes:1.0.0", fallback="")) == text_of(first)


def test_a_tfds_dataset_that_cannot_be_had(monkeypatch):
    def refuse(url):
        raise datasets.Offline("no route to host")

    monkeypatch.setattr(datasets, "probe", refuse)
    message = "tfds:gptjax_two_scenes; is not prepared here and cannot be had: no route to host."
    with pytest.raises(UserError, match=re.escape(message)):
        corpus.load("tfds:gptjax_two_scenes", fallback="synthetic")


def test_a_tfds_text_that_is_not_utf8_is_refused(tfds_online):
    message = "data: tfds:gptjax_only_titles; is not UTF-8 at byte 13 (0xe9)"
    with pytest.raises(UserError, match=re.escape(message)):
        corpus.load("tfds:gptjax_only_titles", fallback="")


def test_a_tfds_dataset_without_text_is_refused():
    with pytest.raises(UserError, match="tfds:gptjax_only_numbers; has no text feature"):
        corpus.load("tfds:gptjax_only_numbers", fallback="")


def test_a_tfds_download_without_a_checksum_is_refused(tfds_online, tfds_folder):
    message = "data: gptjax_unchecked; cannot be prepared: Missing checksums url: http://127.0.0.1"
    with pytest.raises(UserError, match=message):
        corpus.load("tfds:gptjax_unchecked", fallback="")
    assert files_in(tfds_folder) == []


@pytest.mark.parametrize("name", ["gptjax_needs_tensorflow", "gptjax_needs_tensorflow_at_once"])
def test_a_tfds_dataset_that_needs_tensorflow_names_the_extra(tfds_online, name):
    with pytest.raises(UserError) as error:
        corpus.load(f"tfds:{name}", fallback="")
    message = f"data.source: tfds:{name}; its TFDS builder needs tensorflow. Install it: "
    assert str(error.value) == message + 'pip install -e ".[tfds]"'


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("gptjax_two_scene", " did you mean 'gptjax_two_scenes'?"),
        ("tiny_shakespear", " did you mean 'tiny_shakespeare'?"),
        ("qqqqqqqqqqqq", ""),
    ],
)
def test_an_unknown_tfds_dataset_is_refused(name, hint):
    with pytest.raises(UserError) as error:
        corpus.load(f"tfds:{name}", fallback="synthetic")
    assert str(error.value) == f"data.source: tfds:{name}; unknown dataset.{hint}"


@pytest.mark.parametrize("name", ["gptjax_two_scenes:9.8.7", "gptjax_two_scenes/no_such_config"])
def test_an_unknown_version_or_config_is_refused(name):
    with pytest.raises(UserError, match=f"data.source: tfds:{name}; ") as error:
        corpus.load(f"tfds:{name}", fallback="synthetic")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "lm1b/../lm1b",
        "Lm1b",
        "lm1b lm1b",
        "lm1b\n",
        "huggingface:lm1b",
        "lm1b/config/data_dir=x",
        "gs://bucket/lm1b",
        "*",
    ],
)
def test_a_tfds_name_of_other_characters_is_refused(monkeypatch, name):
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: pytest.fail("TFDS was asked"))
    with pytest.raises(UserError, match=re.escape("a TFDS name is [a-z0-9_]+")):
        corpus.load(f"tfds:{name}", fallback="synthetic")
