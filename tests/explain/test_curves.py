"""Where curves are read, by hand."""

import math

import by_hand
import pytest

from gptjax.explain import curves


def test_between_evaluations_the_loss_is_a_line_over_the_logarithm():
    run = by_hand.series(val=((0, 4.0), (100, 3.0), (400, 2.0)), sem=0.1)
    found = curves.read_at(run, "updates", 200)
    assert found.val == pytest.approx(2.5)  # Half of the way from 100 to 400 in octaves.
    assert found.sem == 0.1
    assert curves.read_at(run, "updates", 100).val == 3.0
    assert curves.read_at(run, "updates", 400).val == 2.0
    assert curves.read_at(run, "tokens", 200 * 768).val == pytest.approx(2.5)


def test_nothing_is_read_beyond_what_was_measured():
    run = by_hand.series(val=((0, 4.0), (100, 3.0), (400, 2.0)))
    assert curves.read_at(run, "updates", 99) is None
    assert curves.read_at(run, "updates", 401) is None
    unknown = by_hand.series(tokens_per_update=None)
    assert curves.read_at(unknown, "tokens", 100) is None


def test_two_curves_meet_at_the_largest_place_that_both_have():
    a = by_hand.series("a", ((0, 4.0), (100, 3.0), (200, 2.5)))
    b = by_hand.series("b", ((0, 4.0), (50, 3.2), (400, 2.0)), tokens_per_update=1536)
    meeting = curves.meet(a, b, "updates")
    assert (meeting.x, meeting.a.val) == (200, 2.5)
    assert meeting.b.val == pytest.approx(3.2 - 1.2 * math.log(4) / math.log(8))
    assert curves.meet(a, b, "tokens").x == 200 * 768


def test_curves_that_do_not_meet_say_where_they_are():
    a = by_hand.series("a", ((0, 4.0), (100, 3.0)))
    b = by_hand.series("b", ((0, 4.0), (300, 2.0)))
    meeting = curves.meet(a, b, "updates")
    assert math.isnan(meeting.x)
    assert (meeting.later, meeting.first, meeting.last) == ("b", 300, 100)
    assert curves.meet(a, by_hand.series("c", tokens_per_update=None), "tokens") is None


def test_a_loss_that_is_not_a_number_is_no_point():
    run = by_hand.series(val=((0, 4.0), (100, math.nan), (200, 2.0)))
    assert curves.read_at(run, "updates", 200).val == 2.0
    assert curves.read_at(run, "updates", 150) is None


def test_the_largest_difference_is_that_of_all_that_both_logged():
    a = by_hand.series("a", updates=((10, 3.0), (20, 2.0)))
    assert curves.largest_difference(a, by_hand.series("b", updates=((10, 3.0), (20, 2.0)))) == 0
    other = by_hand.series("b", updates=((10, 3.5), (30, 9.0)))
    assert curves.largest_difference(a, other) == 0.5
    assert curves.largest_difference(a, by_hand.series("b", ((7, 1.0),))) is None


def test_they_part_at_the_first_update_beyond_the_tolerance():
    a = by_hand.series("a", ((0, 4.0), (100, 3.0), (200, 2.0)))
    b = by_hand.series("b", ((0, 4.0), (100, 3.1), (200, 3.0)))
    assert curves.first_parting(a, b, 0.05) == 100
    assert curves.first_parting(a, b, 0.5) == 200
    assert curves.first_parting(a, b, 2) is None
