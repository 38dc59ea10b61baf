"""Messages about records that this release can't read. A listing shows them next to the records that it can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from midwatch.workers.views.output import pluralize, printable

if TYPE_CHECKING:  # help must not load pydantic
    from midwatch.orchestration.errors import UnreadableRecord
    from midwatch.schemas.contract import JsonObject

SHOWN = 5


def summarize_unreadable(unreadable: Sequence[UnreadableRecord]) -> str:
    """One line about the records that are left out. Empty if there are none."""
    if not unreadable:
        return ""
    named = "; ".join(printable(f"{one.what}: {one.why}", 160) for one in unreadable[:SHOWN])
    more = f"; and {len(unreadable) - SHOWN} more" if len(unreadable) > SHOWN else ""
    return f"{pluralize(len(unreadable), 'record')} can't be read by this release and not shown: {named}{more}"


def warn_of_unreadable(unreadable: Sequence[UnreadableRecord]) -> None:
    """Print this line to stderr."""
    if line := summarize_unreadable(unreadable):
        click.echo(f"midwatch: {line}", err=True)


def unreadable_as_json(unreadable: Sequence[UnreadableRecord]) -> JsonObject:
    """The errors of the unreadable records, as a field of a JSON document. No field if all could be read."""
    return {"unreadable": [{"what": one.what, "why": one.why} for one in unreadable]} if unreadable else {}
