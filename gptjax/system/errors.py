"""The two ways a command fails: the user's input (exit 2) or the run itself (exit 1)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input, told in one line: what was given, the rule it breaks, how to mend it. Exit 2."""

    exit_code = 2

    def __init__(self, what: str, value: object, rule: str, fix: str = ""):
        line = f"{what}: {value}; {rule}."
        super().__init__(f"{line} {fix}" if fix else line)


class RunError(RuntimeError):
    """The run cannot go on (a loss that is not a number, a checkpoint that is damaged). Exit 1."""

    exit_code = 1


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns "did you mean 'x'?" for the closest known word, or "" when none is close."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {matches[0]!r}?" if matches else ""
