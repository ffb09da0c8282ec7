"""The synthetic plays: their probabilities, recomputed word by word from the text alone."""

import functools
import hashlib
import itertools
import math
import random
import re
from collections import Counter

import numpy as np
import pytest

from gptjax.data import synthetic
from gptjax.data.grammar import (
    LEXICON,
    NEXT_SLOTS,
    RHYMES,
    SPEAKERS,
    TERMINATORS,
    rhyme_shares,
    speaker_shares,
    word_shares,
)
from gptjax.data.synthetic import write_play

CATEGORY = {word: category for category, words in LEXICON.items() for word in words}


@pytest.fixture(scope="module")
def play():
    return write_play()


# The independent scorer: it splits the text into speeches, lines, words and punctuation and
# multiplies the grammar's shares; it never sees the writer's tables.

shares_of = functools.cache(word_shares)


def uncapitalized(word):
    return word if word == "I" else word[0].lower() + word[1:]


def slot_filled(slot, category):
    """The slot after `slot` that holds a word of `category`."""
    (found,) = (after for after in NEXT_SLOTS[slot] if after.split()[-1] == category)
    return found


@functools.cache
def words_nats(words, speaker):
    """(ln P of the words before a line's last, with what follows each; the last one's slot)."""
    slot, nats = "line", 0.0
    for place, token in enumerate(words):
        word = token.rstrip(",!")
        if place == 0:
            word = uncapitalized(word)
        category = CATEGORY[word]
        after = slot_filled(slot, category)
        nats += math.log(NEXT_SLOTS[slot][after]) + math.log(shares_of(category, speaker)[word])
        if after in TERMINATORS:
            nats += math.log(TERMINATORS[after][token[len(word) :] + " "])
        else:
            assert token[len(word) :] == ""
        slot = after
    return nats, slot


@functools.cache
def rhyme_nats(first, word, terminator):
    """ln P of a line's last word and what follows it; `first` as in rhyme_shares."""
    place = "second rhyme" if first else "first rhyme"
    return math.log(rhyme_shares(first)[word]) + math.log(TERMINATORS[place][terminator])


def line_nats(line, terminator_end, first, speaker):
    """(ln P of a line, its last word); `terminator_end` is the newlines after `line`."""
    *words, last = line.split(" ")
    nats, slot = words_nats(tuple(words), speaker)
    assert slot not in NEXT_SLOTS
    word = last.rstrip(",;:.!?")
    return nats + rhyme_nats(first, word, last[len(word) :] + terminator_end), word


def score_lines(text):
    """(ln P of a text that ends with a line; its last speaker; the rhyme still to answer)."""
    nats, last_speaker, first = 0.0, "", ""
    speeches = text.split("\n\n")
    for place, speech in enumerate(speeches):
        if not speech:
            assert place == len(speeches) - 1
            break
        finished = place < len(speeches) - 1
        header, *lines = speech.split("\n")
        speaker = header.removesuffix(":")
        nats += math.log(speaker_shares(last_speaker)[speaker])
        if not finished:
            assert lines.pop() == ""
        for number, line in enumerate(lines):
            blank_line = finished and number == len(lines) - 1
            part, word = line_nats(line, "\n\n" if blank_line else "\n", first, speaker)
            nats, first = nats + part, "" if first else word
        last_speaker = speaker
    return nats, last_speaker, first


def test_total_log_probability_of_the_default_text(play):
    total = score_lines(play.text)[0]
    assert abs(total - play.log_probs.sum()) < 1e-9 * len(play.text)


@pytest.mark.parametrize("seed", [0, 1, 2, 12345])
def test_total_log_probability_for_other_seeds(seed):
    play = write_play(seed=seed, n_characters=5_000)
    assert abs(score_lines(play.text)[0] - play.log_probs.sum()) < 1e-9 * len(play.text)


def continuations(slot, first, speaker):
    """Every (string, probability) that may follow a word in `slot`."""
    if slot not in NEXT_SLOTS:
        place = "second rhyme" if first else "first rhyme"
        for word, share in rhyme_shares(first).items():
            for terminator, terminator_share in TERMINATORS[place].items():
                yield word + terminator, share * terminator_share
        return
    for after, slot_share in NEXT_SLOTS[slot].items():
        for word, share in shares_of(after.split()[-1], speaker).items():
            if slot == "line":
                word = word[0].upper() + word[1:]
            for terminator, terminator_share in TERMINATORS.get(after, {" ": 1.0}).items():
                yield word + terminator, slot_share * share * terminator_share


def prefix_nats(prefix):
    """ln P(text begins with `prefix`): finished words by score, the broken one by summing over
    every string that it may become."""
    cut = prefix.rfind("\n") + 1
    # A line that ends in one of these is not over before the blank line, and a name is no line.
    if cut == len(prefix) and prefix.endswith((".\n", "!\n", "?\n")):
        cut = prefix.rfind("\n", 0, cut - 1) + 1
    speech_start = prefix.rfind("\n\n", 0, cut) + 2 if "\n\n" in prefix[:cut] else 0
    header = prefix[speech_start:].split("\n")[0]
    whole, broken = prefix[:cut], prefix[cut:]
    if cut == speech_start:  # inside a name
        nats, last_speaker, _ = score_lines(whole)
        names = speaker_shares(last_speaker).items()
        return nats + math.log(
            math.fsum(share for name, share in names if (name + ":\n").startswith(broken))
        )
    nats, speaker, first = score_lines(whole)
    assert header == speaker + ":"
    # A word is finished when its space is there; punctuation alone leaves it open.
    *words, broken = broken.split(" ")
    words_part, slot = words_nats(tuple(words), speaker)
    matching = [
        share for string, share in continuations(slot, first, speaker) if string.startswith(broken)
    ]
    return nats + words_part + math.log(math.fsum(matching))


@pytest.mark.parametrize("seed", [3, 4])
def test_log_probability_up_to_any_character(seed):
    play = write_play(seed=seed, n_characters=3_000)
    running = np.cumsum(play.log_probs)
    chosen = random.Random(seed)
    # The first speeches at every character, the rest at random.
    cuts = [*range(1, 400), *(chosen.randrange(400, len(play.text) + 1) for _ in range(150))]
    for cut in cuts:
        assert abs(prefix_nats(play.text[:cut]) - running[cut - 1]) < 1e-9 * cut, play.text[:cut]


def test_next_character_distributions_sum_to_one():
    tables = [synthetic.speaker_table(last) for last in ("", *SPEAKERS)]
    tables += [synthetic.line_table(slot, name) for slot in NEXT_SLOTS for name in SPEAKERS[:3]]
    tables += [synthetic.rhyme_table(first) for first in ("", "light", "bread")]
    for table in tables:
        after = {}
        for string, log_probs in zip(table.strings, table.log_probs, strict=True):
            for place, log_prob in enumerate(log_probs):
                next_characters = after.setdefault(string[:place], {})
                assert next_characters.setdefault(string[place], log_prob) == log_prob
        totals = [math.fsum(map(math.exp, log_probs.values())) for log_probs in after.values()]
        np.testing.assert_allclose(totals, 1.0, rtol=0, atol=1e-12)
        assert table.cumulative[-1] == pytest.approx(1.0, abs=1e-12)


def test_a_table_refuses_a_string_that_begins_another():
    synthetic.make_table([("crown ", 0.5, None), ("crowns ", 0.5, None)])
    for pair in (("crown", "crowns"), ("crowns", "crown"), ("crown", "crown")):
        with pytest.raises(AssertionError, match="'crown' begins another"):
            synthetic.make_table([(string, 0.5, None) for string in pair])


def assert_drawn_as_often_as(observed, shares):
    """Pearson's chi-square of counts against shares, within 5 standard deviations of its mean."""
    n_draws = sum(observed.values())
    assert set(observed) <= set(shares) and n_draws >= 5 / min(shares.values())
    chi_square = math.fsum(
        (observed[key] - n_draws * share) ** 2 / (n_draws * share) for key, share in shares.items()
    )
    freedom = len(shares) - 1
    assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom), (chi_square, freedom)


def test_strings_are_drawn_as_often_as_their_probabilities_say(play):
    """Scores alone would not notice a writer that draws from other odds than it reports."""
    speeches = [speech.split("\n") for speech in play.text.removesuffix("\n\n").split("\n\n")]
    answers, openings, rhymes = Counter(), Counter(), Counter()
    for (asked, *_), (answered, *_) in itertools.pairwise(speeches):
        answers[asked[:-1], answered[:-1]] += 1
    for name, *lines in speeches:
        openings.update(
            (name[:-1], uncapitalized(re.match("[A-Za-z]+", line)[0])) for line in lines
        )
        rhymes.update(re.split("[ -]", line)[-1].rstrip(",;:") for line in lines[::2])
    for speaker in SPEAKERS:
        replies = Counter({who: n for (asked, who), n in answers.items() if asked == speaker})
        assert_drawn_as_often_as(replies, speaker_shares(speaker))
        words = Counter({word: n for (name, word), n in openings.items() if name == speaker})
        for category in ("determiner", "pronoun"):
            shares = word_shares(category, speaker)
            assert_drawn_as_often_as(Counter({word: words[word] for word in shares}), shares)
    assert_drawn_as_often_as(rhymes, rhyme_shares(""))


def test_shares_sum_to_one():
    distributions = [speaker_shares(last) for last in ("", *SPEAKERS)]
    distributions += [rhyme_shares(first) for first in ["", *itertools.chain(*RHYMES)]]
    distributions += [word_shares(category, name) for category in LEXICON for name in SPEAKERS]
    distributions += [*NEXT_SLOTS.values(), *TERMINATORS.values()]
    for shares in distributions:
        assert min(shares.values()) > 0
        assert math.fsum(shares.values()) == pytest.approx(1.0, abs=1e-12)


def test_every_speaker_has_his_own_favourite_words():
    for category in ("noun", "plural", "adjective", "verb", "past"):
        shares = [word_shares(category, name) for name in SPEAKERS]
        assert len({max(words, key=words.get) for words in shares}) == len(SPEAKERS)


def test_a_seed_gives_the_same_text_everywhere():
    text = write_play(seed=1337, n_characters=20_000).text
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "0b9636540a65db17377652162d76a34d5f51790edbf26102d1e9b61b033bc33f"
    )
    assert write_play(seed=1338, n_characters=20_000).text != text


def test_a_shorter_play_is_the_beginning_of_a_longer_one(play):
    text = write_play(n_characters=1_000).text
    assert play.text.startswith(text)
    assert text[:-2].rfind("\n\n") + 2 < 1_000 <= len(text)


def test_the_text_looks_like_tiny_shakespeare(play):
    assert 60 <= len(set(play.text)) <= 70
    assert len(play.text) >= 1_115_394
    assert play.text.endswith((".\n\n", "!\n\n", "?\n\n"))
    assert 0.8 < -play.log_probs.mean() < 1.4


def test_log_probabilities_are_finite_and_not_positive(play):
    assert play.log_probs.dtype == np.float64
    assert play.log_probs.shape == (len(play.text),)
    assert np.isfinite(play.log_probs).all()
    assert play.log_probs.max() <= 1e-15


def test_every_word_stands_in_one_category_and_one_rhyme():
    words = [*itertools.chain(*LEXICON.values(), *RHYMES)]
    assert [word for word, count in Counter(words).items() if count > 1] == []


def test_speakers_alternate_and_couplets_rhyme(play):
    last_name = ""
    for speech in play.text.removesuffix("\n\n").split("\n\n"):
        name, *lines = speech.split("\n")
        assert name.endswith(":") and name != last_name
        last_name = name
        assert len(lines) >= 2 and len(lines) % 2 == 0
        ends = [line.split(" ")[-1].rstrip(",;:.!?") for line in lines]
        for first, second in zip(ends[::2], ends[1::2], strict=True):
            assert first != second
            assert any(first in group and second in group for group in RHYMES)
        assert all(line[0].isupper() for line in lines)


def test_a_play_of_no_characters_is_refused():
    with pytest.raises(ValueError, match="n_characters is 0"):
        write_play(n_characters=0)
