"""A page is one file that fetches nothing, runs nothing, and is read without being seen."""

import pytest
from html_rules import assert_keeps_the_rules

from gptjax.explain.page import Figure, Section, Table, page

SVG = '<svg viewBox="0 0 4 3"><path d="M0 0L4 3" style="stroke:var(--ink)"/></svg>'


def example(word="a", svg=SVG):
    table = Table(f"Ends of {word}", ("", "val", "device"), [(word, "1.8857 ± 0.0100", word)])
    return [
        Section(f"What {word} is", sentences=(f"{word} ends at 1.89.", "Try `a & b`.")),
        Section(
            f"More of {word}",
            sentences=(word, word),
            tables=(table, table),
            figures=(Figure(svg, f"Val of {word} falls from 4.28 to 1.47."),),
            numbered=True,
        ),
    ]


def test_a_page_keeps_the_rules_and_shows_what_it_was_given():
    text = page("Two runs", example())
    reader = assert_keeps_the_rules(text)
    assert reader.text["h1"] == ["Two runs"]
    assert [each for each in reader.text["h2"]] == ["What a is", "More of a"]
    assert [each for each in reader.text["li"]] == ["a", "a"]
    assert reader.text["code"] == ["a & b"]
    assert reader.of("svg")[0]["aria-label"] == "Val of a falls from 4.28 to 1.47."
    assert ("td", {"class": "number"}) in reader.elements and ("td", {}) in reader.elements
    assert "http:" not in text and "https:" not in text


@pytest.mark.parametrize(
    "word",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' onload='alert(1)",
        "&lt;b&gt; & </title></style><b>",
        "`<i>`",
        "</svg><script>",
    ],
)
def test_whatever_a_run_is_called_is_text(word):
    plain = assert_keeps_the_rules(page("a", example()))
    reader = assert_keeps_the_rules(page(word, example(word)))
    # `a` in backticks is code, and that is all it can be.
    without_code = [tag for tag, _ in reader.elements if tag != "code"]
    assert without_code == [tag for tag, _ in plain.elements if tag != "code"]
    assert "".join(reader.text["h1"]) == word
    assert reader.of("svg")[0]["aria-label"] == f"Val of {word} falls from 4.28 to 1.47."


def test_what_turns_text_around_or_is_no_utf8_is_escaped():
    text = page("a\u202eb\x1b[2J", example("c\udcffd"))
    text.encode("utf-8")
    assert "\u202e" not in text and "\x1b" not in text
    assert_keeps_the_rules(text)


def test_a_row_is_as_long_as_its_table():
    with pytest.raises(AssertionError):
        Table("Ends", ("", "val"), [("a",)])
