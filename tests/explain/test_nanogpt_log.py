"""Logs of nanoGPT, whole and torn, as series."""

import numpy as np
import pytest
from nanogpt_logs import SETTINGS, body, header, real_log

from gptjax.explain.nanogpt_log import read_log
from gptjax.explain.sources import read_series
from gptjax.system.errors import UserError


@pytest.fixture
def read(tmp_path):
    """Reads lines, or bytes, as a log."""

    def from_lines(lines, name="a.log"):
        path = tmp_path / name
        text = lines if isinstance(lines, bytes | str) else "".join(f"{line}\n" for line in lines)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_log(path, "a")

    return from_lines


def test_the_laptop_recipe():
    series = read_series(str(real_log("nanogpt_laptop_cpu.log")))
    evaluations, updates, times = series.evaluations, series.updates, series.times
    assert list(evaluations.update_E) == list(range(0, 2001, 250))
    assert (evaluations.train_E[-1], evaluations.val_E[-1]) == (1.7648, 1.8857)
    # nanoGPT makes one update more, whose batch's loss this is.
    assert (len(updates), updates.update_U[-1], updates.loss_U[-1]) == (2001, 2001, 1.6958)
    assert series.value("train.max_iters") == 2000
    assert series.value("parameters") == 795_904
    assert series.value("tokens_per_update") == 768
    assert series.value("flops_per_update") == 3_969_515_520
    assert (series.value("device"), series.value("model.dtype")) == ("cpu", "float32")
    assert series.facts["model.bias"].how == "nanoGPT's default, its config was read"
    assert series.facts["model.n_layer"].how == "log"
    assert times.update_ms == pytest.approx(131.83)
    assert (times.update_ms_low, times.update_ms_high) == pytest.approx((95, 1479), abs=0.1)
    # All iterations are there, so the clock is their sum.
    np.testing.assert_allclose(updates.seconds_U[-1], 730.265, atol=1e-3)
    assert np.isnan(updates.ms_U[::250]).all() and np.isfinite(updates.ms_U[1:250]).all()
    assert series.notes == ()


def test_the_default_recipe():
    series = read_series(str(real_log("nanogpt_default_mps.log")))
    evaluations, times = series.evaluations, series.times
    assert (evaluations.update_E[series.best], evaluations.val_E[series.best]) == (1750, 1.4723)
    assert (evaluations.train_E[-1], evaluations.val_E[-1]) == (0.6175, 1.7093)
    assert series.value("parameters") == 10_646_784
    assert series.value("flops_per_update") / 3_969_515_520 * 5000 / 2000 == pytest.approx(
        732, abs=1
    )
    assert times.update_ms == pytest.approx(765.63)
    assert times.iteration_ms == pytest.approx(89_332.44)
    assert times.evaluation_seconds == pytest.approx(88.57, abs=0.01)
    assert times.evaluation_share == pytest.approx(0.33, abs=0.01)
    assert series.value("shown_mfu") == 0.0047
    (note,) = series.notes
    assert note.startswith("seconds are estimated: 53 of 5,001 iterations")


def test_updates_times_and_the_clock(read):
    """30, 31, 32, 30 … ms, 500 more where an evaluation is in them."""
    series = read([*header(), *body(last=20)])
    np.testing.assert_array_equal(series.evaluations.update_E, [0, 10, 20])
    np.testing.assert_allclose(series.evaluations.val_E, [4.1, 4.0, 3.9])
    assert np.isnan(series.evaluations.val_sem_E).all()
    np.testing.assert_array_equal(series.updates.update_U, np.arange(1, 22))
    ms_U = 30.0 + np.arange(21) % 3
    with_evaluations_U = ms_U + 500 * (np.arange(21) % 10 == 0)
    np.testing.assert_allclose(series.updates.seconds_U, np.cumsum(with_evaluations_U) / 1e3)
    ms_U[::10] = np.nan
    np.testing.assert_array_equal(series.updates.ms_U, ms_U)
    times = series.times
    assert (times.update_ms, times.n_updates, times.iteration_ms) == (31.0, 18, 531.5)
    assert times.evaluation_seconds == 0.5005
    assert times.evaluation_share == pytest.approx(3 * 0.5005 / series.updates.seconds_U[-1])
    # An evaluation has ended one update before its iteration has.
    np.testing.assert_allclose(
        series.evaluations.seconds_E, series.updates.seconds_U[::10] - 0.031, atol=1e-9
    )
    assert series.value("shown_mfu") == 0.0043
    assert series.notes == ()


def test_what_is_no_log_is_refused(tmp_path, read):
    with pytest.raises(UserError, match="has no line of nanoGPT's"):
        read("epoch 1: loss 3\n")


def numbers(series):
    evaluations, updates = series.evaluations, series.updates
    return evaluations.update_E.tolist(), (updates.update_U - 1).tolist()


def test_five_pasted_lines_are_a_series_and_no_facts(read):
    lines = [
        "iter 4980: loss 0.8022, time 33.22ms, mfu 11.07%",
        "iter 4990: loss 0.8167, time 33.18ms, mfu 11.08%",
        "step 5000: train loss 0.6300, val loss 1.7100",
        "saving checkpoint to out-shakespeare-char",
        "iter 5000: loss 0.8236, time 4446.83ms, mfu 9.99%",
    ]
    series = read(lines)
    assert numbers(series) == ([5000], [4980, 4990, 5000])
    assert {name: fact.value for name, fact in series.facts.items()} == {
        "program": "nanoGPT",
        "shown_mfu": 0.1108,
    }
    times = series.times
    assert (times.update_ms, times.iteration_ms) == pytest.approx((33.2, 4446.83))
    assert times.evaluation_seconds == pytest.approx(4.41, abs=0.01)
    # How often it was evaluated is not in these lines.
    assert np.isnan(times.evaluation_share)
    assert series.x_E("tokens") is None and series.x_E("seconds") is None
    assert series.notes == ("the beginning is not in the log: seconds since then are not known",)


def test_only_evaluations(read):
    series = read([line for line in body() if line.startswith("step")])
    assert numbers(series) == ([0, 10, 20], [])
    assert np.isnan(series.times.update_ms) and np.isnan(series.times.iteration_ms)
    assert series.notes == ("no iteration is in the log: its times are not known",)
    # eval_only, which ends after the first.
    series = read([*header(), body()[0]])
    assert numbers(series) == ([0], []) and series.best is None and series.last is None
    assert series.value("parameters") == 65 * 4 + 2 * (12 * 16 + 8) + 4


def test_only_iterations(read):
    series = read([line for line in body() if line.startswith("iter")])
    assert numbers(series) == ([], list(range(21)))
    # Which of them hold an evaluation is not told, but for the first.
    assert (series.times.n_updates, series.best, series.last) == (20, None, None)
    # Where the interval is known it is.
    series = read([*header(), *(line for line in body() if line.startswith("iter"))])
    assert (series.times.n_updates, series.times.iteration_ms) == (18, 531.5)


def test_an_older_nanogpt_without_mfu(read):
    series = read([*header(), *body(mfu=False)])
    assert numbers(series) == ([0, 10, 20], list(range(21))) and "shown_mfu" not in series.facts


@pytest.mark.parametrize("every", [2, 5, 10])
def test_iterations_that_are_not_in_the_log_count_at_the_median(read, every):
    lines = [*header({**SETTINGS, "log_interval": every}), *body(last=40, every=every)]
    series, whole = read(lines), read([*header(), *body(last=40)])
    wanted_U = whole.updates.seconds_U[::every]
    if every == 10:  # Nothing but iterations with evaluations: an update's time is not known.
        assert np.isnan(series.updates.seconds_U[1:]).all()
    else:
        np.testing.assert_allclose(series.updates.seconds_U, wanted_U, atol=0.05)
        np.testing.assert_allclose(
            series.evaluations.seconds_E, whole.evaluations.seconds_E, atol=0.05
        )
        assert series.times.evaluation_share == pytest.approx(whole.times.evaluation_share, 0.05)
    assert any(f"{len(wanted_U)} of 41 iterations are in the log" in note for note in series.notes)


def test_a_log_without_its_end_or_its_beginning(read):
    lines = [*header(), *body()]
    for n_lines in range(len(header()) + 3, len(lines)):
        series = read(lines[:n_lines])
        wanted = read(lines)
        n_E, n_U = len(series.evaluations), len(series.updates)
        np.testing.assert_array_equal(series.evaluations.val_E, wanted.evaluations.val_E[:n_E])
        np.testing.assert_array_equal(series.updates.loss_U, wanted.updates.loss_U[:n_U])
        if n_U > 1:
            np.testing.assert_allclose(series.updates.seconds_U, wanted.updates.seconds_U[:n_U])
        # Its end is known, as the header has it.
        assert series.value("train.max_iters") == 20
    series = read(body(first=4))
    assert numbers(series) == ([10, 20], list(range(4, 21)))
    assert np.isnan(series.updates.seconds_U).all() and np.isnan(series.evaluations.seconds_E).all()


def test_a_log_that_is_torn_within_a_line_says_so(read):
    text = "".join(f"{line}\n" for line in [*header(), *body()])
    series = read(text[: -len("time 532.00ms, mfu 1.43%\n")])
    assert numbers(series) == ([0, 10, 20], list(range(20)))
    assert "1 of the log's lines are torn and were left out" in series.notes


def changed(lines, loss="9.0000"):
    """With another train and batch loss, to be told apart."""
    return [
        " ".join(
            f"{loss}," if before == "loss" and "train" not in line else word
            for before, word in zip(["", *line.split()], line.split(), strict=False)
        )
        for line in lines
    ]


def test_a_resumed_run_is_one_of_which_the_last_lines_count(read):
    """It was killed after iteration 17 and went on from its checkpoint of 10."""
    resumed = [
        line.replace("Initializing a new model from scratch", "Resuming training from out")
        for line in header(overrides={"init_from": "resume", "eval_iters": 9})
    ]
    series = read([*header(), *body(last=17), *resumed, *changed(body(first=10, last=20))])
    assert numbers(series) == ([0, 10, 20], list(range(21)))
    assert (series.updates.loss_U == 9).tolist() == 10 * [False] + 11 * [True]
    assert series.value("eval.iters") == 9  # As for a run of gptjax, of the last start.
    assert series.notes == (
        "it was resumed at update 10",
        "of lines with the same number the last one counts",
    )
    # The iteration that a start is in says nothing of an evaluation's time.
    assert series.times.iteration_ms == 532.0
    bare = [*header(), *body(last=17), "Resuming training from out", *body(first=10, last=20)]
    assert numbers(read(bare)) == numbers(series) and read(bare).facts["eval.iters"].value == 7


def test_a_log_that_begins_with_a_resumed_run(read):
    lines = [
        line.replace("Initializing a new model from scratch", "Resuming training from out")
        for line in header()
    ]
    series = read([*lines, *body(first=10)])
    assert numbers(series) == ([10, 20], list(range(10, 21)))
    assert series.notes[0] == "it was resumed at update 10"
    assert np.isnan(series.evaluations.seconds_E).all()
    assert series.times.n_updates == 9


def test_lines_that_go_back_without_a_word(read):
    series = read([*header(), *body(last=17), *changed(body(first=10, last=20))])
    assert numbers(series) == ([0, 10, 20], list(range(21)))
    assert (series.updates.loss_U == 9).tolist() == 10 * [False] + 11 * [True]
    assert "its lines go back to lower numbers without saying why" in series.notes


def test_of_several_runs_the_last_whole_one_counts(read):
    first, second = [*header(), *body()], [*header({**SETTINGS, "n_layer": 3}), *changed(body())]
    series = read([*first, *second])
    assert numbers(series) == ([0, 10, 20], list(range(21)))
    assert series.value("model.n_layer") == 3 and (series.updates.loss_U == 9).all()
    assert series.notes == (
        "2 runs are in the log, one after another; this is number 2, the last that is whole",
    )
    # The second was killed before its end; then before its first evaluation after an update.
    for n_lines in (-3, -20):
        series = read([*first, *second[:n_lines]])
        assert series.value("model.n_layer") == 2 and len(series.updates) == 21
        assert "this is number 1, the last that is whole" in series.notes[0]
    # Neither came to its end.
    series = read([*first[:-3], *second[:-3]])
    assert series.value("model.n_layer") == 3
    assert "number 2, the last that has an evaluation, none is whole" in series.notes[0]
    # Without a header between them, nothing is known of the second's settings.
    series = read([*first, *changed(body())])
    assert (series.updates.loss_U == 9).all() and "model.n_layer" not in series.facts


def test_a_start_that_failed_leaves_no_setting_behind(read):
    failed = header({**SETTINGS, "batch_size": 48}, {"device": "cuda", "eval_iters": 3})
    series = read([*failed, "torch.OutOfMemoryError: CUDA out of memory.", *header(), *body()])
    assert series.value("train.batch_size") == 3 and series.value("eval.iters") == 7
    assert "device" not in series.facts and series.notes == ()
    # Ended after the other's end: what was told before stays.
    series = read([*header(), *body(), *failed])
    assert series.value("train.batch_size") == 3 and len(series.updates) == 21


def test_sections_of_a_log_that_were_pasted_in_another_order(read):
    lines = body(first=1)
    steps = [line for line in lines if line.startswith("step")]
    series = read([*steps, "and", *(line for line in lines if line.startswith("iter"))])
    assert numbers(series) == ([10, 20], list(range(1, 21))) and len(series.notes) == 1
    assert series.times.iteration_ms == 531.5


def test_losses_that_are_not_finite_are_unknown_and_told(read):
    lines = body()
    lines[-3] = "step 20: train loss nan, val loss inf"
    series = read([*header(), *lines, "iter 21: loss nan, time 31.00ms, mfu 0.43%"])
    assert np.isnan(series.evaluations.val_E[-1]) and series.last == 1
    assert np.isnan(series.updates.loss_U[-1])
    assert series.notes == (
        "val is not finite 1 times, first at update 20",
        "loss is not finite 1 times, first at update 22",
    )


def test_more_iterations_than_fit_are_thinned(read, monkeypatch):
    monkeypatch.setattr("gptjax.explain.nanogpt_log._MOST_ROWS", 32)
    series = read(body(last=100))
    assert 16 <= len(series.updates) < 32 and len(series.evaluations) == 11
    assert "of its iterations one in 4 was read" in series.notes
    assert (np.diff(series.updates.update_U) == 4).all()


PIECES = [
    *(
        "iter ",
        "step ",
        "\n",
        ": loss ",
        ", time ",
        "ms, mfu ",
        "%",
        ": train loss ",
        ", val loss ",
    ),
    *(
        "nan",
        "inf",
        "1e999",
        "-1",
        "0",
        str(10**30),
        "٣",
        "\x1b[",
        "\x1b]0;",
        "\x00",
        "\ufffd",
        "\ufeff",
    ),
    *(
        "Overriding config with x.py:\n",
        "Overriding: ",
        "n_layer = ",
        "batch_size = ",
        "5 * 8",
        "(",
    ),
    *(
        "Resuming training from out\n",
        "Initializing a new model from scratch\n",
        "9" * 60,
        " " * 90,
    ),
    *("tokens per iteration will be: 0\n", "number of parameters: 1e999M\n", "eval_interval = 0\n"),
    *("found vocab_size = 0\n", "log_interval = 0\n", "block_size = 0\n", "max_iters = 1e30\n"),
    *(
        "num decayed parameter tensors: 1, with 1 parameters\n",
        '{"cells": [',
        "\r",
        "#",
        "> ",
        "\\n",
    ),
]


def fuzzed(text, random):
    """A log to which a few things happened."""
    for _ in range(random.integers(1, 12)):
        start, end = sorted(random.integers(0, len(text) + 1, 2))
        end = min(end, start + int(random.choice([0, 1, 10, 200])))
        part, piece = text[start:end], PIECES[random.integers(len(PIECES))]
        place = random.integers(len(text) + 1)
        match random.integers(6):
            case 0:
                text = text[:start] + text[end:]
            case 1:
                text = text[:start] + piece + text[end:]
            case 2:
                text = text[:place] + part + text[place:]
            case 3:
                text = text[:start] + part[::-1] + text[end:]
            case 4:
                text = text[start:] + text[:start]
            case 5:
                text = text[: max(start, 1)]
    return text


def fuzz(read, seeds):
    whole = "".join(f"{line}\n" for line in [*header(overrides={"device": "cpu"}), *body()])
    n_read = 0
    for seed in seeds:
        random = np.random.default_rng(seed)
        raw = fuzzed(whole, random).encode(errors="surrogatepass")
        if random.integers(4) == 0:
            raw = bytearray(raw)
            for place in random.integers(0, max(len(raw), 1), 20 if raw else 0):
                raw[place] = random.integers(256)
            raw = bytes(raw)
        try:
            series = read(raw)
        except UserError as error:
            assert "\n" not in str(error)
            continue
        n_read += 1
        for part in (series.evaluations, series.updates):
            columns = vars(part)
            assert {len(column) for column in columns.values()} == {len(part)}, seed
            number = columns["update_E" if "update_E" in columns else "update_U"]
            assert (np.diff(number) > 0).all() and (number >= 0).all(), seed
            assert not any(np.isinf(column).any() for column in columns.values()), seed
        assert len(series.evaluations) + len(series.updates) > 0
        assert all(isinstance(note, str) and "\n" not in note for note in series.notes)
        for axis in ("updates", "tokens", "flops", "seconds"):
            series.x_E(axis), series.x_U(axis)
    return n_read


def test_fuzzed_logs_are_read_or_refused(read):
    assert fuzz(read, range(300)) > 100


@pytest.mark.slow
def test_many_fuzzed_logs_are_read_or_refused(read):
    assert fuzz(read, range(1000, 11_000)) > 4_000
