"""`midwatch dlq`: list and show dead letters and poison messages, and replay or discard dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect, server_ms
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.lazy_group import OrderedGroup
from midwatch.workers.cli.tables import Column, print_card, print_table
from midwatch.workers.views.output import document, duration, iso, print_json, say
from midwatch.workers.views.unreadable import unreadable_as_json, warn_of_unreadable

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client
    from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord

POISON = "poison-"
MOST_POISON = 1_000
"""The poison list keeps at most this many."""


@click.group(cls=OrderedGroup)
def dlq() -> None:
    """List, show, replay and discard dead letters.

    A dead letter is a step that will not be tried again. Its job and its session wait for a decision. Poison is a message
    that can't become a step. It is kept for inspection, and expires.
    """


@dlq.command("list")
@options.limit
@options.as_json
def list_letters(limit: int, as_json: bool) -> None:
    """List dead letters and poison messages, the newest first."""
    client = connect()
    letters, poison = client.dead_letters.list(limit=limit), client.operations.poison(limit)
    unreadable = [*letters.unreadable, *poison.unreadable]
    warn_of_unreadable(unreadable)
    if as_json:
        shown = {"dead_letters": [document(each) for each in letters], "poison": [document(each) for each in poison]}
        print_json({**shown, **unreadable_as_json(unreadable)})
        return
    now_ms = server_ms(client) if letters or poison else 0
    columns = [
        Column("JOB"),
        Column("AGENT"),
        Column("STEP"),
        Column("TOOL", kind="spare"),
        Column("TRIES", "right", "spare"),
        Column("AGE", "right"),
        Column("FAILURE"),
        Column("DETAIL", kind="long"),
    ]
    rows = [
        (
            letter.job_id,
            letter.agent,
            letter.step,
            letter.tool or "",
            str(len(letter.tries)),
            duration(now_ms - letter.dead_ms),
            letter.failure.kind.value,
            letter.failure.detail,
        )
        for letter in letters
    ]
    if letters or not poison:
        print_table(columns, rows, empty="no dead letters")
    if poison:
        if letters:
            click.echo()
        print_poison(poison, now_ms)


def print_poison(poison: list[PoisonRecord], now_ms: int) -> None:
    """Print the messages that can't become a step."""
    columns = [
        Column("POISON"),
        Column("QUEUE"),
        Column("BYTES", "right", "spare"),
        Column("AGE", "right"),
        Column("REASON", kind="long"),
    ]
    rows = [
        (each.poison_id, each.queue, str(each.size_bytes), duration(now_ms - each.seen_ms), each.reason)
        for each in poison
    ]
    print_table(columns, rows, empty="")


@dlq.command("show")
@options.job_id
@options.as_json
def show_letter(job_id: str, as_json: bool) -> None:
    """Show one dead letter with its tries, or one poison message with its body."""
    client = connect()
    poison = _find_poison(client, job_id) if job_id.startswith(POISON) else None
    if poison is not None:
        if as_json:
            print_json(document(poison))
        else:
            print_card(_poison_card(poison))
        return
    letter = client.dead_letters.show(job_id)
    if as_json:
        print_json(document(letter))
    else:
        print_card(_letter_card(letter))


def _find_poison(client: Client, poison_id: str) -> PoisonRecord | None:
    """Find a poison message. None: a producer has given a job such an id. Raises NotFound."""
    from midwatch.orchestration.errors import NotFound

    for each in client.operations.poison(MOST_POISON):
        if each.poison_id == poison_id:
            return each
    try:
        client.jobs.show(poison_id)
    except NotFound as error:
        raise NotFound(
            f"no poison message {poison_id!r}: at most {MOST_POISON:,} are kept; `midwatch dlq list` shows them"
        ) from error
    return None


def _poison_card(poison: PoisonRecord) -> list[tuple[str, str]]:
    return [
        ("poison", poison.poison_id),
        ("reason", poison.reason),
        ("queue", poison.queue),
        ("seen", iso(poison.seen_ms)),
        ("by worker", poison.worker),
        ("bytes", f"{poison.size_bytes:,}"),
        ("body", poison.body),
    ]


def _letter_card(letter: DeadLetterRecord) -> list[tuple[str, str]]:
    tries = [
        f"{iso(each.at_ms)}  {each.worker}  " + (f"{each.failure.kind}: {each.failure.detail}" if each.failure else "")
        for each in letter.tries
    ]
    return [
        ("job", letter.job_id),
        ("agent", letter.agent),
        ("session", letter.session_id),
        ("step", letter.step + (f" ({letter.tool})" if letter.tool else f" ({letter.kind})")),
        ("failure", f"{letter.failure.kind}: {letter.failure.detail}"),
        ("request", letter.failure.request_id or ""),
        ("dead since", iso(letter.dead_ms)),
        ("tries", "\n".join(tries)),
        ("next", f"midwatch trace {letter.job_id}\nmidwatch dlq replay {letter.job_id}"),
    ]


@dlq.command("replay")
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


@dlq.command("discard")
@options.job_id
def discard(job_id: str) -> None:
    """Give up a dead letter. Its session goes on with the next job."""
    client = connect()
    if client.dead_letters.discard(job_id):
        say(f"job {job_id} is given up; its session goes on")
        return
    status = client.jobs.show(job_id).status
    if status == "dead_lettered":
        say(f"job {job_id} was already discarded")
        return
    say(f"job {job_id} is {status} and not a dead letter: nothing to discard")
    raise click.exceptions.Exit(Exit.REFUSED)
