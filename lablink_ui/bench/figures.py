"""What a scenario found: each figure beside its limit of the same run, as a table for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

PER_S, MS, S, MB, PCT = "/s", "ms", "s", "MB", "%"
HEADINGS = ("path", "figure", "ours", "limit", "ratio", "the limit, of the same run")
LEGEND = "ratio = ours ÷ limit. Of a rate more is better and 1 the ceiling; of the rest less is better and 1 the floor."


class BenchFailed(Exception):
    """Something was wrong, not slow: a double claim, an error answer, a tool that is missing."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of ours and the limit it is held against; both in ``unit``."""

    path: str
    name: str
    unit: str
    ours: float
    limit: float | None
    limit_is: str

    @property
    def ratio(self) -> float | None:
        """Ours divided by the limit, where there is one."""
        return self.ours / self.limit if self.limit else None

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate; else it is a time or a size."""
        return self.unit == PER_S


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one scenario, and what must be known to read them rightly."""

    figures: Sequence[Figure]
    notes: Sequence[str] = ()


def format_table(figures: Sequence[Figure]) -> str:
    """The table, one figure a line."""
    rows = [HEADINGS, *(_cells(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(_line(row, widths) for row in rows)


def describe(
    reports: Sequence[Report], failures: Sequence[str], *, machine: dict[str, str], cores: str
) -> dict[str, Any]:
    """Everything that was printed, for machines."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {**machine, "pinned": cores},
        "figures": [_plain(figure) for report in reports for figure in report.figures],
        "notes": [note for report in reports for note in report.notes],
        "failures": list(failures),
    }


def _plain(figure: Figure) -> dict[str, object]:
    return {
        "path": figure.path,
        "figure": figure.name,
        "unit": figure.unit,
        "ours": round(figure.ours, 3),
        "limit": None if figure.limit is None else round(figure.limit, 3),
        "ratio": None if figure.ratio is None else round(figure.ratio, 4),
        "better": "more" if figure.more_is_better else "less",
        "limit_is": figure.limit_is,
    }


def _cells(figure: Figure) -> tuple[str, ...]:
    ours, limit = ("–" if value is None else f"{show(value)} {figure.unit}" for value in (figure.ours, figure.limit))
    ratio = "–" if figure.ratio is None else f"{show(figure.ratio)}×"
    return (figure.path, figure.name, ours, limit, ratio, figure.limit_is)


def show(value: float) -> str:
    """Three digits that count."""
    for least, digits in ((100, 0), (10, 1), (0.1, 2)):
        if value >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.4f}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    figures = [cell.rjust(width) for cell, width in zip(row[2:5], widths[2:5], strict=True)]
    return "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1]), *figures, row[5]])
