"""The Hugging Face hub: asked by its own library, and one line where it cannot be."""

import sys
import time
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
    made.constants = types.SimpleNamespace(HF_HUB_OFFLINE=False, ENDPOINT="https://hub")
    made.asked, made.outcome = [], tmp_path

    def snapshot_download(repository, **settings):
        made.asked.append((repository, settings))
        if isinstance(made.outcome, Exception):
            raise made.outcome
        return str(made.outcome)

    made.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", made)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", made.errors)
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
def test_the_real_library_gives_up_within_seconds(monkeypatch, tmp_path):
    real = pytest.importorskip("huggingface_hub")
    # Nothing listens on the discard port.
    monkeypatch.setattr(real.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(real.constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(UserError, match="the Hugging Face hub cannot be reached"):
        folder_of()
    assert time.monotonic() - start < 20
    monkeypatch.setattr(hub, "probe", lambda url: None)
    with pytest.raises(UserError, match="the Hugging Face hub|cannot be fetched"):
        folder_of("no:such name")
