"""`midwatch submit`: enqueue a job by its agent's name. With `--wait`, wait for its end."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import connect
from midwatch.workers.cli.exits import Exit
from midwatch.workers.views.output import print_json, print_text, say

if TYPE_CHECKING:
    from midwatch.orchestration.client.job_result import JobResult


@click.command()
@click.argument("agent")
@click.argument("input")
@click.option("--session", metavar="ID", help="Session to continue. A new id begins a new session.")
@click.option("--key", metavar="KEY", help="Idempotency key. The same key again returns the same job.")
@click.option("--tenant", metavar="ID", help="Tenant that the job belongs to.")
@click.option("--priority", type=click.Choice(("high", "normal", "low")), default="normal", show_default=True)
@click.option("--wait", is_flag=True, help="Wait for the end, and print the output.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), metavar="SECONDS", help="How long to wait.")
@options.as_json
def submit(
    agent: str,
    input: str,
    session: str | None,
    key: str | None,
    tenant: str | None,
    priority: str,
    wait: bool,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Enqueue a job for an agent.

    INPUT is the text itself, `-` for stdin, or `@FILE`. Prints the job's id. With --wait it prints the job's output. The
    exit code is then 0 for completed, 1 for dead-lettered, cancelled or timed out, 6 for still running, 7 for parked.
    """
    if timeout_s is not None and not wait:
        raise click.UsageError("--timeout needs --wait; add --wait")
    text = read_input(input)
    handle = connect().enqueue(
        check_agent_name(agent), text, session_id=session, idempotency_key=key, priority=priority, tenant=tenant
    )
    if not handle.accepted:
        say(f"job {handle.id} exists already: the same key returns the same job")
    if wait:
        report(handle.result(timeout_s), as_json=as_json)
    elif as_json:
        print_json({"job_id": handle.id, "session_id": handle.session_id, "accepted": handle.accepted})
    else:
        click.echo(handle.id)


def read_input(given: str) -> str:
    """Read the job's input: the text itself, stdin, or a file."""
    if given != "-" and not given.startswith("@"):
        return given
    where = "stdin" if given == "-" else given[1:]
    try:
        raw = sys.stdin.buffer.read() if given == "-" else Path(where).read_bytes()
        return raw.decode()
    except OSError as error:
        hint = f"{error.strerror or error}; send a text that begins with @ through - and stdin"
        raise click.BadParameter(f"can't read {where!r}: {hint}", param_hint="INPUT") from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{where} is not UTF-8 text (byte {error.start})", param_hint="INPUT") from error


def check_agent_name(name: str) -> str:
    """Return the name if it is a valid agent name. Raises BadParameter."""
    from pydantic import TypeAdapter, ValidationError

    from midwatch.schemas.contract import Name

    try:
        return TypeAdapter[str](Name).validate_python(name)
    except ValidationError:
        expected = "expected a letter or _, then letters, digits, _ or -, at most 64"
        raise click.BadParameter(f"{name!r}: {expected}", param_hint="AGENT") from None


def report(result: JobResult, *, as_json: bool) -> None:
    """Print the job's result, and exit with its exit code."""
    if as_json:
        print_json(result.model_dump(mode="json"))
    elif result.output_or_none is not None:
        print_text(result.output_or_none)
    if result.status == "completed":
        return
    if result.status == "parked":
        say(f"job {result.job_id} is parked for a human: `midwatch approvals list` shows the question")
        raise click.exceptions.Exit(Exit.PARKED)
    failure = f": {result.failure.kind}: {result.failure.detail}" if result.failure else ""
    say(f"job {result.job_id} is {result.status}{failure}; `midwatch trace {result.job_id}` shows its steps")
    raise click.exceptions.Exit(Exit.FAILED)
