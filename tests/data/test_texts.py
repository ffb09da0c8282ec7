"""Texts read in pieces: nothing is lost, nothing is told otherwise than of the whole."""

import hashlib
import os
import re
import threading

import ml_collections
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gptjax.data import corpus, splits, texts
from gptjax.data.tokenizer import CharTokenizer
from gptjax.system.errors import UserError

# Characters of one to four bytes, white space that is none of ASCII's, and words of any length.
AWKWARD = "\ufeffh\u00e9 \u2003 \uff5e\U0001f600\r\n\n  longerthananypiece\u00a0\U0010ffff\t."


@pytest.fixture(params=[4, 5, 7, 64])
def piece(request, monkeypatch):
    """Bytes read at once."""
    monkeypatch.setattr(texts, "PIECE", request.param)


def test_pieces_make_up_the_text_and_begin_with_white_space(piece, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(AWKWARD * 3, newline="")
    for text in (texts.in_file(str(path)), texts.in_memory("x", path.read_bytes())):
        found = list(text.pieces())
        assert "".join(found) == "".join(text.pieces()) == AWKWARD * 3
        assert text.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert text.n_characters == len(AWKWARD * 3)
        assert text.symbols == "".join(sorted(set(AWKWARD)))


def test_a_piece_is_cut_before_all_white_space(monkeypatch):
    monkeypatch.setattr(texts, "PIECE", 8)
    text = texts.in_memory("x", b"one two\n\n  three four five  ")
    assert list(text.pieces()) == ["one two", "\n\n  three", " four", " five  "]
    assert list(texts.in_memory("x", b"0123456789 12").pieces()) == ["01234567", "89 12"]


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(4, 9))
@example(b"abcd\xf0\x9f\x98", 5)  # A character cut off at the end.
@example(b"\xed\xa0\x80", 4)  # Half of a pair.
def test_bytes_that_are_no_text_are_named_as_of_the_whole(raw, n_bytes):
    before = texts.PIECE
    texts.PIECE = n_bytes
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        words = f"data: x; is not UTF-8 at byte {error.start} (0x{raw[error.start]:02x})."
        with pytest.raises(UserError, match=re.escape(words)):
            texts.in_memory("x", raw)
    else:
        assert "".join(texts.in_memory("x", raw).pieces()) == raw.decode()
    finally:
        texts.PIECE = before


def test_ids_are_those_of_the_whole_and_so_are_digest_and_split(piece, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(AWKWARD * 5, newline="")
    found = corpus.load(f"text:{path}", fallback="")
    tokenizer = CharTokenizer(found.text.symbols)
    assert tokenizer == CharTokenizer.of_text(AWKWARD)
    both = splits.split(found, tokenizer, ml_collections.ConfigDict({"val_fraction": 0.3}))
    rank = {symbol: i for i, symbol in enumerate(sorted(set(AWKWARD)))}
    wanted, n_train = [rank[symbol] for symbol in AWKWARD * 5], int(len(AWKWARD * 5) * 0.7)
    np.testing.assert_array_equal(both.train, wanted[:n_train])
    np.testing.assert_array_equal(both.val, wanted[n_train:])
    assert both.train.dtype == both.val.dtype == np.uint8


def test_ids_beyond_what_memory_holds_lie_in_a_file(piece, tmp_path, monkeypatch):
    path = tmp_path / "text.txt"
    path.write_text(AWKWARD * 5, newline="")
    found = corpus.load(f"text:{path}", fallback="")
    data = ml_collections.ConfigDict({"val_fraction": 0.3})
    wanted = splits.split(found, CharTokenizer(found.text.symbols), data)
    monkeypatch.setattr(splits, "_MOST_IN_MEMORY", 10)
    mapped = splits.split(found, CharTokenizer(found.text.symbols), data)
    assert isinstance(mapped.val, np.memmap) and not isinstance(wanted.val, np.memmap)
    np.testing.assert_array_equal(mapped.train, wanted.train)
    np.testing.assert_array_equal(mapped.val, wanted.val)


def test_an_unknown_character_is_named_in_whatever_piece(piece):
    found = corpus.Corpus("text:x", texts.in_memory("x", "ab ba\u00e9 ab".encode()))
    with pytest.raises(UserError, match=r"corpus text:x: '\u00e9' \(U\+00E9 .* 3-symbol"):
        splits.split(found, CharTokenizer(" ab"), ml_collections.ConfigDict({"val_fraction": 0.1}))


def test_a_file_that_changes_between_two_readings_is_refused(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abc")
    text = texts.in_file(str(path))
    path.write_text("abcd")
    with pytest.raises(UserError, match="text.txt; has changed while it was read"):
        list(text.pieces())
    path.unlink()
    with pytest.raises(UserError, match="text.txt; cannot be read: No such file"):
        list(text.pieces())


def test_a_pipe_can_be_read(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"from a pipe",))
    writer.start()
    text = texts.in_file(str(path))
    writer.join()
    assert "".join(text.pieces()) == "".join(text.pieces()) == "from a pipe"


def test_splits_of_one_array_are_joined_without_a_copy():
    ids = np.arange(10, dtype=np.uint8)
    joined = splits.Splits(ids[:7], ids[7:], None).joined
    assert np.shares_memory(joined, ids)
    np.testing.assert_array_equal(joined, ids)
    for train, val in ((ids[:7], ids[8:]), (ids[7:], ids[:7]), (ids[:7], ids[7:].copy())):
        joined = splits.Splits(train, val, None).joined
        assert not np.shares_memory(joined, ids)
        np.testing.assert_array_equal(joined, [*train, *val])
