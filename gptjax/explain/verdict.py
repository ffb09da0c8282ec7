"""Findings as sentences: the number first, no number that is not in a finding. Pure.

The templates stand in sentences.toml. None holds a number of its own: all that a sentence says in
digits is a finding's value.
"""

from __future__ import annotations

import math
import string
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gptjax.explain.finding import Finding

MOST = 8

TEMPLATES: Mapping[str, str] = tomllib.loads(
    (Path(__file__).parent / "sentences.toml").read_text(encoding="utf-8")
)


def sentences(findings: Sequence[Finding]) -> list[str]:
    """At most MOST, in the findings' order; those of one topic stand together.

    What is left out is what comes last, but the command that would tell more stays.
    """
    topics: dict[object, list[str]] = {}
    for number, each in enumerate(findings):
        topics.setdefault(each.topic or number, []).append(sentence(each))
    said = [" ".join(words) for words in topics.values()]
    is_last_a_command = bool(findings) and findings[-1].kind == "cannot_share"
    return (
        said
        if len(said) <= MOST
        else said[: MOST - is_last_a_command] + said[len(said) - is_last_a_command :]
    )


def sentence(finding: Finding) -> str:
    """A finding in words."""

    def told(kind: str) -> list[str]:
        return [sentence(each) for each in finding.parts if each.kind.startswith(kind)]

    totals = " and ".join(told("total_"))
    together = ""
    if totals:
        together = _FORMATTER.format(TEMPLATES["together"], totals=totals, **finding.values)
    parts = {
        "parts": " ".join(told("")),
        "items": ", ".join(told("item")),
        "together": together,
    }
    return _FORMATTER.format(TEMPLATES[finding.kind], **parts, **finding.values).strip()


def count(value: float) -> str:
    """2,000 · 0.796 M · 1.54 M · 32.8 G."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size or (letter == "M" and value >= 1e5):
            return f"{_digits(value / size)} {letter}"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.3g}"


def _digits(value: float) -> str:
    """Three or four of them, without an exponent."""
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{places}f}"


def duration(seconds: float) -> str:
    """33.2 ms · 4.41 s · 2 min 5 s · 1 h 3 min."""
    if seconds < 0.9995:
        return f"{_digits(1e3 * seconds)} ms"
    if seconds < 120:
        return f"{_digits(seconds)} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"


def _percent(value: float) -> str:
    """43.2 % · 9.8 % · 0.49 % · 0.006 %."""
    percent = 100 * value
    return f"{percent:.1f} %" if percent >= 1 else f"{percent:.2g} %"


def _rate(value: float) -> str:
    """34.6 TFLOP/s · 292 GFLOP/s."""
    size, unit = (1e12, "TFLOP/s") if value >= 1e12 else (1e9, "GFLOP/s")
    return f"{_digits(value / size)} {unit}"


FORMS: Mapping[str, Any] = {
    "loss": "{:.4f}".format,
    "gap": lambda value: f"{value:.3f}" if value >= 0.0005 else f"{value:.1g}",
    "count": count,
    "plain": str,
    "ratio": lambda value: f"{_digits(value)}x",
    "percent": _percent,
    "time": duration,
    "rate": _rate,
}


class _Formatter(string.Formatter):
    def format_field(self, value: Any, form: str) -> str:
        return FORMS[form](value) if form else str(value)


_FORMATTER = _Formatter()
