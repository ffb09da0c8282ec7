"""What a sweep trains, and that a command given again trains the same."""

import json

import pytest
import tiny

from gptjax.config.config import flat
from gptjax.config.family import Axis, Family
from gptjax.explain.sweep_plan import MemberCost
from gptjax.explain.sweep_schedule import groups, jobs, schedule, size_of, sizes, stored
from gptjax.system.errors import UserError


def family(**axes):
    base = flat(tiny.config(train__max_iters=1000, optim__warmup_iters=50))
    given = {name.replace("__", "."): values for name, values in axes.items()}
    made = [Axis(name, tuple({name: value} for value in values)) for name, values in given.items()]
    return Family(base, tuple(made))


SIZES = dict(model__n_embd=[15, 30], optim__learning_rate=[1e-3, 2e-3])


def costs_of(found):
    return {size: MemberCost(0.01 * (i + 1), 1.0) for i, size in enumerate(sizes(found))}


def test_sizes_are_what_one_program_trains():
    found = sizes(family(**SIZES, seed=[1, 2, 3]))
    assert [n_alike for _, n_alike in found.values()] == [6, 6]
    assert [values["model.n_embd"] for values, _ in found.values()] == [15, 30]


def test_a_family_without_lengths_gets_three_of_each(tmp_path):
    found = family(**SIZES)
    made = jobs(found, tmp_path, costs_of(found), 8.0)
    assert [job.name for job in made[:3]] == [
        f"n_embd15-learning_rate0.001-max_iters{n}" for n in (200, 400, 800)
    ]
    assert [job.values["optim.warmup_iters"] for job in made[:3]] == [10, 20, 40]
    assert [job.values["train.max_iters"] for job in made[-3:]] == [100, 200, 400]
    assert made[0].values["out_dir"] == str(tmp_path / made[0].name)
    assert made[0].setting == "n_embd 15, learning_rate 0.001"


def test_lengths_that_are_listed_stay_and_the_longest_are_left_out(tmp_path):
    found = family(**SIZES, train__max_iters=[100, 900], seed=[4, 3])
    given = dict(budget=80, spent=10, run_seconds=60)
    made = schedule(found, tmp_path, costs_of(found), **given)
    every = jobs(found, tmp_path, costs_of(found), 0.0)
    assert len(made.jobs) + made.n_left_out == len(every) == 16
    assert made.n_left_out and sum(map(made.expected, made.jobs)) < 0.9 * 70
    assert {job.values["optim.warmup_iters"] for job in every} == {50}
    # One seed of all before the other: the lower first.
    turns = [job.turn for job in made.jobs]
    assert turns == sorted(turns)
    assert {job.values["seed"] for job in made.jobs if job.turn == 0} == {3}


def test_what_is_stored_is_read_again(tmp_path):
    found = family(**SIZES)
    made = schedule(found, tmp_path, costs_of(found), budget=200, spent=9, run_seconds=60)
    assert stored(json.loads(json.dumps(made.to_json())), found, tmp_path) == made
    with pytest.raises(KeyError):
        stored({**made.to_json(), "members": ["another"]}, found, tmp_path)


def test_no_time_at_all_is_refused(tmp_path):
    found = family(**SIZES, train__max_iters=[100, 900])
    with pytest.raises(UserError, match="--budget: 3 s; the shortest member takes 2 s, after 1 s"):
        schedule(found, tmp_path, costs_of(found), budget=3, spent=1, run_seconds=60)


def test_groups_are_alike(tmp_path):
    found = family(**SIZES, train__max_iters=[100], seed=[1])
    made = jobs(found, tmp_path, costs_of(found), 0.0)
    pairs = groups(made, lambda values, n: n)
    assert [[job.values["model.n_embd"] for job in pair] for pair in pairs] == [[15, 15], [30, 30]]
    assert [len(group) for group in groups(made, lambda values, n: 1)] == [1, 1, 1, 1]
    assert size_of(made[0].values) == size_of(made[1].values) != size_of(made[2].values)
