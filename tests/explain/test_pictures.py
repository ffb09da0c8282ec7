"""What is known is drawn; what is not is said."""

import pytest
import to_draw

pytest.importorskip("matplotlib")

from html_rules import assert_keeps_the_rules

from gptjax.explain import pictures
from gptjax.explain.page import page
from gptjax.explain.series import AXES


def test_all_is_drawn_of_a_run_of_which_all_is_known():
    drawn, left_out = pictures.pictures([to_draw.everything()])
    assert [each.what for each in drawn] == ["losses"] * len(AXES) + list(pictures.WHAT)[1:]
    assert left_out == []


def test_what_is_left_out_is_said():
    drawn, left_out = pictures.pictures([to_draw.everything("b"), to_draw.LAPTOP, to_draw.GPU])
    assert len(drawn) == 8
    assert left_out == [
        "Losses over seconds since the command: not known of laptop and gpu.",
        "Losses over FLOPs spent: not known of laptop and gpu.",
        "Learning rate: not known of laptop and gpu.",
        "Gradient norm: not known of laptop and gpu.",
        "Time by kind of work: not known of laptop and gpu.",
    ]
    drawn, left_out = pictures.pictures([to_draw.GPU], what=["ledger"])
    assert drawn == [] and left_out == ["Time by kind of work: not known of any run."]


def test_a_page_of_pictures_keeps_the_rules():
    label = "<script>alert(1)</script>"
    series = [to_draw.everything(label), to_draw.everything("b"), to_draw.GPU]
    drawn, left_out = pictures.pictures(series, marks={"<b>": 1.5})
    text = page(label, pictures.sections(drawn, left_out))
    reader = assert_keeps_the_rules(text)
    alternatives = [each["aria-label"] for each in reader.of("svg")]
    assert len(alternatives) == len(drawn) == 8
    assert "1.4723 at update 1,750, its best, and ends at 1.7093" in " ".join(alternatives)
    assert [each for each in reader.text["h2"]] == [
        "Curves of loss",
        "Learning rate and gradient norm",
        "Where the time went",
        "Not drawn",
    ]
    assert "http:" not in text and "https:" not in text


def test_a_runs_look_is_its_own_in_every_picture():
    """gpu is the second run, also where the first is not drawn."""
    (first,), _ = pictures.pictures([to_draw.series(), to_draw.GPU], what=["update_times"])
    from matplotlib.figure import Figure

    panel = Figure().subplots()
    first.draw(panel)
    from gptjax.explain.palette import RUNS

    assert panel.lines[-1].get_color() == RUNS[1].light


def test_the_table_says_where_runs_end():
    table = pictures.ends([to_draw.everything(), to_draw.GPU])
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
def test_pictures_become_one_file(n_pictures):
    drawn, _ = pictures.pictures([to_draw.everything()])
    starts = {"a.png": b"\x89PNG", "a.PDF": b"%PDF", "a.svg": b"<?xml"}
    for name, start in starts.items():
        assert pictures.picture_file(drawn[:n_pictures], name).startswith(start)
