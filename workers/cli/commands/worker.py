"""`midwatch worker`: run one Celery worker of the fleet. SIGTERM and Ctrl-C drain it."""

from __future__ import annotations

import difflib
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from midwatch.workers.cli.commands import worker_options
from midwatch.workers.cli.environment import BadSetting, find_mistyped, read_settings
from midwatch.workers.cli.exits import Exit

if TYPE_CHECKING:
    from midwatch.orchestration.agents.registry import Registry
    from midwatch.workers.cli.commands.worker_plan import WorkerPlan
    from midwatch.workers.settings import Settings

QUEUES = "model,tools,maintenance"


def split_queues(_context: click.Context, _parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """Split `model,tools` into a tuple. The order is kept, and duplicates are removed."""
    known = QUEUES.split(",")
    queues = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for queue in queues:
        if queue not in known:
            near = difflib.get_close_matches(queue, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise click.BadParameter(f"{queue!r}: expected some of {QUEUES}{hint}")
    if not queues:
        raise click.BadParameter(f"expected some of {QUEUES}, got none")
    return queues


@click.command()
@click.option(
    "-Q", "--queues", metavar="Q,...", default=QUEUES, show_default=True, callback=split_queues, help="Queues to serve."
)
@click.option(
    "-P", "--pool", metavar="POOL", callback=worker_options.read_pool,
    help="How steps run concurrently: threads, prefork or solo.",
)  # fmt: skip
@click.option(
    "-c", "--concurrency", metavar="N", callback=worker_options.read_concurrency, help="How many steps run at once."
)
@click.option(
    "-n", "--name", "--hostname", "name", metavar="NAME", help="Name in logs and in Flower: w1, or w1@%h as in Celery."
)
@click.option(
    "-l", "--loglevel", type=click.Choice(worker_options.LEVELS, case_sensitive=False), expose_value=False,
    callback=worker_options.set_level, help="Instead of MIDWATCH_LOG_LEVEL.",
)  # fmt: skip
@click.option(
    "-E", "--task-events", "--events", is_flag=True, expose_value=False, callback=worker_options.set_events,
    help="Send events, whatever MIDWATCH_EVENTS says.",
)  # fmt: skip
@click.option(
    "--autoscale", metavar="MAX,MIN", callback=worker_options.read_autoscale, help="Children of a prefork pool."
)
@click.option(
    "--max-tasks-per-child", type=click.IntRange(1), metavar="N",
    help="Replace a child of a prefork pool after N steps. For tools that leak.",
)  # fmt: skip
@click.option(
    "--max-memory-per-child", type=click.IntRange(1), metavar="KIB",
    help="Replace a child of a prefork pool that has used more, after its step.",
)  # fmt: skip
@click.option("--pidfile", metavar="PATH", help="File for the process id.")
@click.option("-f", "--logfile", metavar="PATH", help="File for all output. %n is the name, %h the host.")
@click.option(
    "--embedded",
    is_flag=True,
    help="Also run a Valkey server, for a laptop. Its data stays in ~/.local/state/midwatch.",
)
@worker_options.refuse_others
def worker(
    queues: tuple[str, ...], pool: str | None, concurrency: int | None, name: str | None, embedded: bool,
    logfile: str | None, **celery: Any,
) -> None:  # fmt: skip
    """Run one worker process. All workers together form the fleet.

    Needs MIDWATCH_AGENTS. At equal priority the queues take turns. By default a worker for the tools queue alone uses a prefork
    pool with one child per CPU, because a hanging child can be killed. A worker for the model queue alone has 100 threads,
    any other worker has 16. After SIGTERM or Ctrl-C the worker finishes running steps and takes no new ones.

    Options have Celery's short forms. An option of `celery worker` that a fleet does not take is refused with the reason.
    """
    if logfile:
        worker_options.append_to_file(logfile, worker_options.make_node(name))
    current = read_settings()
    with _start_server(current) if embedded else nullcontext():
        code = run(current, queues, pool, concurrency, name, worker_options.CeleryOptions(**celery))
    if code:
        raise click.exceptions.Exit(code)


def run(
    current: Settings, queues: tuple[str, ...], pool: str | None, concurrency: int | None, name: str | None,
    celery: worker_options.CeleryOptions,
) -> int:  # fmt: skip
    """Load the agents, then run the worker until a signal ends it. Returns the exit code."""
    from celery.utils.sysinfo import cpu_budget  # type: ignore[attr-defined]  # newer than its stubs

    from midwatch.workers.cli.commands.load_agents import load_agents
    from midwatch.workers.cli.commands.worker_plan import make_plan

    if not current.agents:
        raise BadSetting(
            "MIDWATCH_AGENTS: expected the modules that define your agents, got nothing; a worker can't run without agents"
        )
    agents = load_agents(current)
    chosen = make_plan(
        queues=queues,
        pool=pool,
        concurrency=concurrency,
        name=name,
        events=current.events,
        agents=agents,
        cpus=cpu_budget().count,
        celery=celery,
    )
    return _serve(current, chosen, agents)


def _check_before_start(current: Settings, queues: tuple[str, ...], agents: Registry) -> None:
    """Wait for the servers, and look for the providers' credentials. A worker that says ready must be able to work."""
    from midwatch.workers.process import boot_check, prepare
    from midwatch.workers.process.runtime import make_model_loader

    boot_check.await_servers(current)
    wanted = prepare.find_providers(agents, queues)
    load = make_model_loader(current)
    missing = {name: why for name in wanted if (why := prepare.find_missing(load, name))}
    boot_check.refuse_without_credentials(wanted, missing)


def _serve(current: Settings, chosen: WorkerPlan, agents: Registry) -> int:
    """Run Celery's worker with this package's logging."""
    import structlog
    from celery import signals

    from midwatch.workers import telemetry
    from midwatch.workers.celery_app.app import app

    ended: dict[str, Any] = {}

    def configure(**_: object) -> None:
        telemetry.configure(current)

    def keep_worker(instance: Any, **_: object) -> None:
        ended["worker"] = instance

    def keep_signal(sig: str, **_: object) -> None:
        ended["signal"] = sig

    signals.setup_logging.connect(configure, weak=False)
    signals.celeryd_init.connect(keep_worker, weak=False)
    signals.worker_shutting_down.connect(keep_signal, weak=False)
    telemetry.configure(current)
    logging.captureWarnings(True)  # as plain text, Celery's warnings would break the stream of log lines
    log = structlog.get_logger("midwatch.worker")
    log.info(
        "worker.starting",
        queues=list(chosen.queues),
        pool=chosen.pool,
        concurrency=chosen.concurrency,
        time_limit_s=chosen.time_limit_s,
        prefix=current.prefix,
        agents=sorted(agent.name for agent in agents),
    )
    for warning in filter(None, (chosen.warning, *find_mistyped())):
        log.warning("worker.advice", advice=warning)
    _check_before_start(current, chosen.queues, agents)
    app.worker_main(chosen.argv(current.prefix))
    if ended.get("signal") == "SIGINT":
        return Exit.INTERRUPTED
    return int(getattr(ended.get("worker"), "exitcode", None) or 0)


def _start_server(current: Settings) -> AbstractContextManager[object]:
    """Start a server at the address in the settings, so that producers with the same environment find it."""
    from pathlib import Path
    from urllib.parse import urlsplit

    from midwatch.orchestration.errors import ConfigError
    from midwatch.workers.cli.commands.doctor_checks import LOOPBACK
    from midwatch.workers.local.embedded_server import EmbeddedServer

    parts = urlsplit(current.redis_url)
    if parts.hostname not in LOOPBACK or parts.scheme != "redis" or parts.password:
        raise BadSetting(
            "--embedded runs a server on this machine: expected MIDWATCH_REDIS_URL=redis://127.0.0.1:PORT/0"
        )
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    port = parts.port or 6379
    try:
        return EmbeddedServer(Path(state) / "midwatch" / f"server-{port}", port=port)
    except ConfigError as error:
        raise BadSetting(
            f"--embedded: {error}. If a server runs there, leave --embedded out; or set MIDWATCH_REDIS_URL"
        ) from error
