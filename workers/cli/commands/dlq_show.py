"""`midwatch dlq show`: one dead letter with its tries, or one poison message with its body."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.tables import print_card
from midwatch.workers.views.output import document, iso, pluralize, print_json

if TYPE_CHECKING:
    from midwatch.orchestration.client.client import Client
    from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord

POISON = "poison-"
MOST_POISON = 1_000
"""The poison list keeps at most this many."""


@click.command("show")
@options.job_id
@options.content
@options.as_json
def show_letter(job_id: str, content: bool, as_json: bool) -> None:
    """Show one dead letter with its tries, or one poison message with its body.

    The job's input and the arguments of the failing call are shown with --content.
    """
    client = connect()
    poison = find_poison(client, job_id) if job_id.startswith(POISON) else None
    if poison is not None:
        if as_json:
            print_json(document(poison))
        else:
            print_card(_poison_card(poison))
        return
    letter = client.dead_letters.show(job_id)
    from midwatch.workers.cli.commands.jobs import content_card, read_failing_content

    job = client.jobs.show(letter.job_id)
    found = read_failing_content(client, job) if content else None
    if as_json:
        print_json({**document(letter), **({"content": asdict(found)} if found else {})})
    else:
        print_card([*_letter_card(letter), *content_card(job, found)])


def find_poison(client: Client, poison_id: str) -> PoisonRecord | None:
    """Find a poison message by its id, or by the beginning of it. None: a producer has given a job such an id.

    Raises:
        ConfigError: the text fits several messages.
        NotFound: it fits neither a message nor a job.

    """
    from midwatch.orchestration.client.jobs import only_match
    from midwatch.orchestration.errors import NotFound

    kept = {each.poison_id: each for each in client.operations.poison(MOST_POISON)}
    whole = poison_id if poison_id in kept else only_match(poison_id, kept, "poison messages")
    if whole in kept:
        return kept[whole]
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
        ("next", f"midwatch dlq discard {poison.poison_id}"),
    ]


def _letter_card(letter: DeadLetterRecord) -> list[tuple[str, str]]:
    tries = [
        f"{iso(each.at_ms)}  {each.worker}  " + (f"{each.failure.kind}: {each.failure.detail}" if each.failure else "")
        for each in letter.tries
    ]
    return [
        ("job", letter.job_id),
        ("agent", letter.agent),
        ("model", letter.model or ""),
        ("downstream", letter.downstream or ""),
        ("session", letter.session_id),
        ("step", letter.step + (f" ({letter.tool})" if letter.tool else f" ({letter.kind})")),
        ("failure", f"{letter.failure.kind}: {letter.failure.detail}"),
        ("request", letter.failure.request_id or ""),
        ("dead since", iso(letter.dead_ms)),
        ("redrive", _explain_redrive(letter)),
        ("tries", "\n".join(tries)),
        ("next", f"midwatch trace {letter.job_id}\nmidwatch dlq replay {letter.job_id}"),
    ]


def _explain_redrive(letter: DeadLetterRecord) -> str:
    """Say whether the letter is replayed without a human, and how often it was."""
    done = f"was replayed without a human {pluralize(letter.generation, 'time')}, and failed again"
    if letter.redrive:
        so_far = f"; it {done}" if letter.generation else ""
        return f"auto: it is replayed when its cause has passed{so_far}"
    return f"it {done}; it waits for you" if letter.generation else ""
