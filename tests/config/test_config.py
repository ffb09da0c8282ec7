"""Configs: defaults, files, command-line overrides, rules, and the JSON a checkpoint keeps.

The rules are written down here a second time, as plain numbers, and compared with config.py's.
"""

import json
import math
import re
from pathlib import Path

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from other_values import OTHER_VALUES

from gptjax.config.config import (
    decay_iters,
    default_config,
    digest,
    flat,
    from_flat,
    model_config,
    padded_vocabulary,
    set_knob,
    validate,
)
from gptjax.config.config_file import knob_help, load_config, split_overrides
from gptjax.config.knobs import KNOBS
from gptjax.device.memory import micro_batches
from gptjax.system.errors import UserError, did_you_mean

CONFIGS = sorted((Path(__file__).parent.parent.parent / "configs").glob("*.py"))


def test_a_home_is_expanded_in_every_knob_that_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "config.py"
    path.write_text(PLAIN_FILE)
    given = {"out_dir": "~/run", "init_from": "~/other", "data.source": "text:~/a: b.txt"}
    config = load_config(str(path), given)
    assert config.out_dir == "/home/me/run" and config.init_from == "/home/me/other"
    assert config.data.source == "text:/home/me/a: b.txt"
    weights = load_config(str(path), {"init_from": "gpt2:~/gpt2"})
    assert weights.init_from == "gpt2:/home/me/gpt2"
    for source in ("tokens:~/t", "tfds:~"):
        wanted = source.replace("tokens:~", "tokens:/home/me")
        assert load_config(str(path), {"data.source": source}).data.source == wanted


def test_a_config_file_that_exits_is_told_in_one_line(tmp_path):
    path = tmp_path / "config.py"
    path.write_text("import sys\n\ndef get_config():\n    sys.exit(3)\n")
    with pytest.raises(UserError, match="config.py:4; SystemExit: 3"):
        load_config(str(path), {})


def test_a_frozen_config_is_one(tmp_path):
    path = tmp_path / "config.py"
    frozen = "return config_dict.FrozenConfigDict(default_config())"
    path.write_text(
        "from ml_collections import config_dict\n"
        f"from gptjax.config import default_config\n\ndef get_config():\n    {frozen}\n"
    )
    assert load_config(str(path), {"model.n_layer": "7"}).model.n_layer == 7


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\0", "config.py; SyntaxError: source code string cannot contain null bytes."),
        ("def get_config(): assert False", "config.py:1; AssertionError. A config"),
        ("def get_config(): open('/nowhere')", "No such file or directory: '/nowhere'. A config"),
        (None, "config.py; is no file"),
    ],
)
def test_what_is_wrong_with_a_config_file_is_told(tmp_path, source, message):
    path = tmp_path / "config.py"
    path.mkdir() if source is None else path.write_text(source)
    with pytest.raises(UserError, match=re.escape(message)):
        load_config(str(path), {})


def test_an_empty_choice_is_shown():
    with pytest.raises(UserError, match='must be one of synthetic, "". Meaning'):
        validate(tiny.config(data__fallback="other"))


@pytest.mark.parametrize(
    ("short", "whole"), [("optim.lr", "learning_rate"), ("train.bs", "batch_size")]
)
def test_a_knobs_initials_lead_to_it(short, whole):
    with pytest.raises(UserError, match=f"did you mean '[a-z]+.{whole}'"):
        split_overrides([f"--config.{short}=1"])


PLAIN_FILE = "from gptjax.config import default_config as get_config\n"


# Knobs that say where things are written or how often something is reported.
# Where a run is written, and how it is watched.
PLACES = (
    "out_dir",
    "init_from",
    "log.interval",
    "log.tensorboard",
    "log.wandb",
    "log.wandb_project",
    "log.wandb_run_name",
    "eval.interval",
    "eval.max_tokens",
    "checkpoint.interval",
    "checkpoint.keep",
    "train.updates_per_dispatch",
)

# Knobs on which the weights of a run depend.
NUMBERS = tuple(
    name
    for name in OTHER_VALUES
    if name.split(".")[0] in ("seed", "data", "model", "optim")
    or name in ("train.max_iters", "train.batch_size", "train.grad_accum_steps")
)


def leaves(tree: dict, prefix: str = "") -> dict:
    """{"section.leaf": value} of nested dictionaries."""
    found = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def config_with(values: dict):
    config = default_config()
    for name, value in values.items():
        set_knob(config, name, value)
    return config


@pytest.fixture(scope="module")
def plain_file(tmp_path_factory):
    """A config file that is the default."""
    path = tmp_path_factory.mktemp("configs") / "plain.py"
    path.write_text(PLAIN_FILE)
    return str(path)


class TestDefault:
    def test_has_every_knob_and_no_other(self):
        values = leaves(default_config().to_dict())
        assert values == {name: knob.default for name, knob in KNOBS.items()}
        assert list(flat(default_config())) == list(KNOBS)

    def test_keeps_all_rules(self):
        validate(default_config())

    @pytest.mark.parametrize("name", KNOBS)
    def test_each_default_keeps_its_own_rule(self, name):
        knob = KNOBS[name]
        assert knob.holds(knob.default)
        assert type(knob.default) in (bool, int, float, str)
        assert knob.meaning

    def test_is_locked(self):
        config = default_config()
        with pytest.raises(AttributeError, match='Did you mean "seed"'):
            config.sed = 1
        with pytest.raises(AttributeError, match='Did you mean "n_layer"'):
            config.model.n_layers = 1
        with pytest.raises(KeyError, match='Did you mean "n_layer"'):
            config.update(model=dict(n_layers=1))

    def test_each_call_makes_a_new_one(self):
        default_config().model.n_layer = 9
        assert default_config().model.n_layer == KNOBS["model.n_layer"].default

    def test_help_lists_every_knob_with_default_and_rule(self):
        text = " ".join(knob_help().split())
        for name, knob in KNOBS.items():
            rule = f" ({knob.rule})" if knob.rule else ""
            line = " ".join(f"--config.{name}={knob.default} {knob.meaning}{rule}".split())
            assert text.count(line) == 1


class TestFiles:
    def test_there_are_some(self):
        assert "shakespeare_char.py" in [path.name for path in CONFIGS]

    @pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
    def test_every_config_loads_locked_with_the_default_s_keys(self, path):
        config = load_config(str(path), {})
        assert config.is_locked
        assert all(config[section].is_locked for section in ("model", "optim", "train"))
        assert leaves(config.to_dict()).keys() == KNOBS.keys()
        assert config.out_dir != default_config().out_dir

    def test_out_dirs_differ(self):
        out_dirs = [load_config(str(path), {}).out_dir for path in CONFIGS]
        assert len(set(out_dirs)) == len(out_dirs)

    def test_laptop_config_is_nanogpt_s_readme_recipe(self):
        # nanoGPT, README.md: the command for "I only have a macbook".
        (path,) = [path for path in CONFIGS if path.stem == "shakespeare_char"]
        recipe = {
            "model.n_layer": 4,
            "model.n_head": 4,
            "model.n_embd": 128,
            "model.block_size": 64,
            "model.dropout": 0.0,
            "model.bias": False,
            "train.batch_size": 12,
            "train.max_iters": 2000,
            "optim.learning_rate": 1e-3,
            "optim.min_lr": 1e-4,
            "optim.warmup_iters": 100,
            "optim.beta1": 0.9,
            "optim.beta2": 0.99,
            "optim.weight_decay": 0.1,
            "optim.grad_clip": 1.0,
            "eval.interval": 250,
        }
        config = load_config(str(path), {})
        assert decay_iters(config) == 2000
        assert {name: flat(config)[name] for name in recipe} == recipe

    def test_gpt2_config_is_nanogpt_s(self):
        # nanoGPT, config/train_gpt2.py and train.py's defaults: 5 * 8 micro-batches of 12.
        (path,) = [path for path in CONFIGS if path.stem == "gpt2_124m"]
        recipe = {
            "model.n_layer": 12,
            "model.n_head": 12,
            "model.n_embd": 768,
            "model.block_size": 1024,
            "model.dropout": 0.0,
            "model.bias": False,
            "model.dtype": "bfloat16",
            "model.param_dtype": "float32",
            "train.batch_size": 5 * 8 * 12,
            "train.max_iters": 600_000,
            "optim.learning_rate": 6e-4,
            "optim.min_lr": 6e-5,
            "optim.warmup_iters": 2000,
            "optim.beta1": 0.9,
            "optim.beta2": 0.95,
            "optim.weight_decay": 0.1,
            "optim.grad_clip": 1.0,
            "eval.interval": 1000,
        }
        config = load_config(str(path), {})
        assert decay_iters(config) == 600_000
        assert {name: flat(config)[name] for name in recipe} == recipe
        assert model_config(config, 50_257).vocab_size == 50_304

    def test_gpt2s_of_every_size_have_its_shapes(self):
        # Radford et al. 2019, table 2, as nanoGPT has them.
        shapes = {"124m": (12, 12, 768), "350m": (24, 16, 1024), "774m": (36, 20, 1280)}
        shapes["1558m"] = (48, 25, 1600)
        found = {
            path.stem.removeprefix("gpt2_"): load_config(str(path), {})
            for path in CONFIGS
            if path.stem.startswith("gpt2_")
        }
        sizes = {
            name: (config.model.n_layer, config.model.n_head, config.model.n_embd)
            for name, config in found.items()
        }
        assert sizes == shapes
        for config in found.values():
            validate(config)
            assert (config.model.block_size, config.train.batch_size) == (1024, 480)
            assert config.optim.min_lr == pytest.approx(config.optim.learning_rate / 10)

    def test_what_begins_with_gpt2s_weights_is_nanogpt_s(self):
        # nanoGPT, config/finetune_shakespeare.py, config/eval_gpt2.py and train.py's defaults.
        found = {path.stem: load_config(str(path), {}) for path in CONFIGS}
        tuned, evaluated = flat(found["finetune_shakespeare"]), flat(found["eval_gpt2"])
        assert tuned["init_from"] == "gpt2:openai-community/gpt2-xl"
        recipe = {
            "model.block_size": 1024,
            "model.dropout": 0.0,
            "train.batch_size": 1 * 32,
            "train.grad_accum_steps": 32,
            "train.max_iters": 20,
            "optim.learning_rate": 3e-5,
            "optim.schedule": "constant",
            "optim.warmup_iters": 0,
            "optim.beta1": 0.9,
            "optim.beta2": 0.95,
            "optim.weight_decay": 0.1,
            "optim.grad_clip": 1.0,
            "eval.interval": 5,
        }
        assert {name: tuned[name] for name in recipe} == recipe
        assert evaluated["init_from"] == "gpt2:openai-community/gpt2"
        recipe = {"train.batch_size": 8, "train.max_iters": 0, "model.block_size": 1024}
        assert {name: evaluated[name] for name in recipe} == recipe
        for name in ("finetune_shakespeare", "eval_gpt2"):
            validate(found[name])
            # Of the weights, where they and the config must agree.
            assert found[name].model.bias and found[name].model.mlp == "gelu_tanh"

    def test_an_edit_within_the_same_second_is_seen_and_no_bytecode_is_left(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("sys.dont_write_bytecode", False)
        path = tmp_path / "edited.py"
        source = PLAIN_FILE.replace(" as get_config", "") + (
            "def get_config():\n    config = default_config()\n    config.seed = 1\n"
            "    return config\n"
        )
        for seed in (1, 2, 3):
            path.write_text(source.replace("seed = 1", f"seed = {seed}"))
            assert load_config(str(path), {}).seed == seed
        assert [file.name for file in tmp_path.iterdir()] == ["edited.py"]

    def test_a_whole_number_in_a_file_is_a_number(self, tmp_path):
        path = tmp_path / "whole.py"
        path.write_text(
            "from gptjax.config import default_config\n"
            "def get_config():\n"
            "    config = default_config()\n"
            "    config.update(optim=dict(grad_clip=2, learning_rate=1))\n"
            "    return config\n"
        )
        config = load_config(str(path), {})
        assert isinstance(config.optim.grad_clip, float)
        assert config.optim.grad_clip == 2.0


class TestOverrides:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("model.n_layer", "6", 6),
            ("train.max_iters", "0", 0),
            ("seed", "4294967295", 2**32 - 1),
            ("optim.learning_rate", "1e-3", 0.001),
            ("optim.learning_rate", "2", 2.0),
            ("optim.min_lr", "-0.0", 0.0),
            ("optim.min_lr", ".5e-4", 0.00005),
            ("model.bias", "true", True),
            ("model.bias", "True", True),
            ("model.bias", "1", True),
            ("optim.master_weights", "false", False),
            ("optim.master_weights", "FALSE", False),
            ("optim.master_weights", "0", False),
            ("out_dir", "out/a run=b", "out/a run=b"),
            ("out_dir", "5", "5"),
            ("out_dir", "-x", "-x"),
            ("data.source", "text:ü.txt", "text:ü.txt"),
            ("data.fallback", "", ""),
        ],
    )
    def test_are_parsed_by_the_knob_s_type(self, plain_file, name, text, value):
        for arguments in ([f"--config.{name}={text}"], [f"--config.{name}", text]):
            overrides, others = split_overrides(arguments)
            assert others == []
            found = flat(load_config(plain_file, overrides))
            assert found[name] == value
            assert type(found[name]) is type(value)
            defaults = flat(default_config())
            assert {key for key in found if found[key] != defaults[key]} <= {name}

    @pytest.mark.parametrize(
        ("name", "text", "wanted"),
        [
            ("model.n_layer", "1.0", "an integer"),
            ("model.n_layer", "1e1", "an integer"),
            ("model.n_layer", "four", "an integer"),
            ("model.n_layer", "", "an integer"),
            ("model.n_layer", "true", "an integer"),
            ("model.n_layer", "9" * 5000, "an integer"),
            ("optim.min_lr", "small", "a number"),
            ("optim.min_lr", "", "a number"),
            ("optim.min_lr", "1,5", "a number"),
            ("model.bias", "maybe", "true or false"),
            ("model.bias", "2", "true or false"),
            ("model.bias", "", "true or false"),
        ],
    )
    def test_of_the_wrong_type_are_refused(self, plain_file, name, text, wanted):
        with pytest.raises(UserError) as caught:
            load_config(plain_file, {name: text})
        assert str(caught.value) == f"--config.{name}: {text!r}; must be {wanted}."

    @pytest.mark.parametrize(
        ("arguments", "overrides", "others"),
        [
            # A bare flag is true, before another flag and at the end.
            ("--config.model.bias", {"model.bias": "true"}, ""),
            ("--config.model.bias --config a.py", {"model.bias": "true"}, "--config a.py"),
            ("--config.model.bias false", {"model.bias": "false"}, ""),
            # A negative number is a value, not a flag.
            ("--config.optim.min_lr -1", {"optim.min_lr": "-1"}, ""),
            ("--config.seed 1 --config.seed=2", {"seed": "2"}, ""),
            ("a --config.seed=1 b --c --config=d", {"seed": "1"}, "a b --c --config=d"),
            ("--config.out_dir=a=b", {"out_dir": "a=b"}, ""),
        ],
    )
    def test_are_split_from_other_arguments(self, arguments, overrides, others):
        assert split_overrides(arguments.split()) == (overrides, others.split())

    def test_need_a_value(self):
        with pytest.raises(UserError, match=r"--config\.seed: \(nothing\); needs a value"):
            split_overrides(["--config.seed"])

    def test_are_checked_against_the_rules(self, plain_file):
        with pytest.raises(UserError, match="model.n_layer: 0; must be ≥ 1"):
            load_config(plain_file, {"model.n_layer": "0"})

    def test_win_over_the_file(self):
        for path in CONFIGS:
            assert load_config(str(path), {"train.max_iters": "7777"}).train.max_iters == 7777

    @pytest.mark.parametrize(
        ("typo", "meant"),
        [
            ("model.n_layers", "model.n_layer"),
            ("modle.n_layer", "model.n_layer"),
            ("max_iters", "train.max_iters"),
            ("optim.learning-rate", "optim.learning_rate"),
            ("seeds", "seed"),
            ("checkpoint.keeps", "checkpoint.keep"),
        ],
    )
    def test_misspelt_names_get_a_hint(self, typo, meant):
        with pytest.raises(UserError, match=f"did you mean '{meant}'"):
            split_overrides([f"--config.{typo}=1"])

    @pytest.mark.parametrize("name", ["", "model", "zzz", "n_layer.model.x", "seed."])
    def test_names_of_no_knob_are_refused(self, name):
        with pytest.raises(UserError, match="there is no such knob"):
            split_overrides([f"--config.{name}=1"])

    @settings(deadline=None)
    @given(name=st.sampled_from(list(KNOBS)), text=st.text())
    def test_any_text_gives_a_value_of_the_right_type_or_one_clear_error(
        self, plain_file, name, text
    ):
        try:
            found = flat(load_config(plain_file, {name: text}))[name]
        except UserError as error:
            # A rule between knobs may name the other one.
            assert str(error).partition(": ")[0].removeprefix("--config.") in KNOBS
        else:
            assert type(found) is type(KNOBS[name].default)


class TestHints:
    @pytest.mark.parametrize(
        ("word", "hint"),
        [("sed", "did you mean 'seed'?"), ("seed", "did you mean 'seed'?"), ("qqq", "")],
    )
    def test_names_the_closest_word_or_nothing(self, word, hint):
        assert did_you_mean(word, ["out_dir", "seed", "init_from"]) == hint


# Smallest and largest value of each numeric knob that has one rule of its own.
WHOLE_RANGES = {
    "seed": (0, 2**32 - 1),
    "model.n_layer": (1, 2**31 - 1),
    "model.n_head": (1, 2**31 - 1),
    "model.n_embd": (1, 2**31 - 1),
    "model.block_size": (1, 2**31 - 1),
    "optim.warmup_iters": (0, 2**31 - 1),
    "optim.lr_decay_iters": (0, 2**31 - 1),
    "train.max_iters": (0, 2**31 - 1),
    "train.batch_size": (1, 2**31 - 1),
    "train.grad_accum_steps": (1, 2**31 - 1),
    "train.updates_per_dispatch": (0, 10_000),
    "eval.interval": (1, 2**31 - 1),
    "eval.iters": (1, 1_000_000),
    "eval.max_tokens": (0, 2**31 - 1),
    "checkpoint.interval": (1, 2**31 - 1),
    "checkpoint.keep": (1, 2**31 - 1),
    "log.interval": (1, 2**31 - 1),
    "model.attention_rows": (0, 2**31 - 1),
    "model.vocab_multiple": (1, 1024),
    "model.followers": (0, 8),
    "model.follower_rows": (1, 2**20),
    "train.tokens_at_once": (0, 2**31 - 1),
    "mesh.data": (0, 2**31 - 1),
    "mesh.fsdp": (1, 2**31 - 1),
    "mesh.cpu_devices": (1, 256),
}
# "rate": finite and ≥ 0; "fraction": [0, 1); "share": (0, 1).
FRACTION_KINDS = {
    "data.val_fraction": "share",
    "model.dropout": "fraction",
    "mesh.gpu_memory": "fraction",
    "optim.learning_rate": "rate",
    "optim.min_lr": "rate",
    "optim.muon_learning_rate": "rate",
    "optim.muon_momentum": "fraction",
    "optim.decay_share": "part",
    "optim.beta1": "fraction",
    "optim.beta2": "fraction",
    "optim.weight_decay": "rate",
    "optim.grad_clip": "rate",
}


def own_rule_holds(name, value):
    if name in WHOLE_RANGES:
        low, high = WHOLE_RANGES[name]
        return low <= value <= high
    kind = FRACTION_KINDS[name]
    if kind == "rate":
        return 0.0 <= value <= 1.7976931348623157e308  # the largest float64
    if kind == "part":
        return 0.0 < value <= 1.0
    return (0.0 <= value < 1.0) and not (kind == "share" and value == 0.0)


def common_rules_hold(values):
    """The rules between knobs."""
    horizon = values["optim.lr_decay_iters"]
    decays = values["optim.schedule"] != "constant" and horizon > 0
    return (
        math.gcd(values["model.n_embd"], values["model.n_head"]) == values["model.n_head"]
        and math.gcd(values["train.batch_size"], values["train.grad_accum_steps"])
        == values["train.grad_accum_steps"]
        and values["optim.learning_rate"] - values["optim.min_lr"] >= 0
        and not (decays and values["optim.warmup_iters"] >= horizon)
    )


whole_numbers = st.one_of(
    st.integers(-3, 12),
    st.integers(),
    st.sampled_from([2**31 - 1, 2**31, 2**32 - 1, 2**32, 10**400]),
)
fractions = st.one_of(
    st.floats(), st.floats(-0.5, 1.5), st.sampled_from([0.0, -0.0, 1.0, 1e-3, 1e-4])
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def numeric_knobs(draw):
    """A few numeric knobs with arbitrary values of the right type."""
    names = draw(st.sets(st.sampled_from([*WHOLE_RANGES, *FRACTION_KINDS]), min_size=1, max_size=4))
    return {
        name: draw(whole_numbers if name in WHOLE_RANGES else fractions) for name in sorted(names)
    }


class TestRules:
    def test_the_tables_here_name_every_numeric_knob(self):
        numeric = {name for name, knob in KNOBS.items() if type(knob.default) in (int, float)}
        assert {*WHOLE_RANGES, *FRACTION_KINDS} == numeric

    @pytest.mark.parametrize("name", [*WHOLE_RANGES, *FRACTION_KINDS])
    def test_each_numeric_rule_at_its_edges(self, name):
        edges = [-1, 0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32]
        edges += [limit + by for limit in WHOLE_RANGES.get(name, ()) for by in (-1, 0, 1)]
        if name in FRACTION_KINDS:
            below_1, smallest = math.nextafter(1.0, 0.0), math.nextafter(0.0, 1.0)
            edges = [-math.inf, -smallest, -0.0, 0.0, smallest, below_1, 1.0, math.inf, math.nan]
        for value in edges:
            assert bool(KNOBS[name].holds(value)) == own_rule_holds(name, value), value

    @settings(deadline=None, max_examples=500)
    @given(values=numeric_knobs(), schedule=st.sampled_from(["cosine", "constant", "linear"]))
    def test_validate_accepts_what_keeps_the_rules_and_refuses_the_rest(self, values, schedule):
        config = config_with({**values, "optim.schedule": schedule})
        broken = [name for name, value in values.items() if not own_rule_holds(name, value)]
        if not broken and common_rules_hold(flat(config)):
            validate(config)
            return
        with pytest.raises(UserError) as caught:
            validate(config)
        if broken:
            name, rest = str(caught.value).split(": ", 1)
            assert name in broken
            assert rest.startswith(f"{values[name]!r}; must be ")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"model.n_embd": 384, "model.n_head": 5},
                "model.n_embd: 384; is not divisible by model.n_head 5. Try n_head 3, 4, 6.",
            ),
            (
                {"model.n_embd": 4, "model.n_head": 8},
                "model.n_embd: 4; is not divisible by model.n_head 8. Try n_head 1, 2, 4.",
            ),
            (
                {"optim.min_lr": 0.01, "optim.learning_rate": 0.001},
                "optim.min_lr: 0.01; must be ≤ learning_rate 0.001.",
            ),
            (
                {"optim.warmup_iters": 60, "optim.lr_decay_iters": 60},
                "optim.warmup_iters: 60; must be < lr_decay_iters 60. "
                "Set --config.optim.warmup_iters=3.",
            ),
            (
                {"train.batch_size": 12, "train.grad_accum_steps": 5},
                "train.batch_size: 12; is not divisible by train.grad_accum_steps 5.",
            ),
            (
                {"train.batch_size": 4, "train.grad_accum_steps": 8},
                "train.batch_size: 4; is not divisible by train.grad_accum_steps 8.",
            ),
        ],
    )
    def test_between_knobs(self, values, message):
        with pytest.raises(UserError) as caught:
            validate(config_with(values))
        assert str(caught.value) == message

    @pytest.mark.parametrize(
        "values",
        [
            {"optim.warmup_iters": 2000},
            {"optim.warmup_iters": 100, "train.max_iters": 20},
            {"optim.warmup_iters": 5000, "optim.schedule": "constant"},
            {"optim.warmup_iters": 5000, "optim.lr_decay_iters": 5001},
            {"train.max_iters": 0},
            {"optim.min_lr": 1e-3, "optim.learning_rate": 1e-3},
            {"train.batch_size": 12, "train.grad_accum_steps": 12},
            {"model.n_embd": 7, "model.n_head": 7},
            OTHER_VALUES,
        ],
        ids=str,
    )
    def test_values_at_the_edge_are_accepted(self, values):
        validate(config_with(values))

    @pytest.mark.parametrize("name", ["data.fallback", "model.dtype", "optim.schedule"])
    def test_a_choice_names_all_choices(self, name):
        with pytest.raises(UserError, match=f"{name}: 'float17'; must be one of "):
            validate(config_with({name: "float17"}))

    @pytest.mark.parametrize("name", ["out_dir", "init_from", "data.source"])
    def test_empty_text_is_refused(self, name):
        with pytest.raises(UserError, match=f"{name}: ''; must not be empty"):
            validate(config_with({name: ""}))

    def test_nothing_in_place_of_a_value_is_refused(self):
        with pytest.raises(UserError, match="seed: None; must be an integer"):
            validate(config_with({"seed": None}))

    def test_a_mistyped_width_is_refused_at_once(self):
        # Looking at each of so many numbers as a divisor would take minutes.
        with pytest.raises(UserError, match="Try n_head 1, 2, 4"):
            validate(config_with({"model.n_embd": 2**31 - 4, "model.n_head": 3}))


class TestStoredConfigs:
    def test_the_table_here_names_every_knob_with_another_value(self):
        assert OTHER_VALUES.keys() == KNOBS.keys()
        assert all(OTHER_VALUES[name] != knob.default for name, knob in KNOBS.items())

    def test_json_brings_every_value_back_with_its_type(self):
        stored = json.loads(json.dumps(flat(config_with(OTHER_VALUES))))
        restored = leaves(from_flat(stored, origin="test").to_dict())
        assert restored == OTHER_VALUES
        for name, value in restored.items():
            assert type(value) is type(OTHER_VALUES[name])

    def test_flat_names_the_knobs_in_order(self):
        assert list(flat(config_with(OTHER_VALUES)).items()) == [
            (name, OTHER_VALUES[name]) for name in KNOBS
        ]

    def test_absent_knobs_get_their_defaults(self):
        config = from_flat({"model.n_layer": 3}, origin="test")
        assert leaves(config.to_dict()) == {**flat(default_config()), "model.n_layer": 3}

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("model.n_layers", 3, "a checkpoint: model.n_layers: 3; unknown knob."),
            ("model", {"n_layer": 3}, "a checkpoint: model: {'n_layer': 3}; unknown knob."),
            ("seed", True, "a checkpoint: seed: True; must be an integer."),
            ("seed", 1.0, "a checkpoint: seed: 1.0; must be an integer."),
            ("seed", "1", "a checkpoint: seed: '1'; must be an integer."),
            ("seed", None, "a checkpoint: seed: None; must be an integer."),
            ("seed", [1], "a checkpoint: seed: [1]; must be an integer."),
            ("optim.min_lr", 0, "a checkpoint: optim.min_lr: 0; must be a number."),
            ("optim.min_lr", "nan", "a checkpoint: optim.min_lr: 'nan'; must be a number."),
            ("model.bias", 0, "a checkpoint: model.bias: 0; must be true or false."),
            ("out_dir", 5, "a checkpoint: out_dir: 5; must be text."),
            ("optim.min_lr", math.nan, "optim.min_lr: nan; must be finite and ≥ 0."),
            ("model.n_layer", 0, "model.n_layer: 0; must be ≥ 1 and < 2**31."),
        ],
    )
    def test_unknown_names_wrong_types_and_broken_rules_are_refused(self, name, value, message):
        with pytest.raises(UserError) as caught:
            from_flat({name: value}, origin="a checkpoint")
        assert str(caught.value).startswith(message)

    @settings(deadline=None)
    @given(values=st.dictionaries(st.sampled_from(list(KNOBS)), json_values))
    def test_whatever_json_holds_gives_a_config_or_one_clear_error(self, values):
        try:
            config = from_flat(values, origin="test")
        except UserError:
            return
        for name, value in values.items():
            assert flat(config)[name] == value


class TestDigest:
    @pytest.mark.parametrize("name", NUMBERS)
    def test_changes_with_what_changes_the_numbers(self, name):
        assert digest(config_with({name: OTHER_VALUES[name]})) != digest(default_config())

    def test_ignores_where_a_run_is_written_and_how_often_it_reports(self):
        elsewhere = config_with({name: OTHER_VALUES[name] for name in PLACES})
        assert digest(elsewhere) == digest(default_config())

    def test_does_not_depend_on_the_process(self):
        assert digest(from_flat(flat(default_config()), origin="test")) == digest(default_config())
        assert len(digest(default_config())) == 16


@pytest.mark.parametrize(
    ("knobs", "platform", "n_devices", "wanted"),
    [
        ({}, "cpu", 1, 1),  # the laptop recipe: 768 tokens
        (dict(batch_size=64, block_size=256), "cpu", 1, 8),
        (dict(batch_size=64, block_size=256), "cpu", 2, 4),
        (dict(batch_size=64, block_size=256), "gpu", 1, 1),
        (dict(batch_size=64, block_size=256, grad_accum_steps=2), "cpu", 1, 8),
        (dict(batch_size=64, block_size=256, grad_accum_steps=32), "cpu", 1, 32),
        (dict(batch_size=64, block_size=256, tokens_at_once=600), "gpu", 1, 32),
        (dict(batch_size=10, block_size=1000), "cpu", 1, 5),
        (dict(batch_size=7, block_size=1000), "cpu", 1, 7),
        (dict(batch_size=6, block_size=5000), "cpu", 3, 2),  # a sequence a device at least
    ],
)
def test_batches_are_cut_to_what_a_cpu_is_quick_at(knobs, platform, n_devices, wanted):
    config = default_config()
    for name, value in knobs.items():
        (config.model if name == "block_size" else config.train)[name] = value
    assert micro_batches(config, platform, n_devices) == wanted


@pytest.mark.parametrize(
    ("n_symbols", "multiple", "padded"),
    [(50_257, 128, 50_304), (50_257, 64, 50_304), (65, 1, 65), (64, 64, 64), (65, 64, 128)],
)
def test_a_vocabulary_is_padded_up_to_a_multiple(n_symbols, multiple, padded):
    """nanoGPT, model.py: GPT-2's 50,257 become 50,304."""
    assert padded_vocabulary(n_symbols, multiple) == padded
    config = config_with({"model.vocab_multiple": multiple})
    assert model_config(config, n_symbols).vocab_size == padded
