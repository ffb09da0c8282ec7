"""The character tokenizer, against a dict from symbol to rank; and ids written as numbers."""

import json
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.data.tokenizer import CharTokenizer, IdTokenizer, from_json
from gptjax.system.errors import UserError

# A byte order mark, NUL, both line ends, an accent as one character and as two, and characters of
# every UTF-8 length. U+FF5E precedes the emoji by code point but follows its UTF-16 surrogates.
AWKWARD = "\ufeffa\x00b\r\nc\rd\n\u00e9 e\u0301 \uff5e\U0001f600\U0010ffff"


def first_symbols(n):
    """The first n code points that UTF-8 can hold."""
    return "".join(chr(point) for point in range(n + 2048) if not 0xD800 <= point < 0xE000)[:n]


def test_ids_follow_the_code_points_order():
    text = AWKWARD + "To be, or not to be"
    id_of = {symbol: rank for rank, symbol in enumerate(sorted(set(text), key=ord))}
    tokenizer = CharTokenizer.of_text(text)
    assert tokenizer.vocab_size == len(id_of)
    np.testing.assert_array_equal(tokenizer.encode(text), [id_of[symbol] for symbol in text])
    assert [tokenizer.decode([i]) for i in range(len(id_of))] == list(id_of)


def test_ids_of_a_word_counted_by_hand():
    # Sorted: newline, "a", "b", "n".
    ids = CharTokenizer.of_text("banana\n").encode("banana\n")
    np.testing.assert_array_equal(ids, [2, 1, 3, 1, 3, 1, 0])


@settings(deadline=None)
@given(st.text(min_size=1))
@example(AWKWARD)
@example("\r\n")
@example("\x00")
@example("\ud800 a half of a pair")
def test_text_comes_back_as_it_was(text):
    tokenizer = CharTokenizer.of_text(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.shape == (len(text),)
    assert sorted(set(ids.tolist())) == list(range(tokenizer.vocab_size))


@settings(deadline=None)
@given(st.text(alphabet="abcXYZ \n", min_size=0), st.text(min_size=1))
def test_another_text_in_the_same_vocabulary_comes_back(text, more):
    tokenizer = CharTokenizer.of_text("abcXYZ \n" + more)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("n_symbols", "dtype"),
    [
        (1, np.uint8),
        (256, np.uint8),
        (257, np.uint16),
        (65_536, np.uint16),
        (65_537, np.uint32),
    ],
)
def test_ids_have_the_smallest_dtype_that_holds_them(n_symbols, dtype):
    symbols = first_symbols(n_symbols)
    tokenizer = CharTokenizer.of_text(symbols)
    ids = tokenizer.encode(symbols[-1] + symbols[0])
    assert tokenizer.vocab_size == n_symbols
    assert ids.dtype == dtype
    np.testing.assert_array_equal(ids, [n_symbols - 1, 0])


@pytest.mark.parametrize("text", ["banana\n", AWKWARD, "\x00", first_symbols(300)])
def test_json_gives_an_equal_tokenizer(text):
    tokenizer = CharTokenizer.of_text(text)
    stored = json.loads(json.dumps(tokenizer.to_json()))
    restored = from_json(stored)
    assert restored == tokenizer
    np.testing.assert_array_equal(restored.encode(text), tokenizer.encode(text))


def test_json_format_of_stored_checkpoints():
    assert CharTokenizer.of_text("cab").to_json() == {"kind": "char", "symbols": "abc"}


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {"kind": "BPE", "symbols": "abc"},
            "tokenizer: BPE; must be of kind 'char', 'bpe' or 'ids'.",
        ),
        ({"symbols": "abc"}, "tokenizer: None; must be of kind 'char', 'bpe' or 'ids'."),
        ({}, "tokenizer: None; must be of kind 'char', 'bpe' or 'ids'."),
        ({"kind": "char"}, "tokenizer: None; must be distinct symbols in order."),
        ({"kind": "char", "symbols": ""}, "tokenizer: ''; must be distinct symbols in order."),
        ({"kind": "char", "symbols": "ba"}, "tokenizer: 'ba'; must be distinct symbols in order."),
        ({"kind": "char", "symbols": "aab"}, "'aab'; must be distinct symbols in order."),
        ({"kind": "char", "symbols": ["a", "b"]}, "['a', 'b']; must be distinct symbols in order."),
        ({"kind": "char", "symbols": 7}, "tokenizer: 7; must be distinct symbols in order."),
        ({"kind": ["ids"]}, "tokenizer: ['ids']; must be of kind 'char', 'bpe' or 'ids'."),
        ({"kind": "ids"}, "tokenizer: None; must have 1 to 2147483648 ids."),
        ({"kind": "ids", "vocab_size": 0}, "tokenizer: 0; must have 1 to 2147483648 ids."),
        ({"kind": "ids", "vocab_size": 2**31 + 1}, "2147483649; must have 1 to 2147483648 ids."),
        ({"kind": "ids", "vocab_size": True}, "tokenizer: True; must have 1 to 2147483648 ids."),
        ({"kind": "ids", "vocab_size": 5.0}, "tokenizer: 5.0; must have 1 to 2147483648 ids."),
    ],
)
def test_a_description_that_is_not_one_is_refused(stored, message):
    with pytest.raises(UserError, match=re.escape(message)):
        from_json(stored)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("abé", "'é' (U+00E9 LATIN SMALL LETTER E WITH ACUTE)"),
        ("😀é", "'😀' (U+1F600 GRINNING FACE)"),  # The first of two, and above every known one.
        ("\x00", "'\\x00' (U+0000 unnamed)"),  # Below every known one.
        ("a\ud800", "'\\ud800' (U+D800 unnamed)"),  # A prompt that was not UTF-8 holds such.
    ],
)
def test_an_unknown_character_is_named(text, named):
    tokenizer = CharTokenizer.of_text("abz")
    with pytest.raises(UserError) as error:
        tokenizer.encode(text, what="prompt")
    assert str(error.value) == f"prompt: {named}; is not in the 3-symbol vocabulary. Known: 'abz'"


def test_no_text_is_no_tokens():
    tokenizer = CharTokenizer.of_text("ab")
    assert tokenizer.encode("").shape == (0,)
    assert tokenizer.decode(tokenizer.encode("")) == ""


def test_bytes_per_token():
    # UTF-8 takes 1 byte up to U+007F, 2 up to U+07FF, 3 up to U+FFFF, 4 beyond.
    symbols = "\x00a\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff"
    tokenizer = CharTokenizer.of_text(symbols)
    np.testing.assert_array_equal(tokenizer.bytes_per_token, [1, 1, 1, 2, 2, 3, 3, 4, 4])


def test_bytes_of_the_tokens_sum_to_the_files_size():
    tokenizer = CharTokenizer.of_text(AWKWARD)
    text = AWKWARD[::-1] + AWKWARD[3:8]
    n_bytes = tokenizer.bytes_per_token[tokenizer.encode(text)].sum()
    assert n_bytes == len(text.encode("utf-8"))


# Ids as numbers.


def test_ids_are_read_and_written_as_numbers():
    tokenizer = IdTokenizer(901)
    ids = tokenizer.encode(" 12 5\n900\t0007 ")
    np.testing.assert_array_equal(ids, [12, 5, 900, 7])
    assert ids.dtype == np.uint16
    # Pieces of a text are written one after the other.
    assert "3" + tokenizer.decode(ids[:2]) + tokenizer.decode(ids[2:]) == "3 12 5 900 7"
    assert tokenizer.default_prompt == "900"
    assert (tokenizer.unit, tokenizer.bytes_per_token) == ("token", None)


@pytest.mark.parametrize("n_ids", [1, 50_257, 65_536])
def test_every_id_comes_back(n_ids):
    tokenizer = from_json(json.loads(json.dumps(IdTokenizer(n_ids).to_json())))
    assert tokenizer == IdTokenizer(n_ids)
    np.testing.assert_array_equal(tokenizer.encode(tokenizer.decode(range(n_ids))), range(n_ids))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("12 900", "'900'"),
        ("-1", "'-1'"),
        ("1.0", "'1.0'"),
        ("1e2", "'1e2'"),
        ("1_0", "'1_0'"),
        ("\u0663", "'\u0663'"),  # A digit, but not of ours.
        ("\u00b2", "'\u00b2'"),
        ("ROMEO: 7", "'ROMEO:'"),
        ("9" * 5000, "'" + "9" * 21),
        ("", "''"),
        (" \n", "''"),
    ],
)
def test_what_is_no_id_is_named(text, word):
    with pytest.raises(UserError) as error:
        IdTokenizer(900).encode(text, what="prompt")
    rule = "is no token id; ids are 0 to 899. Write them as numbers with spaces between: 12 5 900."
    assert str(error.value) == f"prompt: {word}; {rule}"


def test_the_known_part_of_a_text_and_what_is_not_in_it():
    characters, ids = CharTokenizer.of_text("abc"), IdTokenizer(900)
    assert characters.known_part("cxabÉx") == ("cab", ["x", "É"])
    assert characters.known_part("") == ("", []) and characters.known_part("z") == ("", ["z"])
    assert ids.known_part(" 12 900 5\nROMEO: 12 -1") == ("12 5 12", ["-1", "900", "ROMEO:"])
    for tokenizer, text in ((characters, "cab"), (ids, "12 5 899")):
        assert tokenizer.known_part(text) == (text, [])
