"""GPT-2's encoder and decoder, written after its encoder.py, with the pattern spelt out by hand.

Slow and plain: what a fast tokenizer is compared with.
"""

import unicodedata

# The pattern: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
_ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")

# Unicode's White_Space.
_SPACES = frozenset(
    [*map(chr, range(0x09, 0x0E)), *map(chr, range(0x2000, 0x200B))]
    + list("\x20\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000")
)


def kind(symbol):
    """What the pattern takes a character for."""
    if symbol in _SPACES:
        return "space"
    category = unicodedata.category(symbol)[0]
    return category if category in "LN" else "other"


def words(text):
    """The text in the pieces that the pattern finds one after the other."""
    found, start = [], 0
    while start < len(text):
        end = _end_of_word(text, start)
        found.append(text[start:end])
        start = end
    return found


def _end_of_word(text, start):
    for ending in _ENDINGS:
        if text.startswith(ending, start):
            return start + len(ending)
    first = start + (text[start] == " ")
    if first < len(text) and kind(text[first]) != "space":
        end = first
        while end < len(text) and kind(text[end]) == kind(text[first]):
            end += 1
        return end
    end = start
    while end < len(text) and kind(text[end]) == "space":
        end += 1
    # A blank before a word is the word's, or stands alone.
    return end - 1 if start + 1 < end < len(text) else end


def symbols_of_bytes():
    """By byte: printable ones stand for themselves, the others for what follows U+0100."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    found, n_others = [], 0
    for byte in range(256):
        found.append(chr(byte) if byte in printable else chr(256 + n_others))
        n_others += byte not in printable
    return found


class GPT2:
    """An encoder and decoder of a vocabulary {token: id} and merges [(left, right), …]."""

    def __init__(self, vocabulary, merges):
        self._ids, self._ranks = vocabulary, {pair: rank for rank, pair in enumerate(merges)}
        self._tokens = {number: token for token, number in vocabulary.items()}
        self._symbols = symbols_of_bytes()

    def encode(self, text):
        """The ids of a text."""
        return [number for word in words(text) for number in self.ids_of_word(word.encode())]

    def ids_of_word(self, raw):
        """The ids of a word's bytes: the pair of lowest rank is merged wherever it stands."""
        parts = [self._symbols[byte] for byte in raw]
        while True:
            pairs = [pair for pair in zip(parts, parts[1:], strict=False) if pair in self._ranks]
            if not pairs:
                return [self._ids[part] for part in parts]
            best, merged, i = min(pairs, key=self._ranks.__getitem__), [], 0
            while i < len(parts):
                is_pair = tuple(parts[i : i + 2]) == best
                merged.append("".join(parts[i : i + 1 + is_pair]))
                i += 1 + is_pair
            parts = merged

    def decode(self, ids):
        """The bytes of ids."""
        text = "".join(self._tokens[number] for number in ids)
        return bytes(self._symbols.index(symbol) for symbol in text)


def learnt_merges(text, n_merges):
    """The merges that a text leads to: the most frequent pair first, of two that of lower ids."""
    symbols = symbols_of_bytes()
    ids = {symbol: number for number, symbol in enumerate(sorted(symbols))}
    parts_of = [[symbols[byte] for byte in word.encode()] for word in words(text)]
    merges = []
    for _ in range(n_merges):
        counts = {}
        for parts in parts_of:
            for pair in zip(parts, parts[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        best = min(counts, key=lambda pair: (-counts[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        for index, parts in enumerate(parts_of):
            merged, i = [], 0
            while i < len(parts):
                is_pair = tuple(parts[i : i + 2]) == best
                merged.append("".join(parts[i : i + 1 + is_pair]))
                i += 1 + is_pair
            parts_of[index] = merged
    return merges
