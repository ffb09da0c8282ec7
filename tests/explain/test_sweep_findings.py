"""What follows from runs that were made to follow a law."""

import numpy as np
import pytest
import swept

from gptjax.explain import law_fit, sweep_findings
from gptjax.explain.loss_law import Undetermined
from gptjax.explain.sweep_findings import findings


@pytest.fixture(scope="module")
def found():
    return findings(swept.sweep(), run_seconds=60)


def test_the_best_rate_of_each_size_and_length_makes_the_points(found):
    assert len(found.cells) == 36 and len(found.best) == len(found.law.points) == 12
    assert {cell.first.values["optim.learning_rate"] for cell in found.best} == {2e-3}
    assert found.law.of_params.value == pytest.approx(swept.OF_PARAMS, abs=0.1)
    assert found.law.of_tokens.value == pytest.approx(swept.OF_TOKENS, abs=0.1)


def test_the_choice_is_the_size_that_is_best_in_the_time(found):
    updates = {size: int(60 / (n / 1e8)) for size, n in swept.SIZES.items()}
    truth = {
        size: swept.law(n, swept.TOKENS_AN_UPDATE * updates[size])
        for size, n in swept.SIZES.items()
    }
    choice = found.choices[0]
    assert choice.cell.first.setting.startswith(min(truth, key=truth.get))
    assert choice.n_updates == updates[min(truth, key=truth.get)]
    assert choice.predicted.value == pytest.approx(min(truth.values()), abs=0.02)
    assert abs(choice.predicted.value - min(truth.values())) < 4 * choice.predicted.error
    assert sum(each.share for each in found.choices) == pytest.approx(1)
    assert choice.share == max(each.share for each in found.choices)


def test_seeds_are_averaged():
    runs = [
        swept.run("n_embd 64", 2e-3, 400, noise=noise, seed=seed)
        for seed, noise in ((1, -0.1), (2, 0.3))
    ]
    (cell,) = findings(runs, run_seconds=1).cells
    assert cell.val_nats == pytest.approx(swept.law(1e5, 700 * 400) + 0.1)


def test_without_a_law_the_longest_runs_decide():
    found = findings(swept.sweep(sizes=("n_embd 64", "n_embd 192")), run_seconds=60)
    assert found.law is None and "6 pairs" in found.why_no_law
    assert found.choices[0].cell.first.setting == "n_embd 192, learning_rate 0.002"
    assert found.choices[0].predicted is None and np.isnan(found.choices[0].share)


def test_a_run_beyond_ten_times_gets_no_choice():
    runs = swept.sweep()
    most = max(run.flops for run in runs)
    seconds = 10.5 * most / (6 * swept.TOKENS_AN_UPDATE * 1e8)  # FLOPs a second, of every size.
    found = findings(runs, run_seconds=seconds)
    assert not found.choices and "times as much as the longest here" in found.why_no_choice
    assert findings(runs, run_seconds=0.9 * seconds).choices


def test_failed_runs_count_nowhere():
    failed = swept.run("n_embd 64", 4e-3, 400, failed="update 3 is not finite")
    found = findings([*swept.sweep(rates=(2e-3,)), failed], run_seconds=60)
    assert found.failed == (failed,) and len(found.cells) == 12
    with pytest.raises(Undetermined, match="no run came to its end"):
        findings([failed], run_seconds=60)


def test_an_undetermined_law_still_reads_between_the_runs(monkeypatch):
    """As if the same points had left its exponents open."""
    law = findings(swept.sweep(), run_seconds=60)
    monkeypatch.setattr(law_fit, "_LARGEST_ERROR", 1e-9)
    found = findings(swept.sweep(), run_seconds=60)
    assert found.law is None and "the runs do not determine it" in found.why_no_law
    assert found.choices == law.choices and law.law is not None
    # What is known to no more than sizes differ by is not said: then the longest runs decide.
    monkeypatch.setattr(sweep_findings, "_LARGEST_ERROR", 1e-9)
    found = findings(swept.sweep(), run_seconds=60)
    assert found.choices[0].predicted is None
    assert found.choices[0].cell.first.setting == "n_embd 192, learning_rate 0.002"


def test_sizes_of_which_too_little_is_known_are_left_out(monkeypatch):
    every = findings(swept.sweep(), run_seconds=60)
    errors = sorted(c.predicted.error / c.predicted.value for c in every.choices)
    monkeypatch.setattr(sweep_findings, "_LARGEST_ERROR", (errors[-2] + errors[-1]) / 2)
    found = findings(swept.sweep(), run_seconds=60)
    assert (len(found.choices), len(found.unsure)) == (3, 1)
    (unsure,) = found.unsure
    assert unsure.predicted.error / unsure.predicted.value == errors[-1]
    assert sum(each.share for each in found.choices) == pytest.approx(1)
