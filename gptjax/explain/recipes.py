"""Recipes known by name: what defines them, what they end on, how far their runs lie apart."""

from __future__ import annotations

import dataclasses
import functools
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gptjax.explain.series import Evaluations, Fact, Series

# Knobs that runs from before them do not name: those were made as these values say.
CAME_LATER = {"model.followers": 0}


@dataclasses.dataclass(frozen=True)
class End:
    """What one published run ended on, nats per character; NaN where not told."""

    where: str
    val: float
    train: float = math.nan


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a run of the recipe has after so many updates, nats per character."""

    update: int
    train: float
    val: float


@dataclasses.dataclass(frozen=True)
class Card:
    """A recipe. Losses are nats per character; NaN or empty is what is not known.

    Attributes:
      key: its name in recipes.toml.
      name: what a sentence calls it.
      program: whose recipe it is, `nanoGPT` or `gptjax`.
      source: where its figures are from.
      settings: facts that define it, all of them.
      known: facts that come with them, for a run of which only the digits are known.
      config: gptjax's config file of it.
      train, val, loss: what it ends on; loss is the last batch's.
      eval_iters: batches of an estimate that train_sem and val_sem, standard errors, are of.
      seed_val: standard deviation of val over seeds.
      device_val: how far val's ends on other devices lie apart at most.
      val_band: how far val may lie from `expected` or `val`.
      best_val, best_update: the lowest val of `expected`'s run.
      published_best_val: the lowest that somebody else reports.
      ends: of published runs.
      expected: by update.
    """

    key: str
    name: str
    program: str
    source: str
    settings: Mapping[str, Any]
    known: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: str = ""
    train: float = math.nan
    val: float = math.nan
    loss: float = math.nan
    eval_iters: int = 0
    train_sem: float = math.nan
    val_sem: float = math.nan
    seed_val: float = math.nan
    device_val: float = math.nan
    val_band: float = math.nan
    best_val: float = math.nan
    best_update: float = math.nan
    published_best_val: float = math.nan
    ends: tuple[End, ...] = ()
    expected: tuple[Expected, ...] = ()

    def val_at(self, update: float) -> float:
        """The val that a run of the recipe has after so many updates; NaN if not known."""
        known = {row.update: row.val for row in self.expected}
        known.setdefault(self.settings["train.max_iters"], self.val)
        return known.get(int(update), math.nan)

    def distance(self, val: float) -> float:
        """How far a run's last val is from the nearest published end; NaN without any."""
        return min((abs(end.val - val) for end in self.ends), default=abs(self.val - val))

    def is_by_settings(self, facts: Mapping[str, Fact]) -> bool:
        """Whether all that defines it is known of a run and equal."""
        facts = {name: Fact(value, "default") for name, value in CAME_LATER.items()} | dict(facts)
        return self._is_of_program(facts) and all(
            name in facts and _is_equal(name, facts, wanted)
            for name, wanted in self.settings.items()
        )

    def is_by_digits(self, facts: Mapping[str, Fact], evaluations: Evaluations) -> bool:
        """Whether a run ends on the four digits of a published end, and nothing known differs."""
        at_end = np.flatnonzero(evaluations.update_E == self.settings["train.max_iters"])
        if not len(at_end) or not self._is_of_program(facts):
            return False
        ended = evaluations.train_E[at_end[0]], evaluations.val_E[at_end[0]]
        return any(
            math.isclose(ended[0], end.train, abs_tol=5e-5, rel_tol=0)
            and math.isclose(ended[1], end.val, abs_tol=5e-5, rel_tol=0)
            for end in self.ends
        ) and all(
            _is_equal(name, facts, wanted)
            for name, wanted in {**self.settings, **self.known}.items()
            if name in facts
        )

    def _is_of_program(self, facts: Mapping[str, Fact]) -> bool:
        program = facts.get("program")
        return program is not None and str(program.value).split()[:1] == [self.program]


def _is_equal(name: str, facts: Mapping[str, Fact], wanted: Any) -> bool:
    """Whether a fact has the value; a horizon of 0 is that of max_iters."""
    value = facts[name].value
    if name == "optim.lr_decay_iters" and wanted == 0 and "train.max_iters" in facts:
        return value in (0, facts["train.max_iters"].value)
    return bool(value == wanted)


@functools.cache
def cards() -> dict[str, Card]:
    """All known recipes, by key."""
    tables = tomllib.loads(Path(__file__).with_name("recipes.toml").read_text(encoding="utf-8"))
    common = tables.pop("common")
    found = {}
    for key, table in tables.items():
        table["settings"] = common | table["settings"]
        table["ends"] = tuple(End(**end) for end in table.get("ends", ()))
        table["expected"] = tuple(Expected(*row) for row in table.get("expected", ()))
        found[key] = Card(key=key, **table)
    return found


def card_of(series: Series) -> Card | None:
    """The card of the recipe that a series is known to be of."""
    name = series.value("recipe")
    return next((card for card in cards().values() if card.name == name), None)


def recognise(facts: Mapping[str, Fact], evaluations: Evaluations) -> tuple[Card, str] | None:
    """The recipe of a run, and by what: `its settings` or `its digits`; None if it is none."""
    for card in cards().values():
        if card.is_by_settings(facts):
            return card, "its settings"
    for card in cards().values():
        if card.is_by_digits(facts, evaluations):
            return card, "its digits"
    return None


def with_recipe(series: Series) -> Series:
    """The series with all that is known of its recipe, if it is of one.

    That is the fact `recipe`; standard errors, where the estimates are the card's and none are
    known; and, if its digits tell the recipe, the card's settings where they are not known.
    """
    found = recognise(series.facts, series.evaluations)
    if found is None:
        return series
    card, how = found
    facts = dict(series.facts)
    if how == "its digits":
        told = {
            name: Fact(v, f"recipe {card.key}'s")
            for name, v in {**card.settings, **card.known}.items()
        }
        facts = told | facts
    facts["recipe"] = Fact(card.name, how)
    evaluations = series.evaluations
    if "eval.iters" in facts and facts["eval.iters"].value == card.eval_iters:
        evaluations = dataclasses.replace(
            evaluations,
            train_sem_E=_filled(evaluations.train_sem_E, card.train_sem),
            val_sem_E=_filled(evaluations.val_sem_E, card.val_sem),
        )
    return dataclasses.replace(series, facts=facts, evaluations=evaluations)


def _filled(sem_E: np.ndarray, sem: float) -> np.ndarray:
    return np.where(np.isnan(sem_E), sem, sem_E)
