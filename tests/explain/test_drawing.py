"""SVG that refers to nothing outside it, in the colours of the page; names made harmless."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
import to_draw

pytest.importorskip("matplotlib")

from gptjax.explain import drawing, palette, plots

HOSTILE = "<script>alert('$x_1$')</script> & \u202e\x1b[2J\udcff"


def figure(label="a"):
    run = to_draw.everything(label)
    draws = [lambda panel: plots.losses(panel, {0: run}, over="updates", marks={})]
    return drawing.drawn_figure(draws, titles=["losses"], heights=[3.6])


def test_svg_refers_to_nothing_but_itself():
    text = drawing.svg_of(figure(), "one")
    root = ElementTree.fromstring(text)
    assert root.tag == "svg" and root.get("viewBox") and "width" not in root.attrib
    tags = {element.tag for element in root.iter()}
    assert tags <= {"svg", "g", "defs", "path", "use", "text", "tspan", "clipPath", "rect"}
    assert "http" not in text
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) and all(name.startswith("one-") for name in ids)
    named = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert named and set(named) == set(ids)


def test_svg_has_the_pages_colours():
    text = drawing.svg_of(figure(), "one")
    for colour in (palette.RUNS[0], palette.INK, palette.FAINT, palette.GRID):
        assert f"var(--{colour.name},{colour.light})" in text
    without = re.sub(r"var\([^)]*\)", "", text)
    assert not re.search("#[0-9a-f]{6}", without), "no colour that dark pages cannot change"


def test_a_name_is_text():
    text = drawing.svg_of(figure(HOSTILE), "one")
    shown = " ".join(ElementTree.fromstring(text).itertext())
    assert "<script" not in text
    # In the middle it is cut; a $ is a dollar.
    assert "<script>ale…x1b[2J\\udcff: 2.7000" in shown
    assert drawing.shown("cost $x_1$ & more") == "cost $x_1$ & more"
    assert drawing.shown("shakespeare_char_best", 14) == "shakes…ar_best"
    assert not re.search("[\u202e\x1b\udcff]", drawing.shown(HOSTILE, 99))


def test_the_same_figure_is_the_same_svg():
    assert drawing.svg_of(figure(), "one") == drawing.svg_of(figure(), "one")


def test_a_png_holds_its_panels():
    draws = [lambda panel, n=n: plots.Drawn() for n in range(3)]
    drawn = drawing.drawn_figure(draws, titles=["a", "b", "c"], heights=[2, 3, 1], n_columns=2)
    assert [panel.get_title(loc="left") for panel in drawn.axes] == ["a", "b", "c"]
    assert drawn.get_size_inches().tolist() == [10, 4]
    assert drawing.file_of(drawn, "png").startswith(b"\x89PNG")
