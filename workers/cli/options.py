"""Options that several commands share, so that they have one name and one help text."""

from __future__ import annotations

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document; times are ISO 8601.")
job_id = click.argument("job_id", metavar="ID")
limit = click.option(
    "--limit", type=click.IntRange(1, 10_000), metavar="N", default=50, show_default=True, help="Most entries to list."
)
