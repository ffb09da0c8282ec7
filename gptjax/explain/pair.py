"""Two runs side by side: their settings, their gap, and what of it is noise. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gptjax.explain import curves
from gptjax.explain.curves import Reading
from gptjax.explain.differences import Difference, Settings, compare_settings
from gptjax.explain.finding import Noise
from gptjax.explain.recipes import card_of
from gptjax.explain.series import Series


class Pair:
    """Two runs, and what is computed of them together.

    Attributes:
      a, b: the runs.
      settings: how theirs compare.
      card_a, card_b: their recipes' cards, if known.
      at_context: where a longer model was evaluated at the shorter one's context: label and loss.
      labels: both labels, for findings' values.
    """

    def __init__(
        self,
        a: Series,
        b: Series,
        *,
        spreads: Mapping[str, float] = {},
        at_context: tuple[str, Reading] | None = None,
    ):
        """`spreads`, of the seed, nats, are by label; not there: not known."""
        self.a, self.b, self.at_context = a, b, at_context
        self.settings: Settings = compare_settings(a, b)
        self.card_a, self.card_b = card_of(a), card_of(b)
        self._spreads = {each.label: spreads.get(each.label, math.nan) for each in (a, b)}
        self.labels = dict(a=a.label, b=b.label)

    @property
    def causes(self) -> tuple[Difference, ...]:
        """The settings that differ and can move a loss by more than rounding.

        Not the seed beside others, where what it can make is known: that is noise.
        """
        causes = self.settings.causes
        if len(causes) > 1 and not self._has_unknown_spread():
            causes = tuple(each for each in causes if each.group != "seed")
        return causes

    def _has_unknown_spread(self) -> bool:
        unknown = Reading(math.nan, math.nan)
        return "seed" in self.noise(unknown, unknown).unknown

    @property
    def is_same_recipe(self) -> bool:
        """Whether all settings that can move a loss are known to be the same."""
        cards = (self.card_a, self.card_b)
        # Of two programs' cards for one recipe the settings are equal.
        is_one_card = all(cards) and len({str(sorted(c.settings.items())) for c in cards if c}) == 1
        missing = [name for name in self.settings.unknown if name not in _NOT_NEEDED]
        return not self.causes and (is_one_card or not missing)

    def noise(self, at_a: Reading, at_b: Reading) -> Noise:
        """Of the difference of two losses."""
        estimates, seeds = [], []
        for reading, series, card in (
            (at_a, self.a, self.card_a),
            (at_b, self.b, self.card_b),
        ):
            estimate, seed = reading.sem, self._spreads[series.label]
            if card is not None:
                estimate = estimate if math.isfinite(estimate) else card.val_sem
                seed = seed if math.isfinite(seed) else card.seed_val
            estimates.append(estimate)
            seeds.append(seed)
        return Noise.of(estimate=estimates, seed=seeds)

    def gap(self, at_a: Reading, at_b: Reading) -> dict[str, float | str]:
        """b − a, in numbers and words, with its noise."""
        difference = at_b.val - at_a.val
        return {
            "a_val": at_a.val,
            "b_val": at_b.val,
            "gap": abs(difference),
            "direction": "lower" if difference < 0 else "higher",
            "noise": self.noise(at_a, at_b).sd,
        }

    @property
    def ends(self) -> tuple[Reading, Reading]:
        """Both last losses; both runs must have one."""
        assert self.a.last is not None and self.b.last is not None
        return curves.reading(self.a, self.a.last), curves.reading(self.b, self.b.last)

    @property
    def bests(self) -> tuple[Reading, Reading]:
        """Both lowest losses."""
        assert self.a.best is not None and self.b.best is not None
        return curves.reading(self.a, self.a.best), curves.reading(self.b, self.b.best)

    def totals(self, axis: str) -> tuple[float, float] | None:
        """Tokens or FLOPs, or what another axis counts, at both last losses."""
        x_a, x_b = self.a.x_E(axis), self.b.x_E(axis)
        if x_a is None or x_b is None or self.a.last is None or self.b.last is None:
            return None
        return float(x_a[self.a.last]), float(x_b[self.b.last])


# Settings that need not be known to call two runs the same recipe: they move rounding, or nothing.
# (Tokens that differ have another vocabulary as a rule, and older logs do not name them.)
_NOT_NEEDED = frozenset(
    "device n_devices host_cores versions program corpus_sha256 data.tokenizer".split()
)
