"""`midwatch dlq replay`: try dead letters again where they stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.exits import Exit
from midwatch.workers.views.output import say

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client


@click.command("replay")
@click.argument("job_ids", metavar="ID...", nargs=-1, required=True)
def replay(job_ids: tuple[str, ...]) -> None:
    """Try dead letters again where they stopped. A second replay does nothing."""
    client = connect()
    codes = [_replay(client, job_id) for job_id in job_ids]
    if any(codes):
        raise click.exceptions.Exit(max(codes))


def _replay(client: Client, job_id: str) -> Exit:
    from midwatch.orchestration.errors import NotFound

    try:
        if client.dead_letters.replay(job_id):
            say(f"job {job_id} goes on where it stopped")
            return Exit.OK
        status = client.jobs.show(job_id).status
    except NotFound as error:  # go on with the other jobs
        say(f"midwatch: {error}")
        return Exit.NOT_FOUND
    if status == "dead_lettered":
        say(f"job {job_id} was discarded and can't be replayed; submit it again")
        return Exit.REFUSED
    say(f"job {job_id} is {status} and not a dead letter: nothing to replay")
    return Exit.OK
