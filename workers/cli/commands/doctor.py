"""`midwatch doctor`: is this deployment safe to run? Each check reports its result and what to do."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, cast

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.commands import doctor_checks
from midwatch.workers.cli.environment import connect, find_mistyped, read_settings, without_password
from midwatch.workers.cli.exits import Exit
from midwatch.workers.cli.tables import Column, print_table
from midwatch.workers.views.output import print_json

if TYPE_CHECKING:
    import redis

    from midwatch.workers.cli.commands.doctor_checks import Check
    from midwatch.workers.settings import Settings


@click.command()
@options.as_json
def doctor(as_json: bool) -> None:
    """Check whether this deployment is safe to run.

    Exits with 1 if something is unsafe. Warnings alone exit with 0.
    """
    current = read_settings()
    checks = [*check_server(current), *check_environment(current)]
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        columns = [Column("CHECK"), Column("RESULT"), Column("FOUND"), Column("DO", kind="long")]
        rows = [(check.name, check.result, check.found, check.advice) for check in checks]
        print_table(columns, rows, whole=True, empty="")
    if any(check.result == "fail" for check in checks):
        raise click.exceptions.Exit(Exit.FAILED)


def check_server(current: Settings) -> list[Check]:
    """Check the server. Raises StoreUnavailable if it does not answer."""
    from midwatch.orchestration.store.damage.data_watch import read_mark
    from midwatch.orchestration.store.scripts import UNAVAILABLE, unavailable

    connected = connect()
    client = connected.store.client
    try:
        began_s = time.monotonic()
        client.ping()
        took_ms = (time.monotonic() - began_s) * 1_000
        info = cast("dict[str, object]", client.info("everything"))
        mark = read_mark(client, connected.operations.keys)
    except UNAVAILABLE as error:
        raise unavailable(error) from error
    found = f"{without_password(current.redis_url)}, answers in {took_ms:.1f} ms"
    return [
        doctor_checks.Check("server", "ok", found),
        doctor_checks.check_version(info),
        doctor_checks.check_role(info),
        doctor_checks.check_persistence(info, _read_snapshots(client)),
        doctor_checks.check_eviction(info),
        doctor_checks.check_data(mark.lost_ms if mark else 0, mark.moved_ms if mark else 0),
        doctor_checks.check_access(current.redis_url),
        doctor_checks.check_poison(_count_poison(client, current)),
        *check_workers(),
    ]


def check_workers() -> list[Check]:
    """Check whether each queue is served, and name the queues that jobs wait for."""
    from midwatch.orchestration.client.why import is_unexplained, needed_queue

    client = connect()
    open_jobs = [job for status in ("queued", "running") for job in client.jobs.list(limit=1_000, status=status)]
    needed = Counter(needed_queue(job) for job in open_jobs if is_unexplained(job))
    return doctor_checks.check_workers(client.workers.list(), needed)


def _count_poison(client: redis.Redis, current: Settings) -> int:
    from midwatch.orchestration.keyspace import Keyspace
    from midwatch.workers.celery_app.poison import PoisonList

    return PoisonList(client, Keyspace(current.prefix).poison()).count()


def _read_snapshots(client: redis.Redis) -> str | None:
    from redis.exceptions import ResponseError

    try:
        return cast("dict[str, str]", client.config_get("save")).get("save")
    except ResponseError:  # a managed server or an access list may forbid CONFIG
        return None


def check_environment(current: Settings) -> list[Check]:
    """Check the settings of this process: prefix, names of variables, agents."""
    checks = [doctor_checks.Check("prefix", "ok", f"{current.prefix} (workers with the same prefix form one fleet)")]
    checks += [doctor_checks.Check("environment", "warn", problem, "rename or unset it") for problem in find_mistyped()]
    return checks + _check_agents(current)


def _check_agents(current: Settings) -> list[Check]:
    from midwatch.orchestration.agents.known_models import find_ends
    from midwatch.workers.cli.commands.load_agents import find_missing, load_agents

    if not current.agents:
        advice = "set it for a worker; a producer does not need it"
        return [doctor_checks.Check("agents", "warn", "MIDWATCH_AGENTS is not set", advice)]
    try:
        loaded = load_agents(current)
    except ValueError as error:  # ConfigError is a ValueError
        return [doctor_checks.Check("agents", "fail", str(error), "correct the module, or MIDWATCH_AGENTS")]
    names = ", ".join(f"{agent.name} ({agent.model})" for agent in loaded)
    checks = [
        doctor_checks.Check("agents", "ok", names),
        *doctor_checks.check_credentials(find_missing(current, loaded)),
    ]
    for agent in loaded:
        checks += doctor_checks.check_schemas(agent.name, agent.schema_differences)
        checks += doctor_checks.check_model_ends(agent.name, find_ends(agent.all_models), date.today())
    return checks
