"""How a text is split, and what is too short."""

import ml_collections
import numpy as np
import pytest

from gptjax.data import corpus, splits, texts
from gptjax.data.tokenizer import CharTokenizer
from gptjax.system.errors import UserError


def split_of(text, val_fraction, log_probs=None):
    settings = ml_collections.ConfigDict({"val_fraction": val_fraction})
    tokenizer = CharTokenizer.of_text(text)
    return splits.split(
        corpus.Corpus("text:x", texts.in_memory("x", text.encode()), log_probs), tokenizer, settings
    )


@pytest.mark.parametrize(
    ("n_characters", "val_fraction", "n_train"),
    [
        (1_009, 0.1, 908),  # nanoGPT: int(1009 * 0.9)
        (1_115_394, 0.1, 1_003_854),  # What nanoGPT's prepare.py prints for Tiny Shakespeare.
        (13, 0.1, 11),
        (101, 0.25, 75),
        (7, 0.5, 3),
    ],
)
def test_the_first_characters_train_and_the_rest_validates(n_characters, val_fraction, n_train):
    text = ("banana, \r\n" * (n_characters // 10 + 1))[:n_characters]
    id_of = {symbol: rank for rank, symbol in enumerate(sorted(set(text)))}
    made = split_of(text, val_fraction)
    np.testing.assert_array_equal(made.train, [id_of[symbol] for symbol in text[:n_train]])
    np.testing.assert_array_equal(made.val, [id_of[symbol] for symbol in text[n_train:]])
    assert made.floor_nats is None


def test_the_floor_is_that_of_the_validation_split():
    probabilities = np.array([0.5] * 7 + [0.25, 0.125, 0.0625])
    made = split_of("abcabcabca", 0.3, np.log(probabilities))
    # The last three characters: (2 + 3 + 4) / 3 bits.
    assert made.floor_nats == pytest.approx(3 * np.log(2))


def test_a_text_with_a_character_the_tokenizer_lacks_is_refused():
    settings = ml_collections.ConfigDict({"val_fraction": 0.1})
    found = corpus.Corpus("text:x", texts.in_memory("x", b"abc"))
    with pytest.raises(UserError, match=r"corpus text:x: 'c' \(U\+0063 LATIN SMALL LETTER C\)"):
        splits.split(found, CharTokenizer.of_text("ab"), settings)


@pytest.mark.parametrize(
    ("n_train", "n_val", "message"),
    [
        (8, 8, ""),  # Exactly seven inputs and a target.
        (7, 8, "model.block_size: 7; needs 8 tokens; train has 7. Lower block_size or add text."),
        (
            8,
            7,
            "model.block_size: 7; needs 8 tokens; val has 7. Lower block_size, add text "
            "or, unless it is in token files, raise --config.data.val_fraction.",
        ),
        (1, 0, "model.block_size: 7; needs 8 tokens; train has 1. Lower block_size or add text."),
        (
            90,
            0,
            "model.block_size: 7; needs 8 tokens; val has 0. Lower block_size, add text "
            "or, unless it is in token files, raise --config.data.val_fraction.",
        ),
    ],
)
def test_each_split_must_hold_a_window(n_train, n_val, message):
    made = splits.Splits(np.zeros(n_train, np.uint8), np.zeros(n_val, np.uint8), None)
    if not message:
        splits.check_lengths(made, 7)
    else:
        with pytest.raises(UserError) as error:
            splits.check_lengths(made, 7)
        assert str(error.value) == message


def test_of_bpe_the_text_is_cut_before_it_is_tokens_and_the_floor_is_the_text_s():
    """A merge over the cut is none, and val has as many nats as its characters, in fewer tokens."""
    text = "abababab abababab "
    log_probs = -np.arange(1.0, 1 + len(text))
    found = corpus.Corpus("synthetic", texts.in_memory("x", text.encode()), log_probs)
    settings = ml_collections.ConfigDict({"val_fraction": 0.3, "tokenizer": "bpe:259"})
    made = splits.tokenizer(found, settings)
    both = splits.split(found, made, settings)
    n_train = int(len(text) * 0.7)
    assert made.decode(both.train) == text[:n_train] == "abababab aba"
    assert made.decode(both.val) == text[n_train:]
    assert len(both.val) < len(text) - n_train
    assert both.floor_nats == pytest.approx(-log_probs[n_train:].sum() / len(both.val))


def test_a_bpe_is_trained_on_what_is_not_val_and_characters_are_of_all():
    settings = ml_collections.ConfigDict({"val_fraction": 0.5, "tokenizer": "bpe:258"})
    found = corpus.Corpus("text:x", texts.in_memory("x", ("abab" * 5 + "cdcd" * 5).encode()))
    assert "ab" in splits.tokenizer(found, settings).tokens.split("\n")
    settings.tokenizer = "char"
    assert splits.tokenizer(found, settings).symbols == "abcd"
