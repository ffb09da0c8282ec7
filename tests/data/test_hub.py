"""The Hugging Face hub: asked by its own library, and one line where it cannot be."""

import http.server
import json
import os
import subprocess
import sys
import threading
import types

import pytest

from gptjax.data import hub
from gptjax.data.datasets import Offline
from gptjax.system.errors import UserError


class Errors(types.ModuleType):
    class LocalEntryNotFoundError(Exception):
        pass

    class HFValidationError(Exception):
        pass

    class RepositoryNotFoundError(Exception):
        pass


NAMED = dict(flag="init_from", value="gpt2:x", otherwise="Give its folder.")


@pytest.fixture
def library(monkeypatch, tmp_path):
    """As much of huggingface_hub as is called; `asked` is what snapshot_download was given."""
    made = types.ModuleType("huggingface_hub")
    made.errors = Errors("huggingface_hub.errors")
    made.constants = types.ModuleType("huggingface_hub.constants")
    made.constants.HF_HUB_OFFLINE, made.constants.ENDPOINT = False, "https://hub"
    made.asked, made.outcome = [], tmp_path

    def snapshot_download(repository, **settings):
        made.asked.append((repository, settings))
        if isinstance(made.outcome, Exception):
            raise made.outcome
        return str(made.outcome)

    made.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    for part in (made.errors, made.constants):
        monkeypatch.setitem(sys.modules, part.__name__, part)
    monkeypatch.setattr(hub, "probe", lambda url: None)
    return made


def folder_of(repository="openai-community/gpt2"):
    return hub.folder_of(repository, ("config.json",), **NAMED)


def test_a_repository_is_fetched_into_a_folder(library, tmp_path):
    assert folder_of() == tmp_path
    settings = {"allow_patterns": ["config.json"], "local_files_only": False}
    assert library.asked == [("openai-community/gpt2", settings)]


def refuse(url):
    assert url == "https://hub"
    raise Offline("no answer within 3 s")


def test_without_a_network_the_cache_is_asked_and_then_one_line(library, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "probe", refuse)
    assert folder_of() == tmp_path
    assert library.asked[0][1]["local_files_only"] is True
    library.outcome = Errors.LocalEntryNotFoundError("cannot find")
    words = r"init_from: gpt2:x; the Hugging Face hub cannot be reached \(no answer within 3 s\)\."
    with pytest.raises(UserError, match=words + ".* Give its folder"):
        folder_of()


def test_offline_by_its_own_setting_is_respected(library, monkeypatch):
    monkeypatch.setattr(hub, "probe", refuse)
    library.constants.HF_HUB_OFFLINE = True
    library.outcome = Errors.LocalEntryNotFoundError("cannot find")
    with pytest.raises(UserError, match=r"cannot be reached \(HF_HUB_OFFLINE is set\)"):
        folder_of()


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Errors.RepositoryNotFoundError("404"), "is neither a folder here nor a repository"),
        (Errors.HFValidationError("bad id"), "is neither a folder here nor a repository"),
        (OSError("disk\n full"), "cannot be fetched from the Hugging Face hub: disk full"),
    ],
)
def test_what_goes_wrong_is_one_line(library, outcome, words):
    library.outcome = outcome
    with pytest.raises(UserError, match=words):
        folder_of()


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[hub\]"\. Give its folder'):
        folder_of()


COMMIT, ETAG = "0" * 40, "1" * 40

CODE = """
import sys; from gptjax.data import hub
names = dict(flag="init_from", value="gpt2:x", otherwise="Give its folder.")
print((hub.folder_of(sys.argv[1], ["vocab.json"], **names) / "vocab.json").read_text())
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """Has one repository with one file."""

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(has_body=False)

    def do_GET(self, has_body=True):
        names, body = ("vocab.json", "weights.bin"), b'{"a":0}'
        if "/tree/" in self.path:
            one = dict(type="file", oid=ETAG, size=len(body))
            body = json.dumps([one | {"path": name} for name in names]).encode()
        elif self.path.startswith("/api/"):
            files = [{"rfilename": name} for name in names]
            body = json.dumps({"id": "a/b", "sha": COMMIT, "siblings": files}).encode()
        is_there = self.path == "/" or "/a/b/" in self.path and "weights" not in self.path
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{ETAG}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if has_body:
            self.wfile.write(body)


@pytest.fixture
def endpoint():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def asked(repository, endpoint, folder):
    """A process whose hub is there: what the library imports by itself is not there yet."""
    pytest.importorskip("huggingface_hub")
    names = {name: value for name, value in os.environ.items() if "PROXY" not in name.upper()}
    names |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder)}
    command = [sys.executable, "-c", CODE, repository]
    return subprocess.run(command, env=names, capture_output=True, text=True, timeout=60)


# Nothing listens on the discard port.
NOWHERE = "http://127.0.0.1:9"


@pytest.mark.slow
def test_a_file_is_fetched_once_and_then_found_without_a_network(endpoint, tmp_path):
    words = "the Hugging Face hub cannot be reached"
    assert words in asked("a/b", NOWHERE, tmp_path).stderr.splitlines()[-1]
    for where in (endpoint, NOWHERE):
        ended = asked("a/b", where, tmp_path)
        assert ended.stdout.strip() == '{"a":0}', ended.stderr


@pytest.mark.slow
def test_what_no_repository_is_called_is_one_line(tmp_path):
    words = "is neither a folder here nor a repository of the Hugging Face hub"
    assert words in asked("a..b", NOWHERE, tmp_path).stderr.splitlines()[-1]
