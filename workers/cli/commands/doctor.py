"""`midwatch doctor`: is this deployment safe to run? Every check says what it found and what to do."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands import checkup
from midwatch.workers.cli.environment import connect, mistyped, read_settings, without_password
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.tables import Column, print_table
from midwatch.workers.views.output import print_json

if TYPE_CHECKING:
    import redis

    from midwatch.workers.cli.commands.checkup import Check
    from midwatch.workers.settings import Settings


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Check whether this deployment is safe to run.

    Exits with 1 when something is unsafe; warnings alone are fine.
    """
    current = read_settings()
    checks = [*server_checks(current), *own_checks(current)]
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        columns = [Column("CHECK"), Column("RESULT"), Column("FOUND"), Column("DO", kind="long")]
        rows = [(check.name, check.result, check.found, check.advice) for check in checks]
        print_table(columns, rows, empty="")
    if any(check.result == "fail" for check in checks):
        raise click.exceptions.Exit(Exit.FAILED)


def server_checks(current: Settings) -> list[Check]:
    """What the server says of itself. Raises StoreUnavailable when it says nothing."""
    from midwatch.orchestration.store.scripts import UNAVAILABLE, unavailable

    client = connect().store.client
    try:
        began_s = time.monotonic()
        client.ping()
        took_ms = (time.monotonic() - began_s) * 1_000
        info = cast("dict[str, object]", client.info("everything"))
    except UNAVAILABLE as error:
        raise unavailable(error) from error
    found = f"{without_password(current.redis_url)}, answers in {took_ms:.1f} ms"
    return [
        checkup.Check("server", "ok", found),
        checkup.version(info),
        checkup.role(info),
        checkup.persistence(info, _snapshots(client)),
        checkup.eviction(info),
        checkup.access(current.redis_url),
    ]


def _snapshots(client: redis.Redis) -> str | None:
    from redis.exceptions import ResponseError

    try:
        return cast("dict[str, str]", client.config_get("save")).get("save")
    except ResponseError:  # a managed server, or an access list, may forbid CONFIG
        return None


def own_checks(current: Settings) -> list[Check]:
    """What lies on our side: prefix, names, agents."""
    checks = [checkup.Check("prefix", "ok", f"{current.prefix} (all fleets that share it are one)")]
    checks += [checkup.Check("environment", "warn", problem, "rename or unset it") for problem in mistyped()]
    return checks + _agents(current)


def _agents(current: Settings) -> list[Check]:
    from midwatch.workers.cli.commands.agents import load_agents

    if not current.agents:
        advice = "a worker needs MIDWATCH_AGENTS; a producer does not"
        return [checkup.Check("agents", "warn", "none named here", advice)]
    try:
        loaded = load_agents(current)
    except ValueError as error:  # ConfigError is one
        return [checkup.Check("agents", "fail", str(error), "mend the module, or MIDWATCH_AGENTS")]
    names = ", ".join(f"{agent.name} ({agent.model})" for agent in loaded)
    checks = [checkup.Check("agents", "ok", names)]
    for agent in loaded:
        checks += checkup.taken_otherwise(agent.name, agent.schema_differences)
    return checks
