"""Where Tiny Shakespeare is; no test here has the real one, whose sha256 is exchanged."""

import hashlib

import pytest

from gptjax.data import corpus, datasets, whereabouts
from gptjax.data.whereabouts import Whereabouts

TEXT = b"First Citizen:\nBefore we proceed any further\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder, no copy of TFDS's, no network, and a text that counts as Shakespeare's."""
    monkeypatch.setenv("GPTJAX_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(corpus, "SHAKESPEARE_SHA256", hashlib.sha256(TEXT).hexdigest())
    monkeypatch.setattr(datasets, "probe", lambda url: pytest.fail("the network was asked"))
    (tmp_path / "tiny_shakespeare").mkdir()
    return tmp_path


def test_a_copy_that_is_whole(folder):
    path = folder / "tiny_shakespeare" / "input.txt"
    path.write_bytes(TEXT)
    assert whereabouts.tiny_shakespeare() == Whereabouts(str(path), "")


def test_a_copy_that_is_not(folder):
    path = folder / "tiny_shakespeare" / "input.txt"
    path.write_bytes(TEXT[:-1])
    found = whereabouts.tiny_shakespeare()
    assert found.where == str(path) and "sha256 mismatch" in found.problem


def test_none(folder, monkeypatch):
    assert whereabouts.tiny_shakespeare() == Whereabouts("", "")
    monkeypatch.delenv("GPTJAX_DATA_DIR")
    assert whereabouts.tiny_shakespeare() == Whereabouts("", "")


def test_what_tfds_prepared_is_found(folder, monkeypatch):
    prepared = folder / "tfds" / "gptjax_tiny_shakespeare" / "1.0.0"
    prepared.mkdir(parents=True)
    monkeypatch.setattr(corpus, "shakespeare_builder_text", lambda *arguments: TEXT)
    assert whereabouts.tiny_shakespeare() == Whereabouts(str(prepared), "")


def test_the_network(monkeypatch):
    def refuse(url):
        assert url == corpus.SHAKESPEARE_URL
        raise datasets.Offline("no answer within 3 s")

    monkeypatch.setattr(datasets, "probe", refuse)
    assert whereabouts.unreachable() == "no answer within 3 s"
    monkeypatch.setattr(datasets, "probe", lambda url: None)
    assert whereabouts.unreachable() == ""
