"""`midwatch dlq replay --all`: replay all letters that match, with progress on a terminal, until it is done or stopped."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.tables import Column, print_table
from midwatch.workers.views.output import pluralize, print_json, printable, say

if TYPE_CHECKING:
    from midwatch.orchestration.client.letters.bulk_replay import BulkReplay, GroupReplay

WIDTH = 100
"""Columns of the progress line."""


def run_bulk_replay(replay: BulkReplay, *, as_json: bool) -> Exit:
    """Run the replay and print its result. Ctrl-C ends it after the batch that is being written."""
    interrupted = False
    with _interrupt() as is_interrupted, _progress_line() as draw:
        for _ in replay.run():
            draw(_describe_progress(replay))
            if interrupted := bool(is_interrupted):
                break
    print_groups(replay, as_json=as_json, dry_run=False)
    left = sum(group.left for group in replay.groups)
    if interrupted:
        say(f"interrupted: {pluralize(replay.replayed, 'letter')} replayed, {left:,} left; the replayed jobs go on")
        return Exit.INTERRUPTED
    for group in replay.stopped:
        say(
            f"stopped: {group.group} fails again ({group.failed} of {group.passed + group.failed} replays); "
            f"{pluralize(group.left, 'letter')} left as they were. Mend the cause, then replay again"
        )
    return Exit.FAILED if replay.stopped else Exit.OK


def print_groups(replay: BulkReplay, *, as_json: bool, dry_run: bool) -> None:
    """Print what the replay will do, or what it did, by group."""
    if as_json:
        print_json(_document(replay, dry_run))
        return
    columns = [Column("KIND"), Column("AT"), Column("LETTERS", "right")]
    if not dry_run:
        columns += [Column(name, "right") for name in ("REPLAYED", "PASSED", "FAILED", "UNDER WAY")]
    rows = [
        (
            group.group.kind,
            group.group.downstream or group.group.agent,
            str(group.letters),
            *map(str, (group.replayed, group.passed, group.failed, len(group.window.under_way))),
        )[: len(columns)]
        for group in replay.groups
    ]
    print_table(columns, rows, empty="no dead letter matches")
    if replay.unreadable:
        say(f"{pluralize(replay.unreadable, 'letter')} can't be read by this release and can't be replayed")


def _document(replay: BulkReplay, dry_run: bool) -> dict[str, Any]:
    groups = replay.groups
    return {
        "dry_run": dry_run,
        "letters": sum(group.letters for group in groups),
        "replayed": replay.replayed,
        "passed": sum(group.passed for group in groups),
        "failed": sum(group.failed for group in groups),
        "under_way": sum(len(group.window.under_way) for group in groups),
        "left": sum(group.left for group in groups),
        "unreadable": replay.unreadable,
        "groups": [_group_document(group) for group in groups],
    }


def _group_document(group: GroupReplay) -> dict[str, Any]:
    return {
        "kind": group.group.kind,
        "downstream": group.group.downstream or None,
        "agent": group.group.agent or None,
        "letters": group.letters,
        "replayed": group.replayed,
        "passed": group.passed,
        "failed": group.failed,
        "under_way": len(group.window.under_way),
        "stopped": group.window.closed,
    }


def _describe_progress(replay: BulkReplay) -> str:
    letters = sum(group.letters for group in replay.groups)
    passed, failed = (sum(getattr(group, name) for group in replay.groups) for name in ("passed", "failed"))
    under_way = sum(len(group.window.under_way) for group in replay.groups)
    line = f"{replay.replayed:,} of {letters:,} replayed  {passed:,} passed  {failed:,} failed  {under_way:,} under way"
    probing = [group for group in replay.groups if group.window.is_probing and group.window.under_way]
    return f"{line}  probing {probing[0].group}" if probing else line


@contextmanager
def _progress_line() -> Iterator[Any]:
    """A function that draws a line over the last one on a terminal, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return

    def draw(text: str) -> None:
        click.echo("\r" + printable(text, WIDTH).ljust(WIDTH), nl=False, err=True)

    try:
        yield draw
    finally:
        click.echo("\r" + " " * WIDTH + "\r", nl=False, err=True)


@contextmanager
def _interrupt() -> Iterator[list[int]]:
    """A list that is filled by the first Ctrl-C. The second one interrupts at once."""
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)
