"""`midwatch dlq`: list and show dead letters and poison messages, and replay or discard dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands.dlq_replay import replay
from midwatch.workers.cli.commands.dlq_show import MOST_POISON, POISON, find_poison, show_letter
from midwatch.workers.cli.environment import connect, server_ms
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.lazy_group import OrderedGroup
from midwatch.workers.cli.letter_options import conditions, make_filter
from midwatch.workers.cli.tables import Column, print_table
from midwatch.workers.views.output import document, duration, pluralize, say, stream_json
from midwatch.workers.views.unreadable import unreadable_as_json, warn_of_unreadable

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client
    from midwatch.orchestration.errors import UnreadableRecord
    from midwatch.orchestration.protocol.reading import Listing
    from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord


@click.group(cls=OrderedGroup)
def dlq() -> None:
    """List, show, replay and discard dead letters.

    A dead letter is a step that will not be tried again. Its job and its session wait for a decision. Poison is a message
    that can't become a step. It is kept for inspection, and expires.
    """


@dlq.command("list")
@conditions
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", default=50, show_default=True, help="Most letters to list."
)
@options.as_json
def list_letters(limit: int, as_json: bool, **given: Any) -> None:
    """List dead letters and poison messages, the newest first.

    Conditions are combined: a letter must meet all of them. With conditions, poison messages are left out, because they have
    no agent and no failure. With `--json`, letters are read and printed page by page.
    """
    from midwatch.orchestration.protocol.reading import Listing

    client, wanted = connect(), make_filter(**given)
    poison = client.operations.poison(min(limit, MOST_POISON)) if not any(given.values()) else Listing()
    unreadable = [*poison.unreadable]
    letters = read_letters(client.operations.letters.pages(wanted), limit, unreadable)
    if as_json:
        stream_json(_as_json(letters, poison, unreadable))
        warn_of_unreadable(unreadable)
        return
    shown = list(letters)
    warn_of_unreadable(unreadable)
    now_ms = server_ms(client) if shown or poison else 0
    if shown or not poison:
        print_letters(
            shown, now_ms, "no dead letter fits these conditions" if any(given.values()) else "no dead letters"
        )
    if poison:
        if shown:
            click.echo()
        print_poison(poison, now_ms)


def read_letters(
    pages: Iterator[Listing[DeadLetterRecord]], limit: int, unreadable: list[UnreadableRecord]
) -> Iterator[DeadLetterRecord]:
    """The first `limit` letters of these pages. The errors of damaged letters are added to `unreadable`."""
    for page in pages:
        unreadable += page.unreadable
        yield from page[:limit]
        limit -= len(page)
        if limit <= 0:
            return


def _as_json(
    letters: Iterator[DeadLetterRecord], poison: list[PoisonRecord], unreadable: list[UnreadableRecord]
) -> Iterator[tuple[str, object]]:
    yield "dead_letters", (document(each) for each in letters)
    yield "poison", [document(each) for each in poison]
    yield from unreadable_as_json(unreadable).items()  # complete only when all letters have been read


def print_letters(letters: list[DeadLetterRecord], now_ms: int, empty: str = "no dead letters") -> None:
    """Print dead letters as a table."""
    columns = [
        Column("JOB"),
        Column("AGENT", kind="spare"),
        Column("STEP"),
        Column("TOOL", kind="spare"),
        Column("TRIES", "right", "spare"),
        Column("REDRIVE", kind="spare"),
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
            describe_redrive(letter),
            duration(now_ms - letter.dead_ms),
            letter.failure.kind.value,
            letter.failure.detail,
        )
        for letter in letters
    ]
    print_table(columns, rows, empty=empty)


def describe_redrive(letter: DeadLetterRecord) -> str:
    """Who replays the letter, in one word for a table. Empty: a human, as by default."""
    if letter.redrive:
        return "auto"
    return f"{letter.generation} failed" if letter.generation else ""


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


dlq.add_command(show_letter)
dlq.add_command(replay)


@dlq.command("discard")
@click.argument("job_id", metavar="[ID]", required=False, callback=options.expand_job_ids)
@click.option("--poison", is_flag=True, help="Discard all poison messages.")
def discard(job_id: str | None, poison: bool) -> None:
    """Give up a dead letter, or remove poison messages. After a dead letter, its session goes on with the next job.

    ID is that of a job, or of a poison message. `dlq list --json` and `doctor` count poison messages until they are discarded.
    """
    if poison == bool(job_id):
        raise click.UsageError("expected the ID of a job or of a poison message, or --poison")
    client = connect()
    found = find_poison(client, job_id) if job_id and job_id.startswith(POISON) else None
    if job_id is None or found:
        discard_poison(client, found.poison_id if found else None)
        return
    if client.dead_letters.discard(job_id):
        say(f"job {job_id} is given up; its session goes on")
        return
    status = client.jobs.show(job_id).status
    if status == "dead_lettered":
        say(f"job {job_id} was already discarded")
        return
    say(f"job {job_id} is {status} and not a dead letter: nothing to discard")
    raise click.exceptions.Exit(Exit.REFUSED)


def discard_poison(client: Client, poison_id: str | None) -> None:
    """Remove one poison message, or all of them."""
    from midwatch.workers.celery_app.poison import PoisonList

    messages = PoisonList(client.store.client, client.operations.keys.poison())
    if poison_id is None:
        say(f"{pluralize(messages.discard_all(), 'poison message')} discarded")
        return
    done = messages.discard(poison_id)
    say(f"{poison_id} is discarded" if done else f"{poison_id} was already discarded")
