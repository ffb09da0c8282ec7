"""nanoGPT's settings as facts under gptjax's names."""

import pytest
from nanogpt_logs import SETTINGS, header

from gptjax.config.knobs import KNOBS
from gptjax.explain.nanogpt_config import Config, Seen
from gptjax.explain.nanogpt_facts import facts_of
from gptjax.explain.nanogpt_lines import lines_of
from gptjax.explain.series import FACTS, Fact

SEEN = Seen(steps=10, iterations=1, last=20, has_mfu=True)


def facts_in(lines):
    config = Config()
    for line in lines_of(["".join(f"{line}\n" for line in lines)]):
        config.add(line)
    values, problem = config.values(SEEN)
    assert problem == ""
    facts, notes = facts_of(config, values)
    assert all(name in FACTS or name in KNOBS for name in facts)
    return facts, notes


def values_in(lines):
    return {name: fact.value for name, fact in facts_in(lines)[0].items()}


def test_settings_have_our_names():
    found = values_in(header())
    wanted = {
        "model.n_layer": 2,
        "model.n_embd": 4,
        "model.dropout": 0.2,
        "model.bias": False,
        "model.mlp": "gelu",
        "optim.name": "adamw",
        "optim.learning_rate": 6e-4,
        "optim.schedule": "cosine",
        "optim.lr_decay_iters": 0,
        "train.max_iters": 20,
        "train.batch_size": 3,
        "eval.interval": 10,
        "eval.iters": 7,
        "eval.mode": "random",
        "loss_estimate": "random",
        "seed": 1337,
        "vocab_size": 65,
        "corpus": "tiny_shakespeare",
        "data.source": "tiny_shakespeare",
        "tokens_per_update": 15,
        "program": "nanoGPT",
        "compiled": True,
        # 65 x 4 for symbols, two blocks of 12 x 4 x 4 and two norms of 4, one norm.
        "parameters": 260 + 2 * (192 + 8) + 4,
        # (6 x 664 parameters + 12 x 2 layers x 4 x 5) x 15 tokens.
        "flops_per_update": (6 * 664 + 480) * 15.0,
    }
    assert {name: found[name] for name in wanted} == wanted
    assert "device" not in found and "model.dtype" not in found


def test_each_says_how_it_is_known():
    facts, _ = facts_in(header(overrides={"device": "mps"}))
    wanted = {
        "model.n_layer": "log",
        "model.bias": "nanoGPT's default, its config was read",
        "train.batch_size": "batch_size × gradient_accumulation_steps",
        "parameters": "formula, of shape and vocabulary",
        "flops_per_update": "formula, (6N + 12·L·H·Q·T) a token",
        "tokens_per_update": "log",
        "device": "log",
        "model.dtype": "nanoGPT computes in it on mps",
        "optim.lr_decay_iters": "as max_iters",
        "optim.name": "nanoGPT's train.py",
    }
    assert {name: facts[name].how for name in wanted} == wanted


@pytest.mark.parametrize(
    ("overrides", "dtype"),
    [
        ({"device": "cpu", "dtype": "bfloat16"}, "float32"),  # autocast is for CUDA alone.
        ({"device": "cuda:1", "dtype": "float16"}, "float16"),
        ({"device": "cuda"}, None),  # Which one depends on the card.
        ({"dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_the_precision_is_that_of_device_and_dtype(overrides, dtype):
    found = values_in(header(overrides=overrides))
    assert found.get("model.dtype") == dtype and found.get("device") == overrides.get("device")
    words = f"float32 parameters, {dtype} compute" if dtype else None
    assert found.get("precision") == words


def test_the_schedule():
    found = values_in(header({**SETTINGS, "lr_decay_iters": 30}))
    assert (found["optim.schedule"], found["optim.lr_decay_iters"]) == ("cosine", 30)
    found = values_in(header(overrides={"decay_lr": False, "warmup_iters": 5}))
    assert (found["optim.schedule"], found["optim.warmup_iters"]) == ("constant", 0)
    found = values_in(["max_iters = 20", "lr_decay_iters = 20"])
    assert found["optim.lr_decay_iters"] == 0 and "optim.schedule" not in found


def test_only_the_name_and_the_vocabulary_together_are_tiny_shakespeare():
    assert values_in(header({**SETTINGS, "dataset": "mine"}))["corpus"] == "mine"
    lines = [line for line in header() if "vocab_size" not in line]
    found = values_in(lines)
    assert found["corpus"] == "shakespeare_char" and "data.source" not in found


def test_batches_of_several_processes():
    # nanoGPT divides the accumulation by the processes, so that the product holds already.
    settings = {**SETTINGS, "gradient_accumulation_steps": 8}
    facts, notes = facts_in(header(settings))
    assert facts["train.batch_size"].value == 24 and notes == []
    assert facts["train.grad_accum_steps"].value == 8
    # An older one multiplies.
    facts, notes = facts_in(header(settings, tokens=4 * 8 * 3 * 5))
    assert facts["train.batch_size"] == Fact(96, "tokens of an update over block_size")
    assert facts["n_devices"].value == 4 and facts["tokens_per_update"].value == 480
    assert "an update has 96 sequences by the printed tokens, not the 24" in notes[0]


def test_ranks_that_print_the_same_header():
    twice = [line for line in header() for _ in range(2)]
    assert facts_in(twice) == facts_in(header()) == facts_in([*header(), *header()])


def test_parameters_are_counted_or_rounded_where_the_shape_is_not_known():
    lines = [line for line in header() if "n_layer" not in line]
    # Without the beginning of the config its defaults are not known, n_layer is not.
    facts, _ = facts_in(lines[1:])
    assert facts["parameters"] == Fact(664, "decayed and not, without block_size × n_embd")
    facts, _ = facts_in(["number of parameters: 10.65M"])
    assert facts["parameters"] == Fact(10_650_000.0, "log, rounded to 10,000")
    assert "flops_per_update" not in facts


def test_a_shape_that_the_printed_figure_contradicts_is_told():
    lines = [line.replace("0.00M", "1.23M") for line in header({**SETTINGS, "bias": False})]
    facts, notes = facts_in(lines)
    assert facts["parameters"] == Fact(1_230_000.0, "log, rounded to 10,000")
    assert notes == ["its settings make 664 parameters, its log counts others"]


def test_what_was_pretrained_is_the_parent():
    lines = [
        "Overriding: init_from = gpt2",
        "Overriding: eval_interval = 10",
        "Initializing from OpenAI GPT-2 weights: gpt2",
    ]
    facts, _ = facts_in([*lines, "number of parameters: 123.65M"])
    assert facts["parent"] == Fact("gpt2", "log")
    assert facts["parameters"].value == 123_650_000 and "model.n_layer" not in facts
