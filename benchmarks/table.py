"""The figures as Markdown, ready to be pasted into a README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.cases import Case
from benchmarks.targets import Reading, Target
from benchmarks.workloads import Figures

_HEADINGS = [
    *("Case", "Server"),
    *("Lines/s", "Deliveries/s", "CPU µs each", "p50 ms", "p99 ms", "RSS MiB", "Lost", "Wrong"),
    "Target",
]
_FIGURES = range(2, 10)
"""The columns that hold numbers: set flush right."""


@dataclass
class Results:
    """All rounds of one case: in each, the figures by the label of the entry."""

    case: Case
    rounds: list[dict[str, Figures]] = field(default_factory=list)

    def of(self, label: str, figure: str) -> list[float]:
        """One figure of one entry, as far as it was measured, in every round."""
        found = (getattr(figures.get(label), figure, None) for figures in self.rounds)
        return [value for value in found if value is not None]

    def middle(self, label: str, figure: str) -> float | None:
        """The median over the rounds."""
        values = self.of(label, figure)
        return median(values) if values else None

    def reading(self, target: Target) -> Reading | None:
        """What a target speaks about: the median of what each round gives.

        Figures are compared within a round, so what disturbs a whole round disturbs them less.
        """
        found = [reading for figures in self.rounds if (reading := target.reading(figures))]
        if not found:
            return None
        return Reading(*(median(column) for column in zip(*found, strict=True)))


def longest_wait(results: Sequence[Results]) -> float:
    """The largest share of a run in which another program had the core that a server wanted."""
    figures = [run for result in results for round_ in result.rounds for run in round_.values()]
    return max((run.waited or 0.0 for run in figures), default=0.0)


def fsync_middle(results: Sequence[Results]) -> float | None:
    """What the disk of the stores took to keep one block: the median of all runs."""
    figures = [run for result in results for round_ in result.rounds for run in round_.values()]
    times = [run.fsync_ms for run in figures if run.fsync_ms is not None]
    return median(times) if times else None


def render(results: Sequence[Results]) -> str:
    """One table for all cases, with the targets beside the rows that they speak about."""
    rows = [_HEADINGS]
    for result in results:
        for index, entry in enumerate(result.case.entries):
            label = entry.label
            rows.append(
                [
                    f"**{result.case.name}**: {result.case.title}" if index == 0 else "",
                    label,
                    _number(result.middle(label, "lines_per_second"), 0),
                    _number(result.middle(label, "deliveries_per_second"), 0),
                    _number(result.middle(label, "cpu_us"), 3),
                    _number(result.middle(label, "p50_ms"), 2),
                    _number(result.middle(label, "p99_ms"), 2),
                    _number(result.middle(label, "rss_mib"), 1),
                    _total(result.of(label, "lost")),
                    _total(result.of(label, "wrong")),
                    _remarks(result, label),
                ]
            )
    return markdown(rows, right_aligned=_FIGURES)


def verdict(result: Results, target: Target) -> str:
    """One target in words: what was found, what was to be reached, and whether it was."""
    reading = result.reading(target)
    if reading is None:
        return "not measured"
    reached = "reached" if target.is_reached(reading) else "**missed**"
    return f"{target.in_words(reading)}: {reached}"


def _remarks(result: Results, label: str) -> str:
    targets = [target for target in result.case.targets if target.entry == label]
    told = [verdict(result, target) for target in targets]
    each = result.middle(label, "kib_each")
    if not told and each is not None:
        told = [f"{each:.2f} KiB each"]
    return "; ".join(told)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _total(values: Iterable[float]) -> str:
    counted = list(values)
    return f"{sum(counted):,.0f}" if counted else "-"


def markdown(rows: Sequence[Sequence[str]], right_aligned: range) -> str:
    """A table, its headings first; padded, so that it can be read as plain text as well."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = [
        "-" * (width - 1) + ":" if column in right_aligned else "-" * width
        for column, width in enumerate(widths)
    ]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            cell.rjust(width) if column in right_aligned else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
