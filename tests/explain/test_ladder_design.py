"""What is run, in which order, and which results make a reading."""

import numpy as np
import pytest

from gptjax.config.config import default_config, flat
from gptjax.explain.ladder_design import design
from gptjax.explain.ladder_ends import End
from gptjax.explain.ladder_plan import Plan
from gptjax.explain.ladder_steps import comparable
from gptjax.system.errors import UserError


def end(label, max_tokens=0, **knobs):
    changes = {name.replace("__", "."): value for name, value in knobs.items()}
    return End(label, comparable({**flat(default_config()), **changes}), max_tokens)


A = end("a", 300, model__block_size=64)
B = end("b", 200, model__block_size=256, model__dropout=0.2, train__max_iters=5000)


def test_rungs_are_the_way_there_and_back():
    found = design([A, B], n_random=0)
    assert [step.name for step in found.steps] == ["context", "length", "dropout"]
    way_there = [set(), {0}, {0, 1}, {0, 1, 2}]
    assert list(found.rungs) == [*way_there, {2}, {1, 2}]
    assert found.corners == (set(), {0, 1, 2})
    assert found.values(found.corners[1]) == B.values
    assert found.words(frozenset()) == "a" and found.words(found.corners[1]) == "b"
    assert found.words(frozenset({1, 2})) == "a with length, dropout of b"
    # All sets of three.
    assert len(design([A, B], n_random=4).rungs) == 8


def test_all_are_read_alike():
    found = design([A, B], n_random=0)
    assert found.context == 64 and found.max_tokens == 300
    assert design([A, end("b", 0, model__dropout=0.1)], n_random=0).max_tokens == 0


def test_jobs_are_seed_by_seed_the_half_first():
    found = design([A, B], n_random=0)
    jobs = found.jobs(Plan((0.1, 0.2), 2, 0.0))
    assert len(jobs) == 2 * 2 * 6
    places = [(job.share, job.place) for job in jobs[::6]]
    assert places == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    assert [job.rung for job in jobs[6:12]] == list(found.rungs)
    assert {job.values["seed"] for job in jobs[6:12]} == {1338}
    # Both ends at the same share of their own runs; the step of the length makes the difference.
    lengths = [job.values["train.max_iters"] for job in jobs[:6]]
    assert lengths == [200, 200, 500, 500, 200, 500]
    assert found.horizon(0.1).updates == (200, 500) and found.horizon(0.1).whole == (2000, 5000)


def test_a_reading_has_the_seeds_that_are_whole():
    found = design([A, B], n_random=0)
    chosen = Plan((0.1, 0.2), 3, 0.0)
    rng = np.random.default_rng(0)
    vals = {(0.1, rung, place): float(rng.normal()) for rung in found.rungs for place in range(3)}
    del vals[0.1, found.rungs[4], 1]
    (reading,) = found.readings(chosen, vals)
    assert reading.horizon.updates == (200, 500) and reading.shares.gap.n_seeds == 2
    a, b = found.corners
    gaps = [vals[0.1, b, place] - vals[0.1, a, place] for place in (0, 2)]
    assert reading.shares.gap.mean == pytest.approx(np.mean(gaps))
    assert found.readings(chosen, {}) == []


def test_other_tokens_have_losses_that_no_ladder_divides():
    with pytest.raises(
        UserError, match="--to: b; has data.tokenizer=gpt2, --from char: losses per"
    ):
        design([A, end("b", data__tokenizer="gpt2")], n_random=0)


def test_two_of_one_name_and_two_that_do_not_differ():
    found = design([A, end("a", model__dropout=0.1)], n_random=0)
    assert found.labels == ("--from", "--to")
    with pytest.raises(UserError, match="--to: c; has the same settings as --from"):
        design([A, end("c", 1, out_dir="elsewhere", log__interval=1)], n_random=0)


def test_its_identity_tells_it_from_others():
    same = design([A, B], n_random=0).identity()
    assert design([A, B], n_random=0).identity() == same
    assert design([A, B], n_random=1).identity() != same
    assert design([B, A], n_random=0).identity() != same
