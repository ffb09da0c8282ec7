"""What of a config may not be meant."""

import dataclasses

import pytest
import tiny

from gptjax.run.costs import Costs
from gptjax.run.planned_data import planned_data
from gptjax.speed import outlook
from gptjax.speed.plan_warnings import warnings


def said(n_tokens={"train": 1000, "val": 100}, **knobs):  # noqa: B006
    config = tiny.config(data__source="tfds:lm1b", **knobs)
    data = dataclasses.replace(planned_data(config), n_tokens=n_tokens)
    return list(warnings(config, data, outlook.counts(config, data, Costs(0, 1.0, 1.0))))


def test_nothing_is_said_of_a_config_that_is_meant():
    assert said() == [] and said(n_tokens={"train": 0, "val": 0}) == []


@pytest.mark.parametrize("horizon", [0, 12])
def test_one_horizon(horizon):
    assert said(optim__lr_decay_iters=horizon) == []


def test_a_schedule_longer_than_the_run():
    (words,) = said(optim__lr_decay_iters=24)
    assert "longer than the run: lr_decay_iters 24, 12 updates" in words
    # Update 11, after 2 of warmup: 9/22 of a cosine from 1e-3 to 1e-4.
    assert "ends at 0.000677, not at 0.0001" in words


def test_a_schedule_shorter_than_the_run():
    (words,) = said(optim__lr_decay_iters=8)
    assert "the last 4 of 12 updates are made at min_lr 0.0001" in words
    assert said(optim__lr_decay_iters=8, optim__schedule="constant") == []


def test_a_run_that_ends_while_it_warms_up():
    (words,) = said(optim__warmup_iters=99)
    assert "12 updates, warmup_iters 99; the learning rate gets to 0.00012 of 0.001" in words


def test_many_epochs_without_dropout():
    (words,) = said(train__max_iters=500)
    assert words.startswith("21 epochs without dropout") and "make 476 updates" in words
    assert said(train__max_iters=476) == [] == said(train__max_iters=500, model__dropout=0.1)


def test_a_context_longer_than_val():
    (words,) = said(n_tokens={"train": 1000, "val": 7})
    assert "context of 7 is longer than val, which has 7" in words and "block_size=6" in words
