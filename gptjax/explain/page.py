"""A report as one HTML file for every screen and reader: no script, nothing fetched.

    page("Two runs", [Section("Verdict", sentences=("a ends 0.2 below b.",), tables=(table,))])

Whatever is given is text, and is shown as it is: only `Figure.svg` is put in as markup.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import re
from collections.abc import Iterator, Sequence

from gptjax.explain.palette import style_variables
from gptjax.system.files import encoded
from gptjax.system.output import printable


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is what the row is about.

    Attributes:
      caption: what it shows.
      columns: their heads; the first, over the rows' heads, may be "".
      rows: each as long as `columns`. A column of numbers, with or without units, stands right.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.caption


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
      svg: an `<svg …>` element that refers to nothing outside it, from drawing.svg_of.
      alternative: what is to be seen in it, with its numbers; sentences, read to who cannot see it.
    """

    svg: str
    alternative: str

    def __post_init__(self) -> None:
        assert self.svg.startswith("<svg ") and self.alternative


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page: its sentences, then its figures, then its tables.

    Attributes:
      title: its heading.
      sentences: a paragraph each, or with `numbered` an item of a list; `like this` is code.
    """

    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    numbered: bool = False


# Nothing may be fetched, sent or run, whatever has found its way into the page.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

_STYLE = f"""
:root{{color-scheme:light dark;{style_variables(dark=False)}}}
@media screen and (prefers-color-scheme:dark){{:root{{{style_variables(dark=True)}}}}}
*{{box-sizing:border-box}}
body{{margin:0 auto;padding:1rem;max-width:66rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",Helvetica,Arial,sans-serif;
overflow-wrap:anywhere;-webkit-text-size-adjust:100%;text-size-adjust:100%}}
h1{{font-size:1.6rem;line-height:1.2;margin:.5rem 0 1rem}}
h2{{font-size:1.2rem;line-height:1.3;margin:2rem 0 .5rem;padding-top:.75rem;
border-top:1px solid var(--grid)}}
p,ol{{max-width:46rem;margin:.5rem 0}}
li{{margin:.35rem 0}}
code{{font:.9em/1.4 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}}
.figures{{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));
gap:1rem 2rem;margin:1rem 0}}
figure{{margin:0;max-width:34rem}}
svg{{display:block;width:100%;height:auto}}
svg *{{stroke-linejoin:round;stroke-linecap:butt}}
.scroll{{overflow-x:auto;margin:1rem 0}}
.scroll:focus-visible{{outline:2px solid var(--accent);outline-offset:2px}}
table{{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal;font-size:.95rem}}
caption{{text-align:left;color:var(--faint);padding:.25rem 0}}
caption span{{display:block;max-width:calc(100vw - 2rem)}}
th,td{{text-align:left;vertical-align:top;padding:.3rem .75rem .3rem 0;
border-bottom:1px solid var(--grid);white-space:nowrap}}
th{{font-weight:600}}
.number{{text-align:right}}
.long{{white-space:normal;min-width:12rem;max-width:24rem}}
@media print{{body{{max-width:none}}section{{break-inside:avoid}}}}
""".strip().replace("\n", "")

_NUMBER = re.compile(r"[+\-−±]?\d[\d,.]*([eE][+-]?\d+)?( ?\S{1,8})?( ± [\d.,]+)?( ?\S{1,8})?")


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML, to be written into one file as UTF-8."""
    numbers = itertools.count(1)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<link rel="icon" href="data:,">',  # Else a browser asks the server for one.
        f"<title>{_text(title)}</title>",
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>{_text(title)}</h1>",
        *(line for section in sections for line in _section(section, numbers)),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _text(text: str) -> str:
    """Text as HTML: no part of it is markup, and none drives or turns what stands around it."""
    return html.escape(printable(encoded(text).decode()))


def _sentence(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _section(section: Section, numbers: Iterator[int]) -> Iterator[str]:
    name = f"section-{next(numbers)}"
    yield f'<section aria-labelledby="{name}">'
    yield f'<h2 id="{name}">{_text(section.title)}</h2>'
    if section.numbered and section.sentences:
        items = "".join(f"<li>{_sentence(each)}</li>" for each in section.sentences)
        yield f"<ol>{items}</ol>"
    else:
        yield from (f"<p>{_sentence(each)}</p>" for each in section.sentences)
    if section.figures:
        yield '<div class="figures">'
        for figure in section.figures:
            yield f"<figure>{_picture(figure)}</figure>"
        yield "</div>"
    for table in section.tables:
        yield from _table(table, f"table-{next(numbers)}")
    yield "</section>"


def _picture(figure: Figure) -> str:
    label = f'<svg role="img" aria-label="{_text(figure.alternative)}" '
    return label + figure.svg.removeprefix("<svg ")


def _table(table: Table, name: str) -> Iterator[str]:
    """A table in a box of its own, which scrolls where it is wider than the screen."""
    # Who uses a keyboard reaches the box by Tab, and scrolls it with the arrows.
    yield f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0"><table>'
    yield f'<caption id="{name}"><span>{_text(table.caption)}</span></caption>'
    stands = [_column_class(cells) for cells in zip(*table.rows, strict=True)]
    stands = ["", *stands[1:]] if stands else [""] * len(table.columns)
    heads = [
        f'<th scope="col"{where}>{_text(head)}</th>' if head else "<td></td>"
        for head, where in zip(table.columns, stands, strict=True)
    ]
    yield f"<thead><tr>{''.join(heads)}</tr></thead><tbody>"
    for first, *others in table.rows:
        row = "".join(
            f"<td{where}>{_text(cell)}</td>" for cell, where in zip(others, stands[1:], strict=True)
        )
        yield f'<tr><th scope="row">{_text(first)}</th>{row}</tr>'
    yield "</tbody></table></div>"


def _column_class(cells: Sequence[str]) -> str:
    """How a column stands: numbers right, long text in lines; most of its cells decide."""
    if 2 * sum(_NUMBER.fullmatch(cell) is not None for cell in cells) > len(cells):
        return ' class="number"'
    return ' class="long"' if max(map(len, cells)) > 28 else ""
