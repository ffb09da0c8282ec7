"""How often a run evaluates and saves, counted by going through all its steps."""

import pytest
import tiny

from gptjax.run.boundaries import n_checkpoints, n_evaluations, n_saves


@pytest.mark.parametrize(
    ("last", "evaluate", "save"), [(12, 5, 5), (12, 4, 6), (30, 7, 4), (1, 9, 9), (0, 3, 2)]
)
def test_as_the_loop_counts(last, evaluate, save):
    config = tiny.config(train__max_iters=last, eval__interval=evaluate, checkpoint__interval=save)
    evaluated = {n for n in range(last + 1) if n % evaluate == 0 or n == last}
    saved = evaluated | {n for n in range(last + 1) if n % save == 0}
    assert n_evaluations(config) == len(evaluated)
    assert n_saves(config) == len(saved)


def test_what_is_on_the_disk_at_once():
    config = tiny.config(checkpoint__keep=3)
    assert n_checkpoints(config, 1000) == 5
    assert n_checkpoints(config, 0) == 2
