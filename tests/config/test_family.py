"""Sweep files: what they list becomes members; what makes no sense is refused by name."""

from pathlib import Path

import pytest

from gptjax.config.config import flat
from gptjax.config.config_file import load_config
from gptjax.config.family import RATES, laptop_family, load_family
from gptjax.system.errors import UserError

SWEEPS = sorted((Path(__file__).parents[2] / "configs" / "sweeps").glob("*.py"))

FILE = """
from gptjax.config import default_config

def get_config():
    return default_config()

def get_sweep():
    return {sweep}
"""


def family(tmp_path, sweep, overrides=None):
    path = tmp_path / "sweep.py"
    path.write_text(FILE.format(sweep=sweep))
    return load_family(str(path), overrides or {})


def test_members_are_all_combinations(tmp_path):
    sweep = (
        '{"size": [{"model.n_layer": 2, "model.n_head": 3, "model.n_embd": 6},'
        '{"model.n_layer": 2, "model.n_head": 3, "model.n_embd": 9}],'
        '"optim.learning_rate": [1e-3, 2e-3], "seed": [7], "train.max_iters": [5, 11]}'
    )
    found = family(tmp_path, sweep, {"train.batch_size": "3"})
    members = list(found.members())
    assert [m.name for m in members[:3]] == [
        # Only what tells them apart: not n_head, and no seed, of which there is one.
        "n_layer2-n_head3-n_embd6-learning_rate0.001-max_iters5",
        "n_layer2-n_head3-n_embd6-learning_rate0.001-max_iters11",
        "n_layer2-n_head3-n_embd6-learning_rate0.002-max_iters5",
    ]
    assert len({m.name for m in members}) == len(members) == 8
    assert found.has_lengths and not laptop_family("synthetic").has_lengths
    last = members[-1].values
    changed = {name for name, value in last.items() if value != found.base[name]}
    assert changed == {"model.n_layer", "model.n_head", "model.n_embd"} | {
        "optim.learning_rate",
        "seed",
        "train.max_iters",
    }
    assert (last["seed"], last["train.batch_size"], last["model.n_embd"]) == (7, 3, 9)
    assert found.setting(last) == "n_layer 2, n_head 3, n_embd 9, learning_rate 0.002"


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_sweeps_that_come_with_it_load(path):
    found = load_family(str(path), {})
    assert len(list(found.members())) > 6
    assert found.base == flat(load_config(str(path), {})), "it is a config file as well"


def test_the_family_without_a_file_is_the_fast_recipe(tmp_path):
    found = laptop_family("text:~/a.txt")
    fast = flat(load_config(str(SWEEPS[0].parents[1] / "shakespeare_char_fast.py"), {}))
    differ = {name for name, value in found.base.items() if value != fast[name]}
    ours = {"data.source", "data.fallback", "out_dir", "eval.interval", "eval.max_tokens"}
    assert differ == ours | {"checkpoint.interval", "checkpoint.keep"}
    assert not found.base["data.source"].startswith("text:~")
    members = list(found.members())
    assert len(members) == 12
    assert {tuple(m.values[name] / fast[name] for name in RATES) for m in members} == {
        (0.5, 0.5, 0.5),
        (1.0, 1.0, 1.0),
        (2.0, 2.0, 2.0),
    }


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("[]", "returned no dict of lists"),
        ('{"seed": 3}', "'seed' is no list of values"),
        ('{"sed": [3]}', "unknown knob sed. did you mean 'seed'?"),
        ('{"a": [{"seed": 1}, {"optim.beta1": 0.5}]}', "'a' has other knobs in each place"),
        ('{"seed": [3, 4, 3]}', "'seed' lists a value twice"),
        ('{"seed": [3, 4], "a": [{"seed": 1}]}', "lists seed twice"),
        ('{"model.block_size": [32, 64]}', "lists model.block_size; losses are then different"),
        ('{"data.source": ["synthetic"]}', "lists data.source; losses are then different"),
        ('{"log.interval": [1, 2]}', "lists log.interval, which changes no loss"),
        ('{"model.n_embd": [6, 9]}', "model.n_embd: 6; is not divisible"),
        ('{"seed": [1.5]}', "sweep.py: base: seed: 1.5; must be an integer"),
        ('{"seed": list(range(200)), "train.max_iters": list(range(200))}', "40,000 members"),
    ],
)
def test_what_makes_no_sense_is_one_clear_error(tmp_path, sweep, message):
    with pytest.raises(UserError) as e:
        family(tmp_path, sweep)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match="sweep file: none.py; no such file"):
        load_family("none.py", {})
    path = SWEEPS[0].parents[1] / "shakespeare_char.py"
    with pytest.raises(UserError, match=r"has no get_sweep\(\)"):
        load_family(str(path), {})


def test_a_knob_that_is_listed_is_not_overridden(tmp_path):
    with pytest.raises(UserError, match="--config.seed: 4; is listed in"):
        family(tmp_path, '{"seed": [1, 2]}', {"seed": "4"})
