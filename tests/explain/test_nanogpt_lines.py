"""Lines of nanoGPT in texts that are cut, joined and made up to take long."""

import math
import time

import pytest

from gptjax.explain import nanogpt_lines
from gptjax.explain.nanogpt_lines import Evaluation, Header, Iteration, Setting, Torn, lines_of

ONE = "iter 250: loss 2.0307, time 90796.41ms, mfu 0.43%"
OTHER = "step 250: train loss 1.9639, val loss 2.0676"


def told(text):
    return [line for line in lines_of([text]) if not isinstance(line, Setting)]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (ONE, Iteration(250, 2.0307, 90796.41, 0.0043)),
        (f"{ONE[:-11]}\n", Iteration(250, 2.0307, 90796.41, math.nan)),
        (
            "iter 1,250: loss 12,345.5000, time 1,234.56ms, mfu -100.00%",
            (1250, 12345.5, 1234.56, -1),
        ),
        ("iter 3: loss nan, time 1.00ms, mfu inf%", (3, math.nan, 1.0, math.nan)),
        ("iter 3: loss -inf, time nanms", (3, math.nan, math.nan, math.nan)),
        ("iter 3: loss 1e999, time -5.00ms", (3, math.nan, math.nan, math.nan)),
        ("iter 3: loss 1.5e-3, time 1e3ms, mfu", (3, 0.0015, 1000.0, math.nan)),
        (OTHER, Evaluation(250, 1.9639, 2.0676)),
        ("step 0: train loss nan, val loss inf", (0, math.nan, math.nan)),
        ("step 5000: train loss 1e999, val loss 4.0000.", (5000, math.nan, 4.0)),
    ],
)
def test_a_line(text, wanted):
    (line,) = told(text)
    assert list(line) == pytest.approx(list(wanted), nan_ok=True)


@pytest.mark.parametrize(
    "text",
    [
        *(ONE[:n] for n in range(len("iter 250:"), len(ONE) - len(", mfu 0.43%"))),
        *(OTHER[:n] for n in range(len("step 250:"), len(OTHER))),
        f"iter {10**30}: loss 2.0307, time 1.00ms",
        f"step {10**30}: train loss 1.0000, val loss 1.0000",
        f"iter 3: loss {'1' * 50}, time 1.00ms",
        "iter 3: loss 3.14[W socket.cpp]59, time 1.00ms",
        "iter 3: loss 2.0\n307, time 1.00ms",
        "iter 3: loss 2.0307, time 1.\n00ms",
        "step 250: train loss 1.9639, val loss 2.0\n> 676",
        "step 250: train loss 1.9\n639, val loss 2.0676",
        "step 250: train loss 1.9639, val loss 2\n.0676",
    ],
)
def test_a_torn_line_is_told_and_never_half_read(text):
    assert told(text) == [Torn()]


@pytest.mark.parametrize(
    "text",
    ["", "i", "iter", "step: 3", "iter 3 of 5", "global_step 7: loss 3", "sweep 3: train loss 4"]
    + ["step ٣: train loss 1.0000, val loss 2.0000", f"iter {'9' * 4500}: loss 1"],
)
def test_other_lines_are_none(text):
    assert told(text) == []


def test_however_a_text_is_cut_into_pieces():
    text = "\n".join(
        ["n_layer = 6", OTHER, ONE, "x" * 5000, ONE, "Resuming training from out", ONE]
    )
    whole = list(lines_of([text]))
    assert [type(line) for line in whole] == [
        *(Setting, Evaluation, Iteration, Iteration, Header, Iteration)
    ]
    for size in (1, 7, 50, 1000, 4097):
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        assert list(lines_of(pieces)) == whole


def test_headers_and_settings_have_what_stands_around_them():
    text = (
        "Overriding config with config/x.py:\nn_layer = 6 # blocks\n> # bias = True\n"
        "Overriding: device = cpu\ntokens per iteration will be: 16,384\n"
        "found vocab_size = 65 (inside data/x/meta.pkl)\nInitializing a new model from scratch\n"
        "number of parameters: 10.65M\nnum decayed parameter tensors: 26, with\n 10,740,096 "
        "parameters\n"
        "num non-decayed parameter tensors: 13, with 4,992 parameters\ndropout\n= 0.2\n"
        "Initializing from OpenAI GPT-2 weights: gpt2-xl\nResuming training from out\n"
        "defaulting to vocab_size of GPT-2 to 50304 (50257 rounded up for efficiency)\n"
    )
    assert list(lines_of([text])) == [
        Header("config", "config/x.py:"),
        Setting("n_layer", "", " 6 # blocks"),
        Setting("bias", "> # ", " True"),
        Setting("device", "Overriding: ", " cpu"),
        Header("tokens", "16,384"),
        Header("vocabulary", "65"),
        Header("scratch", "scratch"),
        Header("parameters", "10.65"),
        Header("decayed", "10,740,096"),
        Header("not_decayed", "4,992"),
        Setting("dropout", "", ""),
        Header("pretrained", "gpt2-xl"),
        Header("resumed", "Resuming"),
        Header("default_vocabulary", "50304"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "iter" + " " * 100_000,
        "iter " * 40_000,
        "iter 1" + "1" * 200_000,
        "iter 1: loss " * 20_000,
        "step 1: train loss 1.0, val loss " * 8_000,
        "iter 1" + ",111" * 50_000,
        "batch_size = " * 20_000,
        "batch_size" + " " * 200_000 + "=",
        "Overriding config with " * 10_000,
        "num decayed parameter tensors: 1, with " * 6_000,
        ">|*`" * 60_000,
        "\n" * 250_000,
        "x" * 250_000,
    ],
)
def test_no_text_takes_long(text):
    """A quarter of a megabyte; what grows with the square of that would take minutes."""
    start = time.process_time()
    list(lines_of([text]))
    assert time.process_time() - start < 5


def test_after_the_beginning_headers_are_found_by_their_words(monkeypatch):
    monkeypatch.setattr(nanogpt_lines, "_BEGINNING", 100)
    far = "x\n" * 40_000
    text = f"{far}batch_size = 3\n{ONE}\n{far}Overriding config with a.py\nbatch_size = 5\n{ONE}"
    found = list(lines_of([text]))
    # The first is no header's: it is far within a text that has none yet.
    assert [type(line) for line in found] == [Iteration, Header, Setting, Iteration]
    assert found[2].value == " 5"
