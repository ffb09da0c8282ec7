"""GPT-2's way to write byte-level BPE: symbols of bytes, words, and what a vocabulary must hold."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from gptjax.config.knob import MOST_IDS

# GPT-2's vocabulary takes 1.5 MB of the 16 that a checkpoint's JSON may have.
_LARGEST_JSON = 12 * 2**20  # bytes

# GPT-2's, between two texts; it is no text itself, and encoding never gives it.
END_OF_TEXT = "<|endoftext|>"

# A token that no merge makes: it marks something, as <|endoftext|> or [PAD].
_MARK = re.compile(r"<.*>|\[.*\]")

# Where a text may be cut: a blank that follows no blank begins a word of its own for GPT-2's
# pattern ( ?\p{L}+| ?\p{N}+|…|\s+(?!\S)|\s+), which looks at nothing before it.
_CUT = re.compile(r"(?<=\S)(?=[ \n])")


def byte_symbols() -> list[str]:
    """The character that stands for each byte in GPT-2's files: printable, and no blank.

    Source: GPT-2's encoder.py, bytes_to_unicode.
    """
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    own += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in own]
    symbols = {byte: chr(byte) for byte in own}
    symbols |= {byte: chr(256 + n) for n, byte in enumerate(others)}
    return [symbols[byte] for byte in range(256)]


BYTE_OF = {symbol: byte for byte, symbol in enumerate(byte_symbols())}


def pieces(text: str, size: int) -> Iterator[str]:
    """A text in pieces of `size` characters or more; their tokens, joined, are the text's."""
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + size)
        end = cut.start() if cut else len(text)
        yield text[start:end]
        start = end


def check(tokens: str, merges: str) -> None:
    """Raises ValueError, saying why, unless tokens and merges, a line each, are a vocabulary.

    Then every text has tokens, every token has bytes, and a checkpoint can hold all of it.
    """
    n_ids = tokens.count("\n") + 1
    if not 256 <= n_ids <= MOST_IDS or merges.count("\n") >= MOST_IDS:
        rule = f"must be 256, of a byte each, to {MOST_IDS:,}"
        raise ValueError(f"has {n_ids:,} tokens; {rule}, and have no more merges")
    if strange := set(tokens) - BYTE_OF.keys() - {"\n"}:
        raise ValueError(f"has a token with {min(strange)!r}, which stands for no byte")
    names = tokens.split("\n")
    vocabulary = set(names)
    if len(vocabulary) < len(names) or "" in vocabulary:
        raise ValueError("has a token twice, or an empty one")
    if missing := BYTE_OF.keys() - vocabulary:
        raise ValueError(f"has no token for the byte {min(map(BYTE_OF.__getitem__, missing))}")
    made = _made(merges.split("\n") if merges else [], vocabulary)
    if unmade := [name for name in names if name not in made and not _MARK.fullmatch(name)]:
        raise ValueError(f"has {len(unmade):,} tokens that no merge makes, as {unmade[0]!r:.40}")
    if len(json.dumps([tokens, merges])) > _LARGEST_JSON:
        raise ValueError("is too large to be kept in a checkpoint")


def _made(merges: list[str], vocabulary: set[str]) -> set[str]:
    """The tokens that bytes and merges make."""
    made = set(BYTE_OF)
    for number, merge in enumerate(merges, 1):
        left, _, right = merge.partition(" ")
        if left not in made or right not in made:
            words = "is not of two tokens that were made before it"
            raise ValueError(f"has a merge, number {number} ({merge!r:.40}), that {words}")
        if left + right not in vocabulary:
            words = "makes no token of the vocabulary"
            raise ValueError(f"has a merge, number {number} ({merge!r:.40}), that {words}")
        made.add(left + right)
    if len(set(merges)) < len(merges):
        raise ValueError("has a merge twice")
    return made
