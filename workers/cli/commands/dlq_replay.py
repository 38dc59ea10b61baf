"""`midwatch dlq replay`: try dead letters again where they stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.letter_options import optional_seconds, read_rate, read_where
from midwatch.workers.views.output import say

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client


@click.command("replay")
@click.argument("job_ids", metavar="[ID]...", nargs=-1, callback=options.expand_job_ids)
@click.option("--all", "everything", is_flag=True, help="Replay all letters, or those that --where selects.")
@click.option(
    "--where", metavar="NAME=VALUE", multiple=True, callback=read_where,
    help="With --all: a condition, as for `dlq list`: kind, agent, model, tool, downstream or older. May be repeated.",
)  # fmt: skip
@click.option(
    "--rate", metavar="N/s", callback=read_rate, help="With --all: most letters to replay, such as 5/s or 100/m."
)
@click.option(
    "--dry-run", is_flag=True, help="With --all: say how many letters of which kind there are, and replay none."
)
@click.option(
    "--time",
    "time_s",
    metavar="TIME",
    callback=optional_seconds,
    help="Time to work from now on: 30m. Default: the agent's limit.",
)
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Model turns from now on. Default: 50.")
@click.option(
    "--wait", "wait_s", metavar="TIME", callback=optional_seconds,
    help="Time for which others may hold the job from now on: 12h. Default: the agent's limit.",
)  # fmt: skip
@options.as_json
def replay(
    job_ids: tuple[str, ...], everything: bool, where: dict[str, Any], rate: float | None, dry_run: bool, as_json: bool,
    time_s: float | None, steps: int | None, wait_s: float | None,
) -> None:  # fmt: skip
    """Try dead letters again where they stopped. A second replay does nothing.

    The job's limits start again. `--time`, `--steps` and `--wait` grant another amount, for this replay.
    A job that is replayed by its ID keeps its priority. With `--all`, jobs run below live work, and the coordinator paces their
    calls. Of each kind of failure and downstream, five letters are tried first, then more and more. If most of a batch fail
    again, this group stops, the other groups go on, and the exit code is 1. Ctrl-C stops the replay. Jobs that were replayed go
    on.
    """
    if everything == bool(job_ids):
        raise click.UsageError("expected IDs of jobs, or --all")
    if not everything and (where or rate or dry_run or as_json):
        raise click.UsageError("--where, --rate, --dry-run and --json need --all")
    client = connect()
    grants: dict[str, Any] = {"steps": steps or 50, "time_s": time_s or None, "wait_s": wait_s or None}
    if everything:
        from midwatch.workers.cli.commands.dlq_bulk import print_groups, run_bulk_replay

        bulk = client.dead_letters.replay_all(**where, **grants, rate_per_s=rate)
        if dry_run:
            print_groups(bulk, as_json=as_json, dry_run=True)
            return
        if code := run_bulk_replay(bulk, as_json=as_json):
            raise click.exceptions.Exit(code)
        return
    codes = [_replay(client, job_id, grants) for job_id in job_ids]
    if any(codes):
        raise click.exceptions.Exit(max(codes))


def _replay(client: Client, job_id: str, grants: dict[str, Any]) -> Exit:
    from midwatch.orchestration.errors import NotFound

    try:
        if client.dead_letters.replay(job_id, **grants):
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
