"""The Hugging Face hub: asked by its own library, and one line where it cannot be."""

import os
import sys
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
    return hub.folder_of(repository, ("config.json",), flag="init_from", value="gpt2:x")


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
    with pytest.raises(UserError, match=words + ".* gpt2:PATH"):
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
    with pytest.raises(UserError, match=r'pip install -e "\.\[hub\]", or give a folder'):
        folder_of()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("repository", "words"),
    [
        ("openai-community/gpt2", "the Hugging Face hub cannot be reached"),
        ("a..b", "is neither a folder here nor a repository of the Hugging Face hub"),
    ],
)
def test_the_real_library_gives_up_within_seconds(tmp_path, repository, words):
    """In a process of its own: what it imports by itself is not there yet."""
    import subprocess

    pytest.importorskip("huggingface_hub")
    code = (
        "import sys; from gptjax.data import hub; "
        "hub.folder_of(sys.argv[1], ['config.json'], flag='init_from', value='gpt2:x')"
    )
    # Nothing listens on the discard port.
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code, repository]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert words in ended.stderr.splitlines()[-1]
