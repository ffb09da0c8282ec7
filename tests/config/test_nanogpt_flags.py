"""nanoGPT's flags are answered with what they are called here."""

import re
from pathlib import Path

import pytest

from gptjax.config.knobs import KNOBS
from gptjax.config.nanogpt_flags import COUNTERPARTS, hint

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
