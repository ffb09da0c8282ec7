"""The five updates whose losses are known: known from float64, and told apart from wrong ones."""

import jax
import numpy as np
import pytest

from gptjax.device import known_run
from gptjax.device.known_run import EXPECTED, TOLERANCE, Outcome
from gptjax.update import optim


def test_the_expected_losses_are_those_of_float64(x64):
    found = known_run.losses(jax.devices("cpu")[0], "float64")
    np.testing.assert_allclose(found, EXPECTED, rtol=0, atol=5.1e-8)


def test_this_machine_computes_right():
    outcome = known_run.known_run(jax.devices("cpu")[0])
    assert outcome.is_right, outcome.in_words()
    assert outcome.in_words().endswith("ok, five updates end at loss 3.1548 as they should")


@pytest.mark.slow
def test_products_of_fewer_digits_are_noticed():
    outcome = Outcome("cpu:0", known_run.losses(jax.devices("cpu")[0], "bfloat16"))
    assert 10 * TOLERANCE < outcome.off_by < 0.01 and not outcome.is_right


def test_a_wrong_update_is_noticed(monkeypatch):
    build = optim.optimizer

    def slower(config):
        config = config.copy_and_resolve_references()
        config.optim.learning_rate *= 0.999
        return build(config)

    monkeypatch.setattr(known_run.optim, "optimizer", slower)
    outcome = known_run.known_run(jax.devices("cpu")[0])
    assert not outcome.is_right and outcome.losses[0] == pytest.approx(EXPECTED[0], abs=TOLERANCE)


def test_what_is_wrong_is_told():
    off = (*EXPECTED[:4], EXPECTED[4] + 0.25)
    assert (
        Outcome("cuda:0", off)
        .in_words()
        .startswith("cuda:0: off by 0.25: something is broken (losses 3.3751, ")
    )
    assert not Outcome("cuda:0", (float("nan"),) * 5).is_right
    assert Outcome("cuda:0", off).to_json()["is_right"] is False
