"""From panels to files: figures without a window, as PNG, and as SVG for a page."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import Any

from gptjax.explain import palette
from gptjax.explain.labels import Drawn, place
from gptjax.system.errors import UserError
from gptjax.system.files import encoded
from gptjax.system.output import printable


def pyplot_for(flag: str, path: object) -> Any:
    """matplotlib's pyplot, drawing into files; raises UserError where it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            flag, path, "needs matplotlib", 'Install it: pip install -e ".[plot]".'
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


# Inches, at 72 units each: 360 wide, so that text of 10 units is read on a phone 360 pixels wide.
WIDTH, HEIGHT = 5.0, 3.6

_LOOK: dict[Any, Any] = {
    # Narrower fonts may stand in for it: text then takes less room than was made for it.
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 10,
    "axes.edgecolor": palette.FAINT.light,
    "axes.labelcolor": palette.INK.light,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": palette.GRID.light,
    "grid.linewidth": 0.6,
    "text.color": palette.INK.light,
    "text.parse_math": False,  # A $ in a run's name is a dollar.
    "xtick.color": palette.FAINT.light,
    "ytick.color": palette.FAINT.light,
    "hatch.linewidth": 0.6,
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "gptjax",
}


def shown(label: str, longest: int = 24) -> str:
    """A run's name as it stands in a picture: harmless, and not too long."""
    text = " ".join(printable(encoded(label).decode()).split())
    if len(text) <= longest:
        return text
    # Runs are often told apart by how their names end.
    n_last = longest // 2
    return f"{text[: longest - 1 - n_last]}…{text[-n_last:]}"


def drawn_figure(
    draws: Sequence[Callable[[Any], Drawn]],
    *,
    titles: Sequence[str] = (),
    heights: Sequence[float],
    width: float = WIDTH,
    n_columns: int = 1,
) -> Any:
    """A matplotlib figure with a panel for each of `draws`, which gets its axes.

    `titles` stand over the panels, if there are any; `width` of a panel and `heights` are inches,
    and a row of panels is as high as its highest.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n_rows = -(-len(draws) // n_columns)
    rows = [max(heights[row * n_columns : (row + 1) * n_columns]) for row in range(n_rows)]
    with matplotlib.rc_context(_LOOK), warnings.catch_warnings():
        # A sign that no font here has is drawn as a box; that is seen without being told.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width * n_columns, sum(rows)), dpi=72, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(
            n_rows, n_columns, squeeze=False, gridspec_kw=dict(height_ratios=rows)
        ).flat
        parts = [draw(panel) for draw, panel in zip(draws, panels, strict=False)]
        for title, panel in zip(titles, figure.axes, strict=False):
            panel.set_title(title, loc="left")
        for panel in figure.axes[len(draws) :]:
            panel.remove()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # Labels are placed where things now stand.
        for part, panel in zip(parts, figure.axes, strict=True):
            place(panel, part)
    return figure


def file_of(figure: Any, kind: str, *, dpi: int = 140) -> bytes:
    """The figure on white, as the content of a file: `png`, `pdf` or `svg`."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(content, format=kind, dpi=dpi)
    return content.getvalue()


def svg_of(figure: Any, name: str) -> str:
    """The figure as an `<svg>` element, with the colours that the page's style says.

    `name` is its own in the page: the names inside begin with it.
    """
    import matplotlib

    content = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(_LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(content, format="svg", metadata=nothing, transparent=True)
    root = ElementTree.fromstring(content.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    named = re.findall(r'(?:href="|url\()#([^")]+)', content.getvalue().decode())
    variables = {each.light: f"var(--{each.name},{each.light})" for each in palette.ALL}
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.attrib.clear()
        if attributes.get("id") not in named:
            attributes.pop("id", None)
        for key, value in attributes.items():
            if key == "id":
                value = f"{name}-{value}"
            elif key == "href":
                value = f"#{name}-{value.removeprefix('#')}"
            else:
                value = value.replace("url(#", f"url(#{name}-")
            if key in ("d", "x", "y"):  # Hundredths of a unit are more than is seen.
                value = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.2f}", value)
            if key in ("style", "fill", "stroke"):
                value = re.sub("#[0-9a-f]{6}", lambda m: variables.get(m[0], m[0]), value)
            element.set(key, value)
        element.text = (element.text or "").strip() or None
        element.tail = (element.tail or "").strip() or None
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    return ElementTree.tostring(root, "unicode")
