"""Colours, lines and marks of pictures: on white, on black, and where no colour is seen."""

from __future__ import annotations

from typing import Any, NamedTuple


class Colour(NamedTuple):
    """A colour by its name in a page's style, on white and on a dark ground; `#rrggbb`."""

    name: str
    light: str
    dark: str


PAPER = Colour("paper", "#ffffff", "#15171b")
INK = Colour("ink", "#1b1d22", "#e9eaed")
FAINT = Colour("faint", "#5a5e68", "#a9adb8")
GRID = Colour("grid", "#d5d8de", "#3a3e47")
LINK = Colour("accent", "#0b5cad", "#7cb8ff")

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), made darker for white and lighter for
# a dark ground until text in them has a contrast of 4.5, which WCAG 2.2 asks for (1.4.3).
RUNS = (
    Colour("run-1", "#0072b2", "#56b4e9"),
    Colour("run-2", "#b84a00", "#ff9a52"),
    Colour("run-3", "#00785a", "#2fd0a0"),
    Colour("run-4", "#a3397a", "#ee9ccb"),
    Colour("run-5", "#7a5c00", "#f0e442"),
    Colour("run-6", "#4b4f58", "#c3c7d0"),
)
OTHER = Colour("other", "#71757f", "#8f939d")

ALL = (PAPER, INK, FAINT, GRID, LINK, *RUNS, OTHER)

# Dashes and markers of runs, so that colour is never all that tells two apart; five and seven, so
# that with six colours no two of the first thirty runs look alike.
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (7, 1.5, 1.2, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
HATCHES = ("", "////", "||||", "xxxx", "\\\\\\\\", "----", "++++")  # Dots would be 250 kB of SVG.


def run_style(index: int) -> dict[str, Any]:
    """How the run of that place among the runs is drawn: matplotlib's colour, dashes and marker."""
    return dict(
        color=RUNS[index % len(RUNS)].light,
        linestyle=DASHES[index % len(DASHES)],
        marker=MARKERS[index % len(MARKERS)],
    )


def style_variables(*, dark: bool) -> str:
    """The colours as variables of a style sheet: `--ink:#1b1d22;…`."""
    return "".join(f"--{each.name}:{each.dark if dark else each.light};" for each in ALL)
