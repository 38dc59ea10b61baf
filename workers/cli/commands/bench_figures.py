"""Print the figures of a benchmark: as one JSON document, or as tables."""

from __future__ import annotations

from typing import Any

from midwatch.workers.cli.tables import Column, print_card, print_table
from midwatch.workers.views.output import print_json

LONG_FIELDS = ("decides", "verdict")
"""Fields that are too long for a table. `--json` prints them."""


def print_figures(figures: dict[str, Any], *, as_json: bool, line_per_row: bool = False) -> None:
    """Print figures.

    Without `as_json` the rows are printed as a table and the other figures below it. By default each row becomes a column;
    with `line_per_row` it becomes a line.
    """
    if as_json:
        print_json(figures)
        return
    rows = figures.get("rows") or []
    if rows and line_per_row:
        names = [name for name in rows[0] if name not in LONG_FIELDS]
        columns = [
            Column(name.replace("_", " ").upper(), "left" if n == 0 else "right") for n, name in enumerate(names)
        ]
        print_table(columns, [[_format(row.get(name)) for name in names] for row in rows], empty="")
    elif rows:
        print_table([Column("FIGURE"), *_titles(rows)], _transpose(rows), empty="")
    print_card([(name.replace("_", " "), _format(value)) for name, value in figures.items() if name != "rows"])


def _titles(rows: list[dict[str, Any]]) -> list[Column]:
    """Return one column for each row. There are more figures than rows, so this table is narrower."""
    return [
        Column(f"{row.get('tool', '')} {row.get('jobs', '')}x{row.get('steps_per_job', '')}".strip(), "right")
        for row in rows
    ]


def _transpose(rows: list[dict[str, Any]]) -> list[list[str]]:
    names = [name for name in rows[0] if name not in ("tool", "jobs", "steps_per_job")]
    return [[name.replace("_", " "), *(_format(row.get(name)) for row in rows)] for name in names]


def _format(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,.4g}" if isinstance(value, float) and value < 1_000 else str(value)
