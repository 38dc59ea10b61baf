"""Options that several commands share, so that they have one name and one help text."""

from __future__ import annotations

from typing import Any

import click

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document; times are ISO 8601.")

SHORTEST_PREFIX = 6
"""Least characters of an id that are looked up as a prefix. A shorter text is most likely a mistake."""


def expand_job_ids(_context: click.Context, _parameter: click.Parameter, given: Any) -> Any:
    """Replace the beginning of a job's id, as lists show it, by the id. A text that fits no job stays as it is.

    Raises:
        ConfigError: the text fits several jobs.

    """
    if isinstance(given, tuple):
        return tuple(expand_job_ids(_context, _parameter, one) for one in given)
    if not isinstance(given, str) or len(given) < SHORTEST_PREFIX:
        return given
    from midwatch.workers.cli.environment import connect

    return connect().jobs.find_id(given)


def expand_session_id(_context: click.Context, _parameter: click.Parameter, given: str) -> str:
    """Replace the beginning of a session's id by the id, as `expand_job_ids` does."""
    if len(given) < SHORTEST_PREFIX:
        return given
    from midwatch.workers.cli.environment import connect

    return connect().sessions.find_id(given)


content = click.option("--content", is_flag=True, help="Show the input, and the arguments of the failing call.")
job_id = click.argument("job_id", metavar="ID", callback=expand_job_ids)
limit = click.option(
    "--limit", type=click.IntRange(1, 10_000), metavar="N", default=50, show_default=True, help="Most entries to list."
)
