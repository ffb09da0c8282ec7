"""Why two runs differ, from what they wrote down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from gptjax.explain import pictures, tables
from gptjax.explain.curves import Reading
from gptjax.explain.drawing import pyplot_for
from gptjax.explain.evidence import findings, headline, headline_alone
from gptjax.explain.finding import Finding
from gptjax.explain.groups import Group, grouped
from gptjax.explain.page import Section, Table, page
from gptjax.explain.pair import Pair
from gptjax.explain.series import Series
from gptjax.explain.sources import read_all
from gptjax.explain.symptoms import symptoms
from gptjax.explain.verdict import sentence, sentences
from gptjax.system import files
from gptjax.system.command import run_script
from gptjax.system.errors import UserError
from gptjax.system.output import printable


def compare(
    runs: Sequence[str],
    *,
    device: Sequence[str],
    peak: Sequence[str],
    json: str | None,
    html: str | None,
    png: str | None,
) -> None:
    """Prints why runs differ: run directories or nanoGPT's logs, each PATH or LABEL=PATH.

    `device`, LABEL=NAME, and `peak`, LABEL=TFLOPS, tell what a log does not.

    Raises:
      UserError: for a run that cannot be read, or a label that no run has.
    """
    for flag, path in (("--json", json), ("--html", html)):
        files.check_folder_of(flag, path)
    files.check_picture("--png", png)
    if png:
        pyplot_for("--png", png)
    found = read_all(runs, device=device, peak=peak)
    groups = grouped(found)
    comparisons = [_comparison(groups[0], other) for other in groups[1:]] or [_alone(found[0])]
    if json:
        results = {"comparisons": [each.to_json() for each in comparisons]}
        files.write_atomically(Path(json), files.pretty_json(results))
    if html:
        title = " and ".join(each.label for each in found)
        sections = [section for each in comparisons for section in each.sections()]
        title = f"Why {title} differ" if len(found) > 1 else title
        shown = [*sections, *_pictures(found)]
        files.write_atomically(Path(html), page(title, shown))
    if png:
        drawn, _ = pictures.pictures(found, what=["losses"])
        if not drawn:
            raise UserError("--png", png, "no run has an evaluation after an update to be drawn")
        files.write_atomically(Path(png), pictures.picture_file(drawn, png))
    # After the files: whoever reads what is printed may close the pipe.
    for each in comparisons:
        _print(each)


def _pictures(runs: Sequence[Series]) -> list[Section]:
    """The runs drawn, as sections of a page; what is missing for it, where it cannot be done."""
    try:
        pyplot_for("--html", "a page with pictures")
    except UserError as error:
        return [Section("Not drawn", sentences=[str(error)])]
    return pictures.sections(*pictures.pictures(runs))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is said of two runs, or of one.

    Attributes:
      runs: the runs.
      headline: where they ended.
      found: the findings that were told, in order.
      tables: what differs, losses, time.
      equal: a line of what is equal.
      not_known: what is missing; sentences.
    """

    runs: tuple[Series, ...]
    headline: str
    found: Sequence[Finding]
    tables: Sequence[Table]
    equal: str
    not_known: Sequence[str]

    @property
    def verdict(self) -> list[str]:
        """The findings in sentences."""
        return sentences(self.found)

    def sections(self) -> list[Section]:
        """Of a page."""
        said = (self.headline, *self.verdict)
        shown = [Section("Verdict", sentences=said)]
        shown += [Section(each.caption, tables=(each,)) for each in self.tables]
        if self.not_known:
            shown.append(Section("Not known", sentences=self.not_known))
        return shown

    def to_json(self) -> dict[str, Any]:
        """All of it, numbers unrounded."""
        return {
            "runs": [
                {
                    "label": each.label,
                    "path": each.path,
                    "facts": {n: {"value": f.value, "how": f.how} for n, f in each.facts.items()},
                }
                for each in self.runs
            ],
            "headline": self.headline,
            "verdict": self.verdict,
            "findings": [_finding_json(each) for each in self.found],
            "not_known": list(self.not_known),
        }


def _finding_json(finding: Finding) -> dict[str, Any]:
    # JSON has no infinity.
    values = {
        name: value if not isinstance(value, float) or math.isfinite(value) else None
        for name, value in finding.values.items()
    }
    parts = [_finding_json(each) for each in finding.parts]
    return {"kind": finding.kind, "values": values, "parts": parts}


def _comparison(a: Group, b: Group) -> Comparison:
    runs = (a.series, b.series)
    pair = Pair(
        *runs,
        spreads=_spreads(a, b),
    )
    context = _at_shorter_context(pair)
    if context is not None:
        pair.at_context = context
    differing, equal = tables.differences(pair)
    return Comparison(
        runs,
        sentence(headline(pair)),
        findings(pair),
        (differing, tables.losses(pair), tables.times(runs)),
        equal,
        tables.not_known(runs),
    )


def _spreads(a: Group, b: Group) -> dict[str, float]:
    """What the seed leaves open of each series; one run has what a run of the other group has."""
    spreads = {}
    for each, other in ((a, b), (b, a)):
        is_known = math.isfinite(each.spread)
        spreads[each.series.label] = each.spread if is_known else other.deviation
    return spreads


def _alone(series: Series) -> Comparison:
    """What one run tells by itself."""
    found = sorted(symptoms(series), key=lambda each: (each.rank, -each.size))
    return Comparison(
        (series,),
        sentence(headline_alone(series)),
        found,
        (tables.times([series]),),
        "",
        tables.not_known([series]),
    )


def _at_shorter_context(pair: Pair) -> tuple[str, Reading] | None:
    """The longer model's best checkpoint evaluated at the shorter one's context, if it is there."""
    context = pair.settings.of("context")
    if context is None or pair.settings.of("corpus"):
        return None
    (size_a,), (size_b,) = context.a.values(), context.b.values()
    longer, shorter_size = (pair.a, size_b) if size_a > size_b else (pair.b, size_a)
    if longer.program != "gptjax" or not (Path(longer.path) / "checkpoints").is_dir():
        return None
    from gptjax.run.whole_split import loss_of  # JAX is imported only for this.

    Console(stderr=True).print(f"evaluating {printable(longer.label)} at context {shorter_size}")
    loss = loss_of(longer.path, step="best", context=shorter_size).loss
    return longer.label, Reading(loss.mean, math.nan if loss.sem is None else loss.sem)


def _print(comparison: Comparison) -> None:
    console = Console(highlight=False, soft_wrap=False)
    console.print(printable(comparison.headline), markup=False)
    console.print()
    if not comparison.found:
        console.print("Nothing is striking about it.", markup=False)
    for number, words in enumerate(comparison.verdict, 1):
        grid = RichTable.grid(padding=(0, 2))
        grid.add_row(str(number), printable(words))
        console.print(grid, markup=False)
    for table in comparison.tables:
        console.print()
        console.print(_rich(table) if table.rows else f"{table.caption}: nothing that is known.")
        if table is comparison.tables[0] and comparison.equal:
            console.print(printable(comparison.equal), markup=False)
    if comparison.not_known:
        console.print("\nNot known", markup=False)
        for words in comparison.not_known:
            console.print(Padding(Text(printable(words)), (0, 0, 0, 2)))


def _rich(table: Table) -> RichTable:
    shown = RichTable(box=None, title=table.caption, title_justify="left", pad_edge=False)
    for column in table.columns:
        shown.add_column(printable(column), no_wrap=len(table.columns) < 4)
    for row in table.rows:
        shown.add_row(*map(printable, row))
    return shown


if __name__ == "__main__":
    run_script(__file__)
