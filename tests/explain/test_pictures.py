"""What is known is drawn; what is not is said."""

import by_hand
import pytest

pytest.importorskip("matplotlib")

from html_rules import assert_keeps_the_rules

from gptjax.explain import pictures
from gptjax.explain.page import page
from gptjax.explain.series import AXES


def test_all_is_drawn_of_a_run_of_which_all_is_known():
    drawn, left_out = pictures.pictures([by_hand.everything()])
    assert [each.what for each in drawn] == ["losses"] * len(AXES) + list(pictures.WHAT)[1:]
    assert left_out == []


def test_what_is_left_out_is_said():
    drawn, left_out = pictures.pictures([by_hand.everything("b"), by_hand.LAPTOP, by_hand.GPU])
    assert len(drawn) == 8
    assert left_out == [
        "Losses over seconds since the command: not known of laptop and gpu.",
        "Losses over FLOPs spent: not known of laptop and gpu.",
        "Learning rate: not known of laptop and gpu.",
        "Gradient norm: not known of laptop and gpu.",
        "Time by kind of work: not known of laptop and gpu.",
    ]
    drawn, left_out = pictures.pictures([by_hand.GPU], what=["ledger"])
    assert drawn == [] and left_out == ["Time by kind of work: not known of any run."]


def test_a_page_of_pictures_keeps_the_rules():
    label = "<script>alert(1)</script>"
    series = [by_hand.everything(label), by_hand.everything("b"), by_hand.GPU]
    drawn, left_out = pictures.pictures(series, marks={"<b>": 1.5})
    text = page(label, pictures.sections(drawn, left_out))
    reader = assert_keeps_the_rules(text)
    alternatives = [each["aria-label"] for each in reader.of("svg")]
    assert len(alternatives) == len(drawn) == 8
    assert "1.4723 at update 1,750, its best, and ends at 1.7093" in " ".join(alternatives)
    assert [each for each in reader.text["h2"]] == ["Losses", "Updates", "Time", "Not drawn"]
    assert "http:" not in text and "https:" not in text


def test_a_runs_look_is_its_own_in_every_picture():
    """gpu is the second run, also where the first is not drawn."""
    (first,), _ = pictures.pictures([by_hand.series(), by_hand.GPU], what=["update_times"])
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    first.draw(panel)
    from gptjax.explain.palette import RUNS

    assert panel.lines[-1].get_color() == RUNS[1].light


def test_the_table_says_where_runs_end():
    table = pictures.ends([by_hand.everything(), by_hand.GPU])
    assert table.columns[0] == "run" and len(table.columns) == 9
    assert list(table.rows[0]) == [
        "a",
        "2.3000 ± 0.0100",
        "20",
        "2.7000 ± 0.0100",
        "1.5000",
        "19",
        "30",
        "180",
        "2.1e11",
    ]
    assert list(table.rows[1])[-4:] == ["not known", "5,000", "81.92 M", "not known"]


@pytest.mark.parametrize("n_pictures", [1, 3])
def test_pictures_become_one_png(n_pictures):
    drawn, _ = pictures.pictures([by_hand.everything()])
    assert pictures.png(drawn[:n_pictures]).startswith(b"\x89PNG")
