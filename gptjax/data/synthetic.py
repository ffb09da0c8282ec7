"""Plays written by a stochastic grammar, with the exact probability of every character.

They stand in for Tiny Shakespeare where that cannot be downloaded. A state of the grammar offers
strings of which none begins another, so a text can be read in one way only, P(text) is the product
of the probabilities of its strings, and summing over the strings that share a beginning gives
P(next character | all before it). The mean of -ln P is the loss that no model can beat.
"""

import bisect
import dataclasses
import functools
import itertools
import random
from collections import defaultdict
from typing import Any

import numpy as np

from gptjax.data.grammar import (
    NEXT_SLOTS,
    TERMINATORS,
    rhyme_shares,
    speaker_shares,
    word_shares,
)


@dataclasses.dataclass(frozen=True)
class Table:
    """The strings that one state may write, as parallel lists."""

    strings: list[str]
    outcomes: list[Any]  # what the writer must remember: a slot, a speaker, a rhyme, ...
    cumulative: list[float]  # running sum of the strings' probabilities
    log_probs: list[np.ndarray]  # per string: ln P(character | state, the string before it)


def make_table(alternatives: list[tuple[str, float, Any]]) -> Table:
    """Table of (string, probability, outcome) alternatives.

    Raises:
      AssertionError: if one string begins another: the text could then be read in two ways.
    """
    prefix_weight: defaultdict[str, float] = defaultdict(float)
    for string, weight, _ in alternatives:
        for end in range(len(string) + 1):
            prefix_weight[string[:end]] += weight
    log_probs = []
    for string, weight, _ in alternatives:
        assert prefix_weight[string] == weight, f"{string!r} begins another alternative"
        weights = np.array([prefix_weight[string[:end]] for end in range(len(string) + 1)])
        log_probs.append(np.log(weights[1:] / weights[:-1]))
    strings, shares, outcomes = (list(column) for column in zip(*alternatives, strict=True))
    return Table(strings, outcomes, list(itertools.accumulate(shares)), log_probs)


@functools.cache
def speaker_table(last: str) -> Table:
    """Names that may head the speech after one by `last`; the outcome is the speaker."""
    return make_table([(name + ":\n", share, name) for name, share in speaker_shares(last).items()])


@functools.cache
def line_table(slot: str, speaker: str) -> Table:
    """Words that may follow the one in `slot`; the outcome is the slot they fill."""
    alternatives = []
    for next_slot, slot_share in NEXT_SLOTS[slot].items():
        for word, word_share in word_shares(next_slot.split()[-1], speaker).items():
            written = word.capitalize() if slot == "line" else word
            for terminator, share in TERMINATORS.get(next_slot, {" ": 1.0}).items():
                alternatives.append(
                    (written + terminator, slot_share * word_share * share, next_slot)
                )
    return make_table(alternatives)


@functools.cache
def rhyme_table(first: str) -> Table:
    """Words that may end a line; the outcome is (the rhyme to answer or "", has the speech ended).

    All speakers share these tables: one for each of them and each rhyme would be slow to build.
    """
    alternatives = []
    for word, word_share in rhyme_shares(first).items():
        for terminator, share in TERMINATORS["second rhyme" if first else "first rhyme"].items():
            outcome = ("" if first else word, terminator.endswith("\n\n"))
            alternatives.append((word + terminator, word_share * share, outcome))
    return make_table(alternatives)


@dataclasses.dataclass(frozen=True)
class Play:
    """A text and the log-probability of each of its characters."""

    text: str
    log_probs: np.ndarray  # float64, one per character: ln P(character | all characters before it)


def write_play(*, seed: int = 1337, n_characters: int = 1_115_394) -> Play:
    """A play that stops at the end of the first speech at or past `n_characters`.

    A seed gives the same text on every machine and Python version; the log-probabilities may
    differ in the last bit, where np.log does.

    Args:
      seed: an integer; the default is nanoGPT's.
      n_characters: at least 1; the default is the length of Tiny Shakespeare.

    Raises:
      ValueError: if n_characters is below 1.
    """
    if n_characters < 1:
        raise ValueError(f"n_characters is {n_characters} but a play needs at least 1 character")
    # Python guarantees this stream of random() for an integer seed; numpy promises none.
    draw = random.Random(seed).random
    strings: list[str] = []
    log_probs: list[np.ndarray] = []

    def write(table: Table) -> Any:
        cumulative = table.cumulative
        # hi: a draw next to 1 may round up to the total, which lies beyond the last string.
        index = bisect.bisect(cumulative, draw() * cumulative[-1], hi=len(cumulative) - 1)
        strings.append(table.strings[index])
        log_probs.append(table.log_probs[index])
        return table.outcomes[index]

    speaker, n_written = "", 0
    while n_written < n_characters:
        speech_start = len(strings)
        speaker = write(speaker_table(speaker))
        first, ended = "", False
        while not ended:
            slot = "line"
            while slot in NEXT_SLOTS:
                slot = write(line_table(slot, speaker))
            first, ended = write(rhyme_table(first))
        n_written += sum(map(len, strings[speech_start:]))
    return Play("".join(strings), np.concatenate(log_probs))
