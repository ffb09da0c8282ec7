"""What a run will take, against arithmetic done here."""

import pytest
import tiny

from gptjax.run.costs import Costs
from gptjax.run.planned_data import planned_data
from gptjax.speed import outlook


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "cats.txt"
    file.write_text("abcdefghijk" * 100)
    return planned_data(tiny.config(data__source=f"text:{file}"))


def counted(data, **knobs):
    return outlook.counts(tiny.config(**knobs), data, Costs(0, 6e9, 0.0))


def test_counts(data):
    found = counted(data)
    # Two blocks: norms with weights alone, no biases. Embeddings of 11 symbols and 7 positions.
    n_params = 2 * (12 * 15 * 15 + 2 * 15) + 15 + (11 + 7) * 15
    assert found.n_params == n_params
    assert found.update_tokens == 42 and found.tokens == 504
    assert found.epochs == pytest.approx(504 / 990)
    assert found.tokens_per_param == pytest.approx(504 / n_params)
    assert found.flops == 12 * 6e9
    assert found.evaluation_tokens == 2 * 70  # Ten windows of each split.
    assert counted(data, eval__mode="random", eval__iters=3).evaluation_tokens == 2 * 3 * 42


def test_times_that_were_measured(data):
    times = outlook.measured_times(
        counted(data), start=5.0, update=2.0, evaluation=3.0, save=0.5, source=""
    )
    assert (times.updates, times.evaluations, times.saves) == (24.0, 12.0, 2.0)
    assert times.total == 43.0
    assert outlook.dollars(times, n_devices=4, dollars_per_hour=90.0) == pytest.approx(4.3)


def test_times_that_are_assumed(data):
    found = counted(data)
    times = outlook.assumed_times(
        found, flops_per_s=1e12, mfu=0.3, checkpoint_bytes=2_000_000_000, source=""
    )
    assert times.update == pytest.approx(6e9 / 3e11)
    assert times.evaluations == pytest.approx(4 * times.update / 3 * 140 / 42)
    assert times.saves == pytest.approx(4 * 2.0)
