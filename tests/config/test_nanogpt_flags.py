"""nanoGPT's flags are answered with what they are called here, and read as our knobs."""

import re
from pathlib import Path

import nanogpt_files
import pytest

from gptjax.config.config import default_config, from_flat
from gptjax.config.knobs import KNOBS
from gptjax.config.nanogpt_flags import COUNTERPARTS, flags_of, hint, knobs_of

PAGE = (Path(__file__).parents[2] / "docs" / "from-nanogpt.md").read_text()


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--max_iters=100", "nanoGPT's --max_iters is here: --config.train.max_iters."),
        ("--batch_size=24", "--config.train.batch_size, which counts all sequences"),
        ("--device=cpu", "JAX_PLATFORMS=cpu or cuda, before the command"),
        ("--compile=False", "not needed: gptjax always compiles"),
        ("--init_from=resume", "run the same command again"),
        ("--start=ROMEO", "--prompt"),
        ("--eval_only", "scripts/evaluate.py"),
        ("configs/x.py", "Give it as --config configs/x.py."),
    ],
)
def test_what_nanogpt_takes_is_answered_with_what_gptjax_takes(argument, words):
    assert words in hint(argument)


@pytest.mark.parametrize("argument", ["--steps=3", "extra", "--"])
def test_of_what_nanogpt_does_not_take_nothing_is_said(argument):
    assert hint(argument) == ""


@pytest.mark.parametrize("flag", COUNTERPARTS)
def test_the_page_on_nanogpt_has_every_flag_with_its_counterpart(flag):
    assert re.search(rf"`{flag}\b", PAGE) or re.search(rf"`{flag.split('_')[0]}_log`, …", PAGE)
    for knob in re.findall(r"--config\.([\w.]*\w)", COUNTERPARTS[flag]):
        assert knob in KNOBS and f"`{knob}" in PAGE, knob


FLAGS = {**nanogpt_files.FLAGS, "vocab_size": 65}


def knobs(**flags):
    return knobs_of({**FLAGS, **flags})[0]


def test_flags_become_knobs_of_the_same_meaning():
    values, left = knobs_of(FLAGS)
    config = from_flat(values, origin="test")
    assert (config.train.batch_size, config.train.grad_accum_steps) == (2 * 3, 2)
    assert (config.eval.mode, config.eval.iters, config.eval.interval) == ("random", 20, 250)
    assert (config.optim.lr_decay_iters, config.train.max_iters) == (1500, 2000)
    assert config.model.dtype == "bfloat16" and config.optim.schedule == "cosine"
    assert (
        left
        == (
            "out_dir eval_only always_save_checkpoint init_from wandb_log wandb_project "
            "wandb_run_name backend compile"
        ).split()
    )


@pytest.mark.parametrize(
    ("device", "dtype", "wanted", "told"),
    [
        ("cuda:0", "bfloat16", "bfloat16", False),
        ("cuda", "float16", "float32", True),
        ("cuda", "float32", "float32", False),
        # nanoGPT computes in float32 there, and stores a default dtype all the same.
        ("cpu", "float16", "float32", False),
        ("mps", "bfloat16", "float32", False),
    ],
)
def test_what_nanogpt_computed_in(device, dtype, wanted, told):
    values, left = knobs_of({**FLAGS, "device": device, "dtype": dtype})
    assert values["model.dtype"] == wanted and ("dtype=float16" in left) == told


def test_without_decay_nanogpt_has_no_warmup_and_no_floor():
    config = from_flat(knobs(decay_lr=False, min_lr=1.0), origin="test")
    assert (config.optim.schedule, config.optim.warmup_iters) == ("constant", 0)
    assert config.optim.min_lr == config.optim.learning_rate == 1e-3


def test_an_integer_is_a_number_and_truth_is_none():
    assert knobs(grad_clip=1)["optim.grad_clip"] == 1.0
    with pytest.raises(ValueError, match="its grad_clip is True, which is not a number"):
        knobs(grad_clip=True)
    with pytest.raises(ValueError, match="its n_layer is True, which is not an integer"):
        knobs(n_layer=True)


def test_knobs_become_flags_and_knobs_again():
    config = default_config()
    config.update(
        optim=dict(lr_decay_iters=900, beta2=0.95),
        train=dict(batch_size=20, grad_accum_steps=5),
        eval=dict(mode="random", iters=7),
    )
    flags = flags_of(config)
    assert flags["batch_size"] == 4 and flags["decay_lr"] is True
    values = knobs(**flags)
    again = from_flat(values, origin="test")
    for section in ("model", "train"):
        assert again[section] == config[section]
    assert again.optim == config.optim and again.eval.iters == 7


def test_nanogpt_is_given_a_decay_that_it_can_divide_by():
    config = default_config()
    config.update(optim=dict(warmup_iters=100), train=dict(max_iters=60))
    assert flags_of(config)["lr_decay_iters"] == 101
