"""Why two runs differ, from what they wrote down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from gptjax.device.cards import table_peak
from gptjax.explain import tables
from gptjax.explain.curves import Reading
from gptjax.explain.evidence import findings, headline
from gptjax.explain.finding import Finding
from gptjax.explain.groups import Group, grouped
from gptjax.explain.page import Section, Table, page
from gptjax.explain.pair import Pair
from gptjax.explain.series import Fact, Series
from gptjax.explain.sources import read_series
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
    for flag, path in (("--json", json), ("--html", html), ("--png", png)):
        files.check_folder_of(flag, path)
    found = _told(_distinct([read_series(run) for run in runs]), device, peak)
    groups = grouped(found)
    comparisons = [_comparison(groups[0], other) for other in groups[1:]] or [_alone(found[0])]
    for each in comparisons:
        _print(each)
    if json:
        results = {"comparisons": [each.to_json() for each in comparisons]}
        files.write_atomically(Path(json), files.pretty_json(results))
    if html:
        title = " and ".join(each.label for each in found)
        sections = [section for each in comparisons for section in each.sections()]
        files.write_atomically(Path(html), page(f"Why {title} differ", sections))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is said of two runs, or of one.

    Attributes:
      runs: the runs.
      headline: where they ended; "" for one.
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
        said = (self.headline, *self.verdict) if self.headline else self.verdict
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
        spreads={each.series.label: each.spread for each in (a, b)},
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


def _alone(series: Series) -> Comparison:
    """What one run tells by itself."""
    found = sorted(symptoms(series), key=lambda each: (each.rank, -each.size))
    return Comparison(
        (series,), "", found, (tables.times([series]),), "", tables.not_known([series])
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


def _distinct(runs: list[Series]) -> list[Series]:
    """The runs, with labels that tell them apart."""
    n_seen: dict[str, int] = {}
    distinct = []
    for run in runs:
        n_seen[run.label] = n_seen.get(run.label, 0) + 1
        number = n_seen[run.label]
        label = run.label if number == 1 else f"{run.label} ({number})"
        distinct.append(dataclasses.replace(run, label=label))
    return distinct


def _told(runs: list[Series], device: Sequence[str], peak: Sequence[str]) -> list[Series]:
    """The runs, with the facts that the command line tells of them."""
    facts: dict[str, dict[str, Fact]] = {run.label: {} for run in runs}
    for label, name in _by_label("--device", device, facts):
        facts[label]["device"] = Fact(name, "--device")
        # nanoGPT's dtype on a card that has it, and what its own figure is over.
        known = table_peak(name, "bfloat16")
        if known is not None:
            facts[label]["peak_flops_per_s"] = Fact(known, f"{name}'s peak for bfloat16, dense")
    for label, words in _by_label("--peak", peak, facts):
        try:
            rate = float(words)
        except ValueError:
            rate = math.nan
        if not 0 < rate < math.inf:
            raise UserError("--peak", repr(words), "must be LABEL=TFLOPS", "Try --peak gpu=80.")
        facts[label]["peak_flops_per_s"] = Fact(1e12 * rate, "--peak")
    return [dataclasses.replace(run, facts={**run.facts, **facts[run.label]}) for run in runs]


def _by_label(flag: str, given: Sequence[str], labels: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for each in given:
        label, equals, value = each.partition("=")
        if not equals or label not in labels or not value:
            rule = f"must be LABEL=VALUE with a label of {', '.join(labels)}"
            raise UserError(flag, repr(each), rule)
        pairs.append((label, value))
    return pairs


def _print(comparison: Comparison) -> None:
    console = Console(highlight=False, soft_wrap=False)
    if comparison.headline:
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
        console.print(_rich(table))
        if table is comparison.tables[0] and comparison.equal:
            console.print(printable(comparison.equal), markup=False)
    if comparison.not_known:
        console.print("\nNot known", markup=False)
        for words in comparison.not_known:
            console.print("  " + printable(words), markup=False)


def _rich(table: Table) -> RichTable:
    shown = RichTable(box=None, title=table.caption, title_justify="left", pad_edge=False)
    for column in table.columns:
        shown.add_column(printable(column), no_wrap=len(table.columns) < 4)
    for row in table.rows:
        shown.add_row(*map(printable, row))
    return shown


if __name__ == "__main__":
    run_script(__file__)
