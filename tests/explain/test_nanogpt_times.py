"""The clock of a log, by hand."""

import numpy as np
import pytest

from gptjax.explain.nanogpt_times import Clock


def clock(number_U, ms_U, step_E, *, interval=0, resumed=()):
    arrays = (np.array(x, float) for x in (number_U, ms_U, step_E))
    return Clock(*arrays, interval=interval, resumed=resumed)


def test_an_evaluation_ends_within_its_iteration():
    """Iterations of 10 ms; 100 more for an evaluation, 1,000 more at the start."""
    each = clock([0, 1, 2, 3, 4], [1110, 10, 10, 110, 10], [0, 3])
    evaluated, updated = each.seconds()
    np.testing.assert_allclose(updated, [1.11, 1.12, 1.13, 1.24, 1.25])
    np.testing.assert_allclose(evaluated, [1.1, 1.23])
    times = each.times()
    assert (times.update_ms, times.iteration_ms, times.n_updates) == (10, 110, 3)
    assert times.evaluation_seconds == pytest.approx(0.1)
    # What the start took beyond an evaluation is none.
    assert times.evaluation_share == pytest.approx(0.2 / 1.25)
    assert each.notes() == []


def test_what_is_missing_is_estimated():
    """Of 0 to 9 iterations 3 to 5 are missing, and 8; 4 and 8 held an evaluation."""
    numbers = [0, 1, 2, 6, 7, 9]
    each = clock(numbers, [110, 10, 10, 110, 10, 10], [0, 4, 6, 8])
    evaluated, updated = each.seconds()
    np.testing.assert_allclose(updated, [0.11, 0.12, 0.13, 0.37, 0.38, 0.5])
    np.testing.assert_allclose(evaluated, [0.1, 0.24, 0.36, 0.48])
    (note,) = each.notes()
    assert "6 of 10 iterations" in note


def test_an_evaluation_after_the_last_iteration_is_estimated():
    evaluated, _ = clock([0, 1, 2, 3], [110, 10, 110, 10], [0, 2, 4]).seconds()
    np.testing.assert_allclose(evaluated, [0.1, 0.22, 0.34])


def test_low_and_high_are_5_and_95_percent():
    ms_U = np.arange(102.0)
    times = clock(np.arange(102), ms_U, [0, 101]).times()
    assert (times.update_ms_low, times.update_ms, times.update_ms_high) == pytest.approx(
        (5.95, 50.5, 95.05)
    )


def test_an_iteration_with_an_evaluation_that_is_quicker_than_others_takes_no_negative_time():
    times = clock([0, 1, 2, 3], [10, 10, 9, 10], [0, 2]).times()
    assert times.evaluation_seconds == 0


@pytest.mark.parametrize(
    ("number_U", "step_E"), [([], []), ([5], []), ([], [0]), ([0], [0]), ([0], []), ([7], [7])]
)
def test_of_little_little_is_known(number_U, step_E):
    each = clock(number_U, [12.0] * len(number_U), step_E)
    evaluated, updated = each.seconds()
    assert (len(evaluated), len(updated)) == (len(step_E), len(number_U))
    times = each.times()
    assert np.isnan(times.evaluation_seconds) and np.isnan(times.evaluation_share)
    assert times.n_updates == (1 if number_U == [5] else 0)


def test_an_unknown_time_counts_as_the_usual_one():
    each = clock([0, 1, 2, 3], [110, 10, np.nan, 10], [0, 3], resumed=[3])
    _, updated = each.seconds()
    np.testing.assert_allclose(updated, [0.11, 0.12, 0.13, 0.14])
