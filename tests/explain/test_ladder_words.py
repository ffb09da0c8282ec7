"""What a ladder says: the number first, the horizon in every sentence, noise as noise."""

import numpy as np
import pytest

from gptjax.explain.ladder_steps import Step
from gptjax.explain.ladder_words import Horizon, Reading, print_table, sentences
from gptjax.explain.shares import shares

STEPS = (
    Step("model", (("model.n_layer", 4, 6),)),
    Step("dropout", (("model.dropout", 0.0, 0.2),)),
    Step("batch", (("train.batch_size", 12, 64),)),
)
ORDERS = [(0, 1, 2), (2, 1, 0)]


def reading(updates=280, whole=2000, *, model=-0.25, dropout=0.03, batch=0.0, n_seeds=3, both=0.0):
    """Steps that add up, but for `both` of model and dropout; batch is 0 ± 0.01 by seed."""
    by_seed = np.array([-1.0, 0.0, 1.0])[:n_seeds] * 0.01

    def losses_of(rung):
        loss_R = np.full(n_seeds, 2.5)
        loss_R += model * (0 in rung) + dropout * (1 in rung) + both * ({0, 1} <= rung)
        return loss_R + (batch + by_seed) * (2 in rung)

    rungs = {frozenset(order[:n]) for order in ORDERS for n in range(4)}
    found = shares({rung: losses_of(rung) for rung in rungs}, ORDERS)
    return Reading(Horizon((updates, updates), (whole, whole)), found)


def said(*readings):
    return sentences(readings, STEPS, ("a", "b"), unit="char")


def test_the_largest_comes_first_and_noise_is_not_told():
    assert said(reading()) == [
        "-0.2200 ± 0.0058 nats/char is the gap at 280 updates (14 % of each whole run), from val "
        "2.5000 with the settings of a to 2.2800 with those of b.",
        "-0.2500 ± 0.0000 at 280 updates comes from model: n_layer 4 → 6.",
        "+0.0300 ± 0.0000 at 280 updates comes from dropout: dropout 0.0 → 0.2.",
        "+0.0000 ± 0.0058 from batch: no difference beyond noise at 280 updates.",
        "Shares at 280 updates are not those at 2,000: dropout costs a short run; what it is worth "
        "shows when a long one overfits.",
    ]


def test_interaction_is_a_sentence_of_its_own():
    found = said(reading(both=0.04))
    # Half of it in each share.
    assert found[1].startswith("-0.2300 ± 0.0000 at 280 updates comes from model")
    assert found[-2] == (
        "0.0400 ± 0.0000 at 280 updates is interaction: model makes -0.2500 or -0.2100, by what is "
        "switched before it."
    )


def test_shares_that_move_between_horizons_are_named():
    early, late = reading(140, dropout=0.06), reading(280)
    assert said(early, late)[-2] == (
        "+0.0600 → +0.0300 dropout: shares that moved: at 140 updates, and at 280 updates."
    )
    assert said(reading(140), late)[-2] == (
        "No share at 140 updates differs from that at 280 updates beyond noise."
    )


def test_of_whole_runs_nothing_is_said_of_longer_ones():
    found = said(reading(2000))
    assert "at 2,000 updates (the whole of both runs)" in found[0]
    assert not any("are not those" in sentence for sentence in found)


def test_one_seed_tells_nothing_from_noise():
    found = said(reading(n_seeds=1))
    assert found[0].startswith("-0.2300 nats/char is the gap")
    assert found[1] == (
        "-0.2500 model, +0.0300 dropout, -0.0100 batch, at 280 updates, of one seed: without an "
        "error bar nothing is told from noise (--seeds 3)."
    )


def test_a_gap_within_noise_is_none():
    found = said(reading(model=0.0, dropout=0.0))
    assert found[0].startswith("+0.0000 ± 0.0058 nats/char is within noise: the gap at 280")
    assert found[1].endswith("no difference beyond noise at 280 updates.")


def test_every_sentence_has_its_horizon_and_there_are_eight_at_most():
    steps = tuple(Step(f"step {i}", (("seed", i, i + 1),)) for i in range(9))
    order = tuple(range(9))
    rng = np.random.default_rng(0)
    losses = {}
    for one in (order, order[::-1]):
        for n in range(10):
            rung = frozenset(one[:n])
            losses.setdefault(rung, -sum(rung) + 0.01 * rng.normal(size=4) + (len(rung) > 5))
    orders = [order, order[::-1]]
    whole = (2000, 5000)
    early = Reading(
        Horizon((100, 250), whole), shares({r: x / 2 for r, x in losses.items()}, orders)
    )
    late = Reading(Horizon((200, 500), whole), shares(losses, orders))
    found = sentences([early, late], steps, ("a", "b"), unit="token")
    assert len(found) <= 8
    assert all("200 → 500" in sentence for sentence in found)
    assert "10 % of each whole run" in found[0] and "2,000 → 5,000" in found[-1]


def test_the_table_sums_to_the_gap(capsys):
    print_table(reading(model=-0.25004, dropout=0.03004, batch=0.00004), STEPS)
    printed = capsys.readouterr().out
    assert "at 280 updates (14 % of each whole run)" in printed
    cells = [line.replace("│", " ").split() for line in printed.splitlines() if "±" in line]
    numbers = [float(next(c for c in row if c[0] in "+-" and "." in c)) for row in cells]
    assert sum(numbers[:3]) == pytest.approx(numbers[3], abs=1e-9)
    assert printed.count("noise") == 1 + 3  # the batch's share, and no interaction is beyond it
