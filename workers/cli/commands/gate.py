"""`midwatch gate`: show the state of each downstream, change its limits, and pause, open or block it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect, server_ms
from midwatch.workers.cli.lazy_group import OrderedGroup
from midwatch.workers.views.durations import parse_seconds
from midwatch.workers.views.output import duration, iso, print_json, say

if TYPE_CHECKING:
    from rich.console import RenderableType

    from midwatch.orchestration.admission.board import Board
    from midwatch.orchestration.client.client import Client
    from midwatch.schemas.limits import DownstreamStatus


def seconds(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """Parse `90`, `90s`, `10m`, `2h` or `1d` into seconds."""
    try:
        return parse_seconds(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def for_option(default: str) -> Callable[[Any], Any]:
    """The option `--for`, with a default such as 10m."""
    return click.option(
        "--for", "length_s", metavar="TIME", default=default, show_default=True, callback=seconds, help="How long."
    )


downstream = click.argument("name", metavar="DOWNSTREAM")


@click.group(cls=OrderedGroup)
def gate() -> None:
    """Show, limit, pause or block the calls to a downstream.

    A downstream is the target of calls that share its limits: `anthropic:claude-sonnet-4-6`, or the name that a tool declares,
    such as `jira`. All workers obey a change with their next call.
    """


@gate.command("status")
@click.argument("name", metavar="[DOWNSTREAM]", required=False)
@click.option("--watch", is_flag=True, help="Look every second until Ctrl-C; with --json, a line each time.")
@options.as_json
def status(name: str | None, watch: bool, as_json: bool) -> None:
    """Show the state of every downstream, or everything about one."""
    from midwatch.workers.cli import watch_loop

    if watch and not as_json and not sys.stdout.isatty():
        raise click.UsageError("--watch draws on a terminal; add --json for a line of JSON every second")
    client = connect()
    if as_json and watch:
        watch_loop.print_lines(lambda: _document(client, name))
    elif as_json:
        print_json(_document(client, name))
    elif watch:
        watch_loop.draw(lambda: _frame(client, name))
    else:
        _print(client, name)


def _print(client: Client, name: str | None) -> None:
    from midwatch.workers.cli.commands.gate_status import COLUMNS, card, row
    from midwatch.workers.cli.tables import print_card, print_table

    if name is None:
        found = client.gate.status()
        now_ms = server_ms(client) if found else 0
        empty = "no downstreams yet: one is listed from its first call on, or once `midwatch gate set` names it"
        print_table(COLUMNS, [row(each, now_ms) for each in found], empty=empty)
    else:
        print_card(card(standing(client.gate, name), client.gate.limits(name), server_ms(client)))


def _document(client: Client, name: str | None) -> dict[str, Any]:
    from midwatch.workers.cli.commands.gate_status import as_document

    if name is None:
        return {"downstreams": [as_document(each) for each in client.gate.status()]}
    return as_document(standing(client.gate, name), client.gate.limits(name))


def _frame(client: Client, name: str | None) -> RenderableType:
    from midwatch.workers.cli.commands.gate_status import card_frame, table_frame

    if name is None:
        return table_frame(client.gate.status(), server_ms(client))
    return card_frame(standing(client.gate, name), client.gate.limits(name), server_ms(client))


def standing(board: Board, name: str) -> DownstreamStatus:
    """Return the state of a downstream. Raises NotFound. If a pattern counts for the name, the error names the pattern."""
    from midwatch.orchestration.errors import NotFound

    try:
        return board.show(name)
    except NotFound as error:
        pattern = _pattern(board, name)
        if pattern is None:
            raise
        raise NotFound(f"calls to {name!r} count against {pattern!r}: name that (in quotes)") from error


def _pattern(board: Board, name: str) -> str | None:
    """Return the configured pattern under which calls to this name are counted."""
    from midwatch.orchestration.admission.names import resolve

    found = resolve(name, board.names())
    return found if found != name else None


KEYS = (
    "Keys: rpm, itpm, otpm, tpm (or requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, "
    "tokens_per_minute), burst_s, headroom, reserve_output, count_cached, tenant_weights.NAME, priority_weights.NAME, "
    "fail_ratio, min_calls, failures_in_a_row, window_s, open_s, open_max_s, probes, trial_gap_s, ramp_s, recover_s, cut, "
    "retry_ratio, retry_floor_per_s, pause_max_s."
)


@gate.command("set", epilog=KEYS)
@downstream
@click.argument("assignments", metavar="KEY=VALUE...", nargs=-1, required=True)
def set_limits(name: str, assignments: tuple[str, ...]) -> None:
    """Change limits of a downstream, which all workers obey at once.

    For example rpm=50 itpm=40k tenant_weights.acme=3. A number may end in k or M; `none` goes back to the default, which
    for a rate is no limit. The newest version wins, so a `midwatch.toml` that is written later replaces the change.
    """
    from midwatch.orchestration.admission.configuration import defaults
    from midwatch.orchestration.errors import NotFound
    from midwatch.workers.cli.assignments import list_differences, parse_changes

    board = connect().gate
    try:
        before, known = board.limits(name), True
    except NotFound:
        before, known = defaults(name), False
        if pattern := _pattern(board, name):
            raise NotFound(f"calls to {name!r} count against {pattern!r}: set that (in quotes)") from None
    after = board.set(name, **parse_changes(assignments, before, defaults(name)))
    if not known:
        say(f"{name} is new: it has had no call yet, so check its name; `midwatch gate status` lists the others")
    for line in list_differences(before, after) or ["nothing changed"]:
        say(f"{name}: {line}")


@gate.command("pause")
@downstream
@for_option("10m")
def pause(name: str, length_s: float) -> None:
    """Admit no call for a while. Calls wait in line; afterwards they start again, slowly at first."""
    from midwatch.workers.cli.commands.gate_status import undoing

    board = connect().gate
    standing(board, name)
    board.pause(name, length_s)
    after = board.show(name)
    longer = " (it was paused for longer already)" if after.paused_ms > length_s * 1_000 else ""
    until = f"until {iso(after.paused_until_ms)[:19]}Z, for {duration(after.paused_ms)}{longer}"
    say(f"{name}: paused {until}; calls wait. `{undoing('resume', name)}` ends it")


@gate.command("resume")
@downstream
def resume(name: str) -> None:
    """End a pause that an operator or a provider caused."""
    board = connect().gate
    paused = standing(board, name).paused_ms > 0
    board.resume(name)
    say(f"{name}: takes calls again, slowly at first" if paused else f"{name} was not paused: nothing to do")


@gate.command("open")
@downstream
@for_option("10m")
def open_breaker(name: str, length_s: float) -> None:
    """Open the breaker: calls wait, then a few calls test the downstream."""
    from midwatch.workers.cli.commands.gate_status import undoing

    board = connect().gate
    standing(board, name)
    board.open(name, length_s)
    length = duration(board.show(name).open_ms)
    say(f"{name}: its breaker is open for {length}, then a few calls probe it. `{undoing('close', name)}` ends it")


@gate.command("close")
@downstream
def close_breaker(name: str) -> None:
    """Close the breaker: calls start without a probe, slowly at first."""
    board = connect().gate
    closed = standing(board, name).breaker == "closed"
    board.close(name)
    say(
        f"{name}: its breaker was closed: nothing to do"
        if closed
        else f"{name}: its breaker is closed; calls start again, slowly at first"
    )


@gate.command("block")
@downstream
@click.argument("reason")
@for_option("1d")
def block(name: str, reason: str, length_s: float) -> None:
    """Deny every call, with a reason that the dead letter shows. Jobs become dead letters; replay them afterwards."""
    from midwatch.workers.cli.commands.gate_status import undoing

    if not reason.strip():
        raise click.BadParameter("expected a reason, got an empty text; the dead letters show it", param_hint="REASON")
    board = connect().gate
    standing(board, name)
    board.block(name, " ".join(reason.split()), length_s)
    length = duration(board.show(name).blocked_ms)
    say(f"{name}: blocked for {length}; its calls become dead letters. `{undoing('unblock', name)}` lifts it")


@gate.command("unblock")
@downstream
def unblock(name: str) -> None:
    """Lift a block that an operator or a spend cap caused."""
    board = connect().gate
    blocked = standing(board, name).blocked_ms > 0
    board.unblock(name)
    again = "; `midwatch dlq list` shows the denied calls: replay them"
    say(f"{name}: takes calls again{again}" if blocked else f"{name} was not blocked: nothing to do")
