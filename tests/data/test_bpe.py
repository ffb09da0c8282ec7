"""Byte-level BPE: token for token what GPT-2's own algorithm gives, and back without loss."""

import functools
import json
import os
import pickle
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tiny
from gpt2_by_hand import GPT2, learnt_merges, symbols_of_bytes
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.data import bpe, bpe_rules, tokenizer, vocabulary_files
from gptjax.data.bpe import BpeTokenizer
from gptjax.data.tokenizer import make_tokenizer
from gptjax.system.errors import UserError

# Read before a test may hide it.
GPT2_FILES = Path(os.environ.get("GPTJAX_DATA_DIR") or "/nowhere", "gpt2")

# What pairs are learnt from: scripts of one to four bytes, code, blanks, emoji.
MIXED = (
    "The cat's hat isn't where they've said it'll be; I'm sure we'd see 1234 of 5678 cats.\n"
    "    def f(x):\n\treturn x[::-1] != 'x'  # 3.14159e-10\n\n\n"
    "Übergrößenträger, naïve façade, ¿dónde está?  Съешь ещё этих мягких французских булок\n"
    "κόσμε हिन्दी में लिखा 世界,你好。 こんにちは世界 안녕하세요 مرحبا بالعالم שלום\n"
    "👩‍👩‍👧‍👦 🏳️‍🌈 😀😀😀 \u00a0\u3000\u2028 e\u0301 ½ ⅷ ٣ \u200d\ufeff\0\x7f\n"
)
TEXT = MIXED * 3 + tiny.TEXT

# Where the pattern is decided: apostrophes, blanks of several kinds, letters, numbers, the rest.
CRITICAL = st.sampled_from(list("'''sSmtdlvre   \n\n\t\r\u00a0\u3000ab1²½é世😀!-_\0\u200d\u0301"))


def is_known_alike(symbol):
    """Characters as old as Unicode 3.2: of younger ones tables of several ages disagree."""
    return unicodedata.ucd_3_2_0.category(symbol) != "Cn"


def by_hand(made):
    """The algorithm by hand, on a tokenizer's vocabulary."""
    vocabulary = {token: number for number, token in enumerate(made.tokens.split("\n"))}
    return GPT2(vocabulary, [tuple(merge.split(" ")) for merge in made.merges.split("\n")])


@functools.cache
def small():
    """A vocabulary of 400, learnt here; all its merges make tokens of their own."""
    made = bpe.train([TEXT], 400)
    assert len({merge.replace(" ", "") for merge in made.merges.split("\n")}) == 400 - 257
    return made, by_hand(made)


@functools.cache
def real():
    """GPT-2's."""
    raw = {name: GPT2_FILES / name for name in ("vocab.json", "merges.txt")}
    merges = raw["merges.txt"].read_text().split("\n")[1:-1]
    pairs = [tuple(merge.split(" ")) for merge in merges]
    found = GPT2(json.loads(raw["vocab.json"].read_text()), pairs)
    return vocabulary_files.read_folder(str(GPT2_FILES)), found


needs_gpt2 = pytest.mark.skipif(
    not GPT2_FILES.is_dir(), reason="GPTJAX_DATA_DIR has no gpt2/vocab.json and merges.txt"
)
VOCABULARIES = [pytest.param(small, id="small"), pytest.param(real, id="gpt2", marks=needs_gpt2)]

TEXTS = st.lists(
    st.one_of(
        st.text(CRITICAL, max_size=12),
        st.text(st.characters(exclude_categories=["Cs"]).filter(is_known_alike), max_size=6),
        st.sampled_from([*MIXED.split(" "), *MIXED.split("\n"), "<|endoftext|>", "'S 'll", "  \n"]),
    ),
    max_size=6,
).map("".join)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@settings(deadline=None, max_examples=80)
@given(text=TEXTS)
@example(text=MIXED)
@example(text="a\n\n\n b  c\t\td \n e'sS 'tis  ")
def test_a_text_has_the_tokens_that_gpt2_s_algorithm_gives(vocabulary, text):
    made, reference = vocabulary()
    ids = made.encode(text)
    assert ids.tolist() == reference.encode(text)
    assert made.decode_bytes(ids) == reference.decode(ids.tolist()) == text.encode()
    assert made.decode(ids) == text


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@settings(deadline=None, max_examples=50)
@given(raw=st.binary(max_size=40))
@example(raw=bytes(range(256)))
def test_every_byte_string_has_tokens_and_comes_back(vocabulary, raw):
    """By its bytes; read as Latin-1, a character each; and with U+FFFD for what is no UTF-8."""
    made, reference = vocabulary()
    ids = reference.ids_of_word(raw)
    assert made.decode_bytes(np.array(ids, np.int64)) == reference.decode(ids) == raw
    for text in (raw.decode("latin-1"), raw.decode("utf-8", "replace")):
        found = made.encode(text)
        assert found.tolist() == reference.encode(text)
        assert made.decode_bytes(found) == text.encode()


@needs_gpt2
def test_what_gpt2_s_own_encoder_gives():
    """As tiktoken's encode_ordinary prints it; what ends a text is text where it is written."""
    made, _ = real()
    assert made.encode("Hello world").tolist() == [15496, 995]
    assert made.encode("hello  world\n").tolist() == [31373, 220, 995, 198]
    assert made.encode("<|endoftext|>").tolist() == [27, 91, 437, 1659, 5239, 91, 29]
    assert (made.vocab_size, made.end_of_text, made.dtype) == (50_257, 50_256, np.uint16)
    assert made.decode(np.array([50_256])) == "<|endoftext|>"
    assert len(json.dumps(made.to_json())) < 1_600_000


@settings(deadline=None, max_examples=50)
@given(text=TEXTS, size=st.integers(1, 5))
def test_a_text_in_pieces_has_the_same_tokens(text, size):
    made, reference = small()
    pieces = list(bpe_rules.pieces(text, size))
    assert "".join(pieces) == text and all(pieces)
    ids = np.concatenate([made.encode(""), *made.encode_batch(pieces)])
    assert ids.tolist() == reference.encode(text)


def test_a_long_text_is_cut_into_pieces(monkeypatch):
    made, reference = small()
    monkeypatch.setattr(bpe, "_PIECE", 50)
    monkeypatch.setattr(bpe, "_AT_ONCE", 150)
    assert made.encode(MIXED * 2).tolist() == reference.encode(MIXED * 2)


@settings(deadline=None, max_examples=50)
@given(ids=st.lists(st.integers(0, 399)), cuts=st.lists(st.integers(0, 30), max_size=9))
def test_text_that_comes_in_chunks_breaks_no_character(ids, cuts):
    """Whatever is decoded in which chunks: what is printed is what all of it is decoded to."""
    made, _ = small()
    chunks = np.split(np.array(ids, np.uint16), sorted(min(cut, len(ids)) for cut in cuts))
    assert "".join(made.decode_stream(chunks)) == made.decode(np.array(ids, np.uint16))


def test_a_character_of_several_tokens_appears_when_it_is_whole():
    made, _ = small()
    ids = made.encode("a𝄞丅b")
    assert len(ids) == 1 + 4 + 3 + 1
    shown = list(made.decode_stream(ids[:, None]))
    assert shown == ["a", "", "", "", "𝄞", "", "", "丅", "b", ""]
    assert list(made.decode_stream([ids[:3]])) == ["a", "\ufffd"]


# Training.


def test_merges_are_those_of_the_algorithm_by_hand():
    text = "low low low lower lowest newer newer wider\n" * 2
    made = bpe.train([text], 257 + 12)
    assert [tuple(merge.split(" ")) for merge in made.merges.split("\n")] == learnt_merges(text, 12)
    assert made.tokens.split("\n")[:256] == sorted(symbols_of_bytes())
    assert made.end_of_text == made.vocab_size - 1 == 268


def test_training_is_the_same_every_time_and_for_every_cut(monkeypatch):
    first = bpe.train([TEXT], 400)
    for size in (2**16, 100, 1):
        monkeypatch.setattr(bpe, "_PIECE", size)
        assert bpe.train([TEXT], 400) == first
    assert bpe.train([TEXT[:700]], 300) != bpe.train([TEXT[700:]], 300)


def test_the_smallest_has_bytes_and_no_merge():
    made = bpe.train(["any text at all"], 257)
    assert made.merges == "" and made.vocab_size == 257
    assert bytes(made.encode("é!").tolist()) != b"" and len(made.encode("é!")) == 3
    assert BpeTokenizer.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_text_that_has_not_so_many_pairs_is_refused():
    with pytest.raises(UserError) as error:
        bpe.train(["abab abab"], 300)
    assert str(error.value) == (
        "data.tokenizer: bpe:300; the text to train on gives 259 tokens: no other pair occurs in "
        "it twice. Use bpe:259 at most."
    )
    assert bpe.train(["abab abab"], 259).vocab_size == 259


# What it is to others.


def test_sizes_of_tokens_add_up_to_the_texts():
    made, _ = small()
    ids = made.encode(MIXED)
    assert made.bytes_per_token[ids].sum() == len(MIXED.encode())
    assert made.characters_per_token[ids].sum() == len(MIXED)
    assert (made.unit, made.default_prompt, made.dtype) == ("token", "\n", np.uint16)
    assert ids.dtype == np.uint16 and made.encode("").shape == (0,)


def test_a_vocabulary_beyond_16_bits_has_wider_ids():
    symbols = symbols_of_bytes()
    merges = [f"{left} {right}" for left in symbols for right in symbols]
    tokens = symbols + [merge.replace(" ", "") for merge in merges]
    made = BpeTokenizer.of("\n".join(tokens), "\n".join(merges))
    ids = made.encode("ÿÿÿÿ")
    assert made.vocab_size == 256 + 65_536 and ids.dtype == np.uint32
    assert made.decode(ids) == "ÿÿÿÿ"


def test_it_is_pickled_and_stored_without_loss():
    made, _ = small()
    made.encode("x")  # Now it holds what the library made of it.
    copy = pickle.loads(pickle.dumps(made))
    assert copy == made and set(vars(copy)) == {"tokens", "merges"}
    stored = json.loads(json.dumps(made.to_json()))
    assert tokenizer.from_json(stored) == made
    np.testing.assert_array_equal(copy.encode(MIXED), made.encode(MIXED))


def test_half_a_surrogate_pair_is_no_text():
    made, _ = small()
    assert made.known_part("a\udc80b😀") == ("ab😀", ["\udc80"])
    with pytest.raises(UserError, match=r"prompt: '\\udc80'; is no character that UTF-8 has"):
        made.encode("a\udc80", what="prompt")
    with pytest.raises(UserError, match="no character"):
        made.encode_batch(["a", "\ud800"])


def test_without_the_library_the_extra_is_named_and_the_rest_works(monkeypatch):
    made = pickle.loads(pickle.dumps(small()[0]))
    ids = small()[0].encode("the cats")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    for action in (lambda: made.encode("a"), lambda: make_tokenizer("bpe:300", ["a"])):
        with pytest.raises(UserError) as error:
            action()
        assert str(error.value) == (
            'tokenizer: bpe; needs the tokenizers library. Install it: pip install -e ".[bpe]"'
        )
    assert made.decode(ids) == "the cats" and made.bytes_per_token[ids].sum() == 8


def test_a_batch_of_documents_is_each_of_them():
    made, _ = small()
    texts = ["", "one", MIXED, "two\n"]
    for found, text in zip(made.encode_batch(texts), texts, strict=True):
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, made.encode(text))


# What is wrong with a description.


def broken(**changes):
    """The stored form of the small vocabulary; changes are functions of its lines."""
    stored = small()[0].to_json()
    for name, change in changes.items():
        lines = stored[name].split("\n")
        stored[name] = "\n".join(change(lines))
    return stored


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(tokens=lambda t: t[:255]), "has 255 tokens; must be 256, of a byte each, to 262,144"),
        (dict(tokens=lambda t: t * 700), "has 280,000 tokens; must be 256"),
        (dict(tokens=lambda t: [*t[:-1], "a b"]), "has a token with ' ', which stands for no byte"),
        (dict(tokens=lambda t: [*t[:-1], "世"]), "has a token with '世', which stands for no byte"),
        (dict(tokens=lambda t: [*t, t[5]]), "has a token twice, or an empty one"),
        (dict(tokens=lambda t: [*t, ""]), "has a token twice, or an empty one"),
        (dict(tokens=lambda t: ["<x>", *t[1:]]), "has no token for the byte 33"),
        (dict(tokens=lambda t: [*t, "zzzz"]), "has 1 tokens that no merge makes, as 'zzzz'"),
        (dict(merges=lambda m: m[:-1]), "has 1 tokens that no merge makes, as"),
        (dict(merges=lambda m: [*m, "q q"]), "number 144 ('q q'), that makes no token of the voc"),
        (dict(merges=lambda m: [*m, "zzzz a"]), "number 144 ('zzzz a'), that is not of two tokens"),
        (dict(merges=lambda m: [*m, "ab"]), "number 144 ('ab'), that is not of two tokens"),
        (dict(merges=lambda m: [*m, "a b c"]), "number 144 ('a b c'), that is not of two tokens"),
        (dict(merges=lambda m: [*m, ""]), "number 144 (''), that is not of two tokens"),
        (dict(merges=lambda m: [*m, m[0]]), "has a merge twice"),
        (dict(merges=lambda m: m[::-1]), "that is not of two tokens that were made before it"),
        (dict(merges=lambda m: m * 2000), "and have no more merges"),
    ],
)
def test_a_description_that_is_no_vocabulary_is_refused(changes, words):
    with pytest.raises(UserError) as error:
        tokenizer.from_json(broken(**changes))
    assert str(error.value).startswith("tokenizer: bpe; has ") and words in str(error.value)


@pytest.mark.parametrize("stored", [{}, {"tokens": "a"}, {"tokens": 1, "merges": ""}])
def test_a_description_without_its_parts_is_refused(stored):
    with pytest.raises(UserError, match="tokenizer: bpe; must have tokens and merges, as text"):
        tokenizer.from_json({"kind": "bpe", **stored})


def test_one_that_a_checkpoint_has_no_room_for_is_refused():
    mark = "<" + "x" * bpe_rules._LARGEST_JSON + ">"
    with pytest.raises(UserError, match="is too large to be kept in a checkpoint"):
        tokenizer.from_json(broken(tokens=lambda tokens: [*tokens, mark]))
