"""Cards of recipes against the configs and the logs they are of; which run is of which."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from nanogpt_logs import real_log

from gptjax.config.config import flat
from gptjax.config.config_file import load_config
from gptjax.device.formula import formula_flops, nanogpt_params
from gptjax.explain import recipes
from gptjax.explain.recipes import card_of, cards, recognise
from gptjax.explain.series import Evaluations, Fact
from gptjax.explain.sources import read_series

ROOT = Path(__file__).parents[2]


def evaluations(*rows):
    """Of (update, train, val)."""
    update_E, train_E, val_E = np.array(rows, float).reshape(-1, 3).T
    unknown_E = np.full(len(update_E), np.nan)
    return Evaluations(update_E, train_E, val_E, unknown_E, unknown_E, unknown_E)


def facts_of(settings, program="nanoGPT"):
    return {name: Fact(value, "test") for name, value in settings.items()} | {
        "program": Fact(program, "test")
    }


@pytest.mark.parametrize("key", [key for key, card in cards().items() if card.config])
def test_settings_are_those_of_the_config(key):
    card = cards()[key]
    config = flat(load_config(str(ROOT / card.config), {}))
    known = config | {"corpus": config["data.source"]}
    assert {name: known[name] for name in card.settings} == dict(card.settings)
    facts = facts_of(known, card.program)
    assert recognise(facts, evaluations()) == (card, "its settings")
    # Every knob that shapes the model or its training is in it, apart from those of speed.
    apart = {"dropout_generator", "dtype", "param_dtype", "matmul_precision", "attention"}
    apart |= {"attention_rows", "vocab_multiple", "master_weights", "grad_accum_steps"}
    apart |= {"tokens_at_once", "updates_per_dispatch", "remat", "scan_layers"}
    if card.settings["optim.name"] == "adamw":
        apart |= {"muon_learning_rate", "muon_momentum", "decay_share"}
    if card.settings["model.followers"] == 0:
        apart |= {"follower_rows"}
    shaping = {name for name in known if name.partition(".")[0] in ("model", "optim", "train")}
    assert {name.partition(".")[2] for name in shaping - set(card.settings)} == apart


def test_a_run_from_before_a_knob_is_recognised_and_one_with_it_is_not():
    card = cards()["laptop"]
    settings = {name: value for name, value in card.settings.items() if name != "model.followers"}
    assert recognise(facts_of(settings), evaluations()) == (card, "its settings")
    settings["model.followers"] = 2
    assert recognise(facts_of(settings), evaluations()) is None


@pytest.mark.parametrize("key", ["laptop", "default"])
def test_what_is_known_follows_from_the_settings(key):
    card = cards()[key]
    settings = {name.rpartition(".")[2]: value for name, value in card.settings.items()}
    names = ("n_layer", "n_embd", "bias")
    n_params = nanogpt_params(**{name: settings[name] for name in names}, vocab_size=65)
    n_tokens = settings["batch_size"] * settings["block_size"]
    shape = {name: settings[name] for name in ("n_layer", "n_embd", "block_size")}
    flops = formula_flops(**shape, n_params=n_params, n_tokens=n_tokens)
    wanted = dict(parameters=n_params, tokens_per_update=n_tokens, flops_per_update=flops)
    assert {name: card.known[name] for name in wanted} == wanted
    best = min(card.expected, key=lambda point: point.val)
    assert (card.best_update, card.best_val) == (best.update, best.val)
    end = card.expected[-1]
    assert (end.update, end.train, end.val) == (settings["max_iters"], card.train, card.val)
    vals = [end.val for end in card.ends]
    assert max(vals) - min(vals) <= card.device_val + 1e-9


@pytest.mark.parametrize(
    ("name", "key"),
    [("nanogpt_laptop_cpu.log", "laptop"), ("nanogpt_default_mps.log", "default")],
)
def test_real_logs_are_of_their_recipes(name, key):
    series, card = read_series(str(real_log(name))), cards()[key]
    assert series.facts["recipe"] == Fact(card.name, "its settings")
    assert card_of(series) is card
    told = series.evaluations
    expected = [(e.update, e.train, e.val) for e in card.expected]
    np.testing.assert_array_equal(np.stack([told.update_E, told.train_E, told.val_E], 1), expected)
    assert series.updates.loss_U[-1] == card.loss
    assert set(told.val_sem_E) == {card.val_sem} and set(told.train_sem_E) == {card.train_sem}
    for name, value in card.known.items():
        assert series.value(name) == value, name


def test_another_setting_or_an_unknown_one_is_no_recipe():
    card = cards()["laptop"]
    facts = facts_of(card.settings)
    assert recognise(facts, evaluations()) == (card, "its settings")
    # nanoGPT's horizon, where the log does not say that it is the run's end.
    facts["optim.lr_decay_iters"] = Fact(2000, "test")
    assert recognise(facts, evaluations()) == (card, "its settings")
    for name, value in card.settings.items():
        other = (not value) if isinstance(value, bool) else f"{value}1"
        assert recognise(facts | {name: Fact(other, "test")}, evaluations()) is None, name
        if name in recipes.CAME_LATER:
            continue
        assert recognise({k: v for k, v in facts.items() if k != name}, evaluations()) is None
    assert recognise(facts | {"program": Fact("gptjax 0.2.0", "test")}, evaluations()) == (
        cards()["shakespeare_char"],
        "its settings",
    )


def test_digits_tell_a_recipe_unless_something_known_differs():
    card, program = cards()["default"], {"program": Fact("nanoGPT", "log")}
    of_a_4070 = evaluations((4750, 0.63, 1.69), (5000, 0.6224, 1.7044))
    assert recognise(program, of_a_4070) == (card, "its digits")
    assert recognise(program | {"model.n_layer": Fact(6, "log")}, of_a_4070) == (card, "its digits")
    assert recognise(program | {"model.n_layer": Fact(7, "log")}, of_a_4070) is None
    assert recognise({"program": Fact("gptjax 0.2.0", "record")}, of_a_4070) is None
    for row in ((5000, 0.6225, 1.7044), (5000, 0.6224, 1.7045), (4999, 0.6224, 1.7044)):
        assert recognise(program, evaluations(row)) is None
    # Train of one published run, val of another.
    assert recognise(program, evaluations((5000, 0.6224, 1.7120))) is None
    assert recognise(program, evaluations((5000, math.nan, math.nan))) is None


def test_digits_bring_the_settings_with_them(tmp_path):
    log = tmp_path / "five.log"
    log.write_text("step 2000: train loss 1.7648, val loss 1.8857\n")
    series = read_series(str(log))
    assert series.facts["recipe"] == Fact("nanoGPT's laptop recipe", "its digits")
    assert series.facts["model.n_embd"] == Fact(128, "recipe laptop's")
    assert series.value("parameters") == 795_904
    assert series.evaluations.val_sem_E == [0.010]
    log.write_text("step 2000: train loss 1.7649, val loss 1.8857\n")
    series = read_series(str(log))
    assert set(series.facts) == {"program"} and np.isnan(series.evaluations.val_sem_E).all()


def test_standard_errors_are_only_of_the_cards_estimates():
    series = read_series(str(real_log("nanogpt_laptop_cpu.log")))
    unknown_E = np.full(9, np.nan)
    bare = dataclasses.replace(series.evaluations, val_sem_E=unknown_E, train_sem_E=np.full(9, 0.5))
    facts = {**series.facts, "eval.iters": Fact(20, "log")}
    again = recipes.with_recipe(dataclasses.replace(series, evaluations=bare, facts=facts))
    assert set(again.evaluations.train_sem_E) == {0.5}  # What is known stays.
    facts["eval.iters"] = Fact(21, "log")
    again = recipes.with_recipe(dataclasses.replace(series, evaluations=bare, facts=facts))
    assert np.isnan(again.evaluations.val_sem_E).all() and "recipe" in again.facts
