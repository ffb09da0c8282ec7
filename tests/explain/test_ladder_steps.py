"""Differences in steps that can be switched: which belong together, in which orders, how short."""

import itertools

import pytest
from other_values import OTHER_VALUES

from gptjax.config.config import default_config, flat, from_flat, validate
from gptjax.config.knobs import KNOBS
from gptjax.explain.ladder_steps import (
    Step,
    comparable,
    orders,
    rung_values,
    rungs,
    seeds,
    shortened,
    steps_between,
)


def values(**knobs):
    changes = {name.replace("__", "."): value for name, value in knobs.items()}
    return comparable({**flat(default_config()), **changes})


def steps_of(a, b):
    return {step.name: step.words for step in steps_between(a, b)}


def test_what_is_changed_together_is_one_step():
    b = values(
        model__n_layer=6,
        model__n_embd=384,
        model__block_size=256,
        model__dropout=0.2,
        model__dtype="bfloat16",
        model__param_dtype="bfloat16",
        train__batch_size=64,
        train__grad_accum_steps=2,
        train__max_iters=5000,
        optim__warmup_iters=200,
        optim__schedule="constant",
        optim__beta2=0.95,
        optim__weight_decay=0.2,
        optim__grad_clip=0.0,
        optim__learning_rate=1e-2,
        data__source="synthetic",
        seed=1,
    )
    assert list(steps_of(values(), b).items()) == [
        ("corpus", "source tiny_shakespeare → synthetic"),
        ("model size", "n_layer 4 → 6, n_embd 128 → 384"),
        ("context", "block_size 64 → 256"),
        ("batch", "batch_size 12 → 64, grad_accum_steps 1 → 2"),
        ("length", "max_iters 2000 → 5000, schedule cosine → constant, warmup_iters 100 → 200"),
        ("dropout", "dropout 0.0 → 0.2"),
        ("learning rate", "learning_rate 0.001 → 0.01"),
        ("optimizer", "beta2 0.99 → 0.95, weight_decay 0.1 → 0.2, grad_clip 1.0 → 0.0"),
        ("precision", "dtype float32 → bfloat16, param_dtype float32 → bfloat16"),
        ("seed", "seed 1337 → 1"),
    ]


def test_another_optimizer_comes_with_its_rates():
    b = values(optim__name="muon", optim__learning_rate=5e-3, optim__beta1=0.8, model__n_layer=2)
    assert steps_of(values(), b) == {
        "model size": "n_layer 4 → 2",
        "optimizer": "name adamw → muon, beta1 0.9 → 0.8, learning_rate 0.001 → 0.005",
    }
    a = values(optim__name="muon")
    b = values(optim__name="muon", optim__muon_learning_rate=0.01, optim__muon_momentum=0.9)
    assert set(steps_of(a, b)) == {"learning rate", "optimizer"}


def test_what_cannot_change_a_number_is_no_difference():
    watching = dict(out_dir="elsewhere", log__interval=1, eval__interval=7, checkpoint__keep=9)
    machine = dict(mesh__data=4, mesh__cpu_devices=4, data__fallback="")
    idle = dict(
        model__dropout_generator="philox",
        optim__muon_learning_rate=0.5,
        optim__muon_momentum=0.5,
        optim__decay_share=0.1,
        model__follower_rows=5,
        optim__master_weights=False,
        optim__lr_decay_iters=2000,  # as many as all
    )
    assert steps_of(values(), values(**watching, **machine, **idle)) == {}
    assert steps_of(values(), values(optim__lr_decay_iters=2001)) == {
        "length": "lr_decay_iters 0 → 2001"
    }
    # What is idle in one end alone is switched with what wakes it.
    b = values(model__dropout=0.1, model__dropout_generator="philox")
    assert steps_of(values(), b) == {
        "dropout": "dropout 0.0 → 0.1, dropout_generator threefry → philox"
    }


@pytest.mark.parametrize(
    "name",
    [
        n
        for n, k in KNOBS.items()
        if k.in_digest and k.on_resume != "machine" and n != "data.fallback"
    ],
)
def test_every_knob_that_can_change_a_number_is_in_a_step(name):
    awake = dict(model__dropout=0.1, model__param_dtype="bfloat16", optim__schedule="linear")
    a = values(**awake, optim__name="muon", model__followers=2)
    other = OTHER_VALUES[name] if a[name] != OTHER_VALUES[name] else KNOBS[name].default
    b = {**a, name: other}
    assert name in [knob for step in steps_between(a, b) for knob, _, _ in step.changes]


def test_every_rung_keeps_the_rules():
    """Rotary positions want heads of an even width: 15 / 3 is odd, 16 / 2 is not."""
    a = values(model__n_embd=15, model__n_head=3)
    b = values(model__n_embd=16, model__n_head=2, model__position="rotary", model__dropout=0.1)
    steps = steps_between(a, b)
    assert [step.name for step in steps] == ["model size and architecture", "dropout"]
    for n in range(3):
        for switched in itertools.combinations(range(2), n):
            validate(from_flat(rung_values(a, steps, switched), origin="test"))
    assert rung_values(a, steps, (0, 1)) == b and rung_values(a, steps, ()) == a
    # Without that conflict the two stay apart.
    a = values(model__n_embd=18, model__n_head=3)
    assert len(steps_between(a, b)) == 3


def test_a_rung_has_the_switched_steps_of_the_second_end():
    a, b = values(), values(model__n_layer=2, model__dropout=0.1, train__batch_size=4)
    steps = steps_between(a, b)
    rung = rung_values(a, steps, {2})
    assert {name for name in rung if rung[name] != a[name]} == {"model.dropout"}
    assert rung["model.dropout"] == 0.1


def test_the_stated_order_its_reverse_and_others():
    assert orders(3, 0, seed=0) == [(0, 1, 2), (2, 1, 0)]
    found = orders(4, 5, seed=0)
    assert found[:2] == [(0, 1, 2, 3), (3, 2, 1, 0)]
    assert len(found) == len(set(found)) == 7
    assert all(sorted(order) == [0, 1, 2, 3] for order in found)
    assert found == orders(4, 5, seed=0) != orders(4, 5, seed=1)
    # There are no more than these.
    assert sorted(orders(3, 99, seed=0)) == sorted(itertools.permutations(range(3)))
    assert orders(1, 9, seed=0) == [(0,)] and orders(2, 9, seed=0) == [(0, 1), (1, 0)]


def test_rungs_on_the_way():
    assert list(rungs((2, 0, 1))) == [set(), {2}, {0, 2}, {0, 1, 2}]


def test_a_short_run_is_the_whole_recipe_shorter():
    a = values(train__max_iters=2000, optim__warmup_iters=100, optim__lr_decay_iters=1800)
    short = shortened(a, 0.14)
    changed = {name: short[name] for name in a if short[name] != a[name]}
    assert changed == {
        "train.max_iters": 280,
        "optim.warmup_iters": 14,
        "optim.lr_decay_iters": 252,
    }
    assert shortened(a, 1) == a
    assert shortened(values(), 0.5)["optim.lr_decay_iters"] == 0  # as many as all
    least = shortened(values(optim__lr_decay_iters=101), 0.001)
    assert (least["train.max_iters"], least["optim.lr_decay_iters"]) == (2, 1)
    validate(from_flat(least, origin="test"))


def test_rungs_have_the_same_seeds():
    a, b = values(), values(model__dropout=0.1)
    assert seeds(a, b, a, 3) == seeds(a, b, b, 3) == [1337, 1338, 1339]
    # Where the ends' own seeds differ, none of one is the other's.
    b = values(seed=1340)
    of_a, of_b = seeds(a, b, a, 9), seeds(a, b, b, 9)
    assert of_a[0] == 1337 and of_b[0] == 1340
    assert len({*of_a, *of_b}) == 18
    a = values(seed=2**32 - 1)
    assert seeds(a, a, a, 3) == [2**32 - 1, 0, 1]


def test_words():
    step = Step("model", (("model.n_layer", 4, 6), ("model.bias", False, True)))
    assert step.words == step.brief == "n_layer 4 → 6, bias False → True"
    step = Step("batch", tuple((f"train.{name}", 1, 2) for name in "abcde"))
    assert step.brief == "a 1 → 2, b 1 → 2, c 1 → 2 and 2 more"
