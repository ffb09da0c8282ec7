"""What a log shows of nanoGPT's config, and when its defaults may be taken for known."""

import pytest
from nanogpt_logs import SETTINGS, header

from gptjax.config.nanogpt_flags import COUNTERPARTS
from gptjax.explain.nanogpt_config import DEFAULT, LOG, Config, Seen
from gptjax.explain.nanogpt_lines import NAMES, lines_of
from gptjax.explain.series import Fact

SEEN = Seen(steps=10, iterations=1, last=20, has_mfu=True)


def config_of(lines):
    config = Config()
    for line in lines_of(["".join(f"{line}\n" for line in lines)]):
        config.add(line)
    return config


def told(*lines):
    return config_of(lines).told


def test_every_name_is_one_that_nanogpt_has():
    assert set(NAMES) - {"decay_lr"} <= set(COUNTERPARTS)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("n_layer = 6", 6),
        ("n_layer=6#blocks", 6),
        ("  >  - n_layer = 6  # as many as heads", 6),
        ("12. n_layer = 6", 6),
        ("12  n_layer = 6", 6),
        ("n_layer = 2 * 3 # two by three", 6),
        ("n_layer = 1_0", 10),
        ("Overriding: n_layer = 6", 6),
        ("> Overriding:  n_layer = 6 Overriding: n_head = 3", 6),
        ("Overriding: n_layer = 6 tokens per iteration will be: 7", 6),
        # Made, but not to be read.
        ("n_layer = 6 if True else 7", None),
        ("n_layer = n_head", None),
        ("n_layer = 6.0", None),
        ("n_layer = True", None),
        ("n_layer = '6'", None),
        ("n_layer = -6", None),
        ("n_layer = 10 ** 30", None),
        ("n_layer = 1000000000000000000000000000000", None),
        ("n_layer = " + "(" * 400, None),
        ("n_layer = __import__('os').system('true')", None),
        ("n_layer = 6 n_head = 6", None),
        ("n_layer = 6 # was n_head = 6", None),
        ("# fewer than usual n_layer = 6", None),
        ("with n_layer = 6", None),
        ("n_layer =", None),
        ("Overriding: n_layer = ", None),
        ("Overriding: n_layer = six", None),
    ],
)
def test_a_setting(line, wanted):
    assert told(line)["n_layer"] == wanted


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("dropout = 0", 0.0),
        ("dropout = .5", 0.5),
        ("dropout = 1e999", None),
        ("bias = True", True),
        ("bias = 1", None),
        ("device = 'mps'  # Apple", "mps"),
        ("device = “cuda:1”".replace("“", '"').replace("”", '"'), "cuda:1"),
        ("Overriding: device = cpu", "cpu"),
        ("Overriding: device = cputokens per", None),
        ("dtype = 'bfloat16' if torch.cuda.is_available() else 'float16'", None),
        ("Overriding: dtype = float16", "float16"),
        ("gradient_accumulation_steps = 5 * 8", 40),
        ("learning_rate = 1e-3 # with baby networks", 0.001),
        ("Overriding: init_from = gpt2-xl", "gpt2-xl"),
    ],
)
def test_a_setting_of_another_type(line, wanted):
    (value,) = told(line).values()
    assert value == wanted and type(value) is type(wanted)


def test_what_is_commented_out_or_compared_is_no_setting():
    assert told("# device = 'cpu'", ">  ## compile = False", "assert n_layer == 6") == {}
    assert told("$ python train.py config/x.py --n_layer=6 --device=cpu") == {}


def test_the_last_setting_counts():
    assert told("n_layer = 6", "Overriding: n_layer = 4")["n_layer"] == 4
    assert told("n_layer = 6", "so that n_layer = 7, then")["n_layer"] is None


def test_defaults_are_known_where_the_config_is_seen_being_read():
    values, problem = config_of(header()).values(SEEN)
    assert problem == ""
    assert values["n_layer"] == Fact(2, LOG) and values["beta2"] == Fact(0.95, DEFAULT)
    # Neither has a default that a log tells.
    assert not {"device", "dtype"} & set(values)
    # A setting that was made and cannot be read has no default.
    lines = header()
    config = config_of([*lines[:3], "min_lr = learning_rate / 10", *lines[3:]])
    values, problem = config.values(SEEN)
    assert problem == "" and "min_lr" not in values and "beta2" in values


def test_without_the_beginning_of_the_config_no_default_is_known():
    lines = header()
    for first in range(1, len(SETTINGS)):
        values, _ = config_of(lines[first:]).values(SEEN)
        assert {fact.how for fact in values.values()} == {LOG}
    # No config was read at all, as far as is seen.
    assert config_of(header({}, config="")).values(SEEN)[0] == {}


def test_overrides_alone_are_a_config_unless_the_log_speaks_against_it():
    whole = header({}, SETTINGS, config="")
    values, problem = config_of(whole).values(SEEN)
    assert problem == "" and values["beta2"] == Fact(0.95, DEFAULT)
    # The file before them was cut off; each of its settings shows in another way.
    for name, words in {
        "batch_size": "an update has",
        "gradient_accumulation_steps": "an update has",
        "block_size": "an update has",
        "n_layer": "parameters",
        "n_embd": "parameters",
        "eval_interval": "eval_interval would be 2000",
    }.items():
        cut = [line for line in whole if f" {name} =" not in line]
        values, problem = config_of(cut).values(SEEN)
        assert words in problem, name
        assert {fact.how for fact in values.values()} == {LOG} and name not in values
    seen = Seen(steps=10, iterations=10, last=700_000, has_mfu=True)
    assert "it would" not in config_of(whole).values(seen)[1]
    cut = [line for line in whole if " max_iters" not in line]
    assert config_of(cut).values(seen)[1] == "it would end at 600,000, the log goes on"


def test_an_older_nanogpt_had_other_defaults():
    older = [line for line in header() if not line.startswith("tokens")]
    without = Seen(steps=10, iterations=1, last=20, has_mfu=False)
    values, problem = config_of(older).values(without)
    assert "older" in problem and "beta2" not in values
    settings = {k: v for k, v in SETTINGS.items() if k != "gradient_accumulation_steps"}
    older = [line for line in header(settings) if not line.startswith("tokens")]
    values, problem = config_of(older).values(SEEN)
    assert problem == "" and "gradient_accumulation_steps" not in values and "beta2" in values


def test_what_is_pretrained_has_its_own_shape():
    lines = [
        "Overriding config with config/finetune_shakespeare.py:",
        *("eval_interval = 5", "batch_size = 1", "gradient_accumulation_steps = 32"),
        *("init_from = 'gpt2-xl'", "max_iters = 20", "decay_lr = False"),
        *("tokens per iteration will be: 32,768", "number of parameters: 1555.97M"),
        *("Initializing from OpenAI GPT-2 weights: gpt2-xl", "overriding dropout rate to 0.0"),
    ]
    config = config_of(lines)
    values, problem = config.values(Seen(steps=5, iterations=1, last=20, has_mfu=True))
    assert problem == "" and config.start == "pretrained"
    assert not {"n_layer", "n_head", "n_embd", "bias"} & set(values)
    assert values["block_size"] == Fact(1024, DEFAULT)


def test_figures_beyond_all_sense_are_unknown():
    config = config_of(
        [f"tokens per iteration will be: {10**30}", "found vocab_size = 0 (inside x)"]
        + ["number of parameters: 1e999M"]
    )
    assert config.tokens_per_update is config.vocab_size is config.printed_params is None
