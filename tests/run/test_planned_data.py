"""A corpus as it is here, or as a plan assumes it."""

import pytest
import tiny

from gptjax.data import datasets
from gptjax.run.planned_data import planned_data
from gptjax.system.errors import UserError


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    """No corpus, and no network that anything may reach for."""
    monkeypatch.setenv("GPTJAX_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))

    def refuse(*arguments, **settings):
        raise AssertionError("a plan reached for a download")

    for name in ("probe", "shakespeare_builder_text", "tfds_text"):
        monkeypatch.setattr(datasets, name, refuse)


def test_a_text_that_is_here(tmp_path):
    file = tmp_path / "cats.txt"
    file.write_text(tiny.TEXT)
    found = planned_data(tiny.config(data__source=f"text:{file}"))
    assert sum(found.n_tokens.values()) == len(tiny.TEXT)
    assert found.n_symbols == len(set(tiny.TEXT))
    assert found.inputs.n_tokens == found.n_tokens and found.source == "read: text:cats.txt"


def test_a_text_too_short_for_a_window_is_planned_with_random_tokens(tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("abc" * 20)
    found = planned_data(tiny.config(data__source=f"text:{file}"))
    assert found.n_tokens == {"train": 54, "val": 6}
    assert found.inputs.n_tokens["val"] > 7


def test_shakespeares_size_is_known_before_it_is_here(nothing_here):
    found = planned_data(tiny.config(data__source="tiny_shakespeare"))
    assert found.n_tokens == {"train": 1_003_854, "val": 111_540}
    assert found.n_symbols == 65 and found.bytes_per_token == 1


@pytest.mark.parametrize(
    ("source", "n_symbols"), [("tokens:data/openwebtext", 50_257), ("tfds:lm1b", 65)]
)
def test_what_is_not_here_is_assumed_and_said(nothing_here, source, n_symbols):
    found = planned_data(tiny.config(data__source=source))
    assert found.n_symbols == n_symbols and found.n_tokens == {"train": 0, "val": 0}
    assert f"{n_symbols:,} symbols" in found.source and source in found.source
    ids = found.inputs.splits.train
    assert found.inputs.tokenizer.vocab_size == n_symbols > ids.max() > 0.99 * n_symbols - 2


@pytest.mark.parametrize(("tokenizer", "n_symbols"), [("bpe:512", 512), ("gpt2", 50_257)])
def test_a_tokenizers_symbols_are_known_before_the_text_is_here(nothing_here, tokenizer, n_symbols):
    found = planned_data(tiny.config(data__source="text:no.txt", data__tokenizer=tokenizer))
    assert found.n_symbols == n_symbols and found.n_tokens["train"] == 0


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="unknown dataset"):
        planned_data(tiny.config(data__source="lm1b"))
