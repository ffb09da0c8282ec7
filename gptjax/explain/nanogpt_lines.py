"""The lines that nanoGPT's train.py prints, found in a text that may have been cut and wrapped."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# nanoGPT's settings that something follows from; others (wandb_project, …) are not looked at.
NAMES = (
    "n_layer n_head n_embd block_size dropout bias batch_size gradient_accumulation_steps "
    "learning_rate max_iters weight_decay beta1 beta2 grad_clip decay_lr warmup_iters "
    "lr_decay_iters min_lr device dtype compile eval_interval log_interval eval_iters init_from "
    "dataset"
).split()


class Iteration(NamedTuple):
    """`iter N: loss …`: update N + 1 is made, `loss` is of its batch; NaN is what was not told.

    `mfu` is a fraction, over an A100's peak.
    """

    number: int
    loss: float
    ms: float
    mfu: float


class Evaluation(NamedTuple):
    """`step N: train loss …, val loss …`, after N updates."""

    number: int
    train: float
    val: float


class Torn(NamedTuple):
    """What begins as one of these lines and does not go on as one."""


class Header(NamedTuple):
    """One of the lines before the first evaluation: a key of _HEADERS and what it tells."""

    kind: str
    value: str


class Setting(NamedTuple):
    """`NAME =` in a text, with what stands before and after it on its line."""

    name: str
    before: str
    value: str


Line = Iteration | Evaluation | Torn | Header | Setting

# What may stand between words: spaces, or the end of a line and what a chat quotes the next with.
# All repetitions are bounded and their characters apart, so that no text takes long.
_GAP = r'[\s>|*`"]{0,80}'
_SPACE = r'[\s>|*`"]{1,80}'
_COUNT = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,10}|[0-9]{1,40})(?![0-9])"
_NUMBER = (
    r"[-+]?(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,10}|[0-9]{1,40})(?:\.[0-9]{0,40})?"
    r"(?:e[-+]?[0-9]{1,5})?|nan|inf)(?![0-9])"
)


def _words(text: str) -> str:
    """A pattern of words; COUNT and NUMBER are groups."""
    pattern = text.replace(" : ", f"{_GAP}:{_GAP}").replace(" , ", f"{_GAP},{_GAP}")
    return (
        pattern.replace(" ", _SPACE)
        .replace("~", _GAP)
        .replace("COUNT", f"({_COUNT})")
        .replace("NUMBER", f"({_NUMBER})")
    )


# All alternatives begin with a letter that is searched for quickly: to look back costs less there.
_DATA = "|".join(
    (
        _words(r"iter COUNT : loss NUMBER , time NUMBER~ms(?: , mfu NUMBER~%)?"),
        _words(r"step COUNT : train loss NUMBER , val loss NUMBER"),
        # Others print `global_step 7: …`.
        r"iter(?<![A-Za-z_]iter)" + _words(r" [0-9]{1,40}~:"),
        r"step(?<![A-Za-z_]step)" + _words(r" [0-9]{1,40}~:"),
    )
)

_HEADERS = {
    "config": _words(r"Overriding config with") + r"\s{1,80}(\S{1,400})",
    "tokens": _words(r"tokens per iteration will be:~COUNT"),
    "vocabulary": _words(r"found vocab_size~=~COUNT"),
    "default_vocabulary": _words(r"defaulting to vocab_size of GPT-2 to COUNT"),
    "parameters": _words(r"number of parameters:~NUMBER~M"),
    "decayed": _words(r"num decayed parameter tensors:~[0-9]{1,9}~,~with COUNT parameters"),
    "not_decayed": _words(r"num non-decayed parameter tensors:~[0-9]{1,9}~,~with COUNT parameters"),
    "scratch": _words(r"Initializing a new model from (scratch)"),
    "resumed": _words(r"(Resuming) training from"),
    "pretrained": _words(r"Initializing from OpenAI GPT-2 weights:") + r"\s{1,80}([\w.-]{1,40})",
}
_KINDS = tuple(_HEADERS)
# Groups: 1 to 4 are an iteration's, 5 to 7 an evaluation's, then one for each header and a name's.
_FIRST_HEADER = 8
_NAME = _FIRST_HEADER + len(_KINDS)

_BODY = re.compile(_DATA, re.ASCII)
_ALL = re.compile(
    "|".join([_DATA, *_HEADERS.values(), f"({'|'.join(NAMES)}){_GAP}=(?!=)"]), re.ASCII
)
_DIGIT_NEXT = re.compile(_GAP + "[0-9.]", re.ASCII)

# Where none of them is, only data need be looked for, which is faster.
_HEADER_WORDS = ("verriding", "vocab_size", "parameter", "nitializing", "esuming", "tokens per")

# What is looked through at once, and how much of a text that begins within a header.
_WINDOW, _BEGINNING = 1 << 15, 1 << 22

# No match is longer than this, nor what is looked at before and after it.
_LONGEST, _LOOKED_AT = 4096, 512

# Digits after the point of every loss that nanoGPT prints.
_DECIMALS = 4

# More than any run makes; beyond it float64 has no place for each number.
_LARGEST = 1 << 53


def lines_of(pieces: Iterable[str]) -> Iterator[Line]:
    """What nanoGPT printed, in the order of the text, whose pieces may be cut anywhere."""
    text, position, n_read = "", 0, 0
    is_header, has_data = False, False
    for window in _windows(pieces):
        text += window or ""
        n_read += len(window or "")
        end = len(text) if window is None else max(position, len(text) - _LONGEST)
        is_beginning = not has_data and n_read <= _BEGINNING
        may_have_header = is_header or is_beginning or any(word in text for word in _HEADER_WORDS)
        for match in (_ALL if may_have_header else _BODY).finditer(text, position):
            if match.start() >= end:
                break
            position = match.end()
            line = _line(match, is_cut=window is None and position == len(text))
            is_header = type(line) in (Header, Setting)
            has_data |= type(line) in (Iteration, Evaluation)
            yield line
        position = max(position, end)
        dropped = max(0, position - _LOOKED_AT)
        text, position = text[dropped:], position - dropped


def _windows(pieces: Iterable[str]) -> Iterator[str | None]:
    for piece in pieces:
        for start in range(0, len(piece), _WINDOW):
            yield piece[start : start + _WINDOW]
    yield None


def _line(match: re.Match[str], *, is_cut: bool) -> Line:
    """What a match says; `is_cut` if the text ends with it, maybe in the middle of a number."""
    if match[1] is not None:
        number, ms = _count(match[1]), _number(match[3])
        mfu = math.nan if match[4] is None else round(_number(match[4]) / 100, 8)
        made = Iteration(number, _number(match[2]), ms if ms >= 0 else math.nan, mfu)
        return made if number <= _LARGEST else Torn()
    if match[5] is not None:
        number, val = _count(match[5]), match[7]
        n_decimals = len(val.partition(".")[2])
        # A number may have been broken at the end of a line, too.
        is_cut = is_cut or _DIGIT_NEXT.match(match.string, match.end()) is not None
        is_torn = is_cut and not val[-1].isalpha() and n_decimals < _DECIMALS
        told = Evaluation(number, _number(match[6]), _number(val))
        return told if number <= _LARGEST and not is_torn else Torn()
    if match.lastindex is None:
        return Torn()
    if match.lastindex < _NAME:
        return Header(_KINDS[match.lastindex - _FIRST_HEADER], match[match.lastindex])
    text, start, end = match.string, match.start(), match.end()
    before = text[max(0, start - _LOOKED_AT) : start].rpartition("\n")[2]
    value = text[end : end + _LOOKED_AT].partition("\n")[0]
    if "\n" in match[0]:
        value = ""  # A line was broken here: what is left of it may be more than the value.
    return Setting(match[_NAME], before, value)


def _count(text: str) -> int:
    return int(text.replace(",", ""))


def _number(text: str) -> float:
    """A number; NaN for what is not finite."""
    value = float(text.replace(",", ""))
    return value if math.isfinite(value) else math.nan
