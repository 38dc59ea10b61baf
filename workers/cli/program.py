"""The root of the command line: every command by name, and the short help that `midwatch --help` shows of it."""

from __future__ import annotations

import click

from workers.cli.lazygroup import Lazy, LazyGroup

COMMANDS = {
    "Run": {
        "demo": Lazy("workers.cli.demo:demo", "Show the whole system on this machine, faults switched on."),
        "dev": Lazy("workers.cli.demo:dev", "Run the whole system on this machine with your own agents."),
        "worker": Lazy("workers.cli.worker:worker", "Run one worker process; any number of them form the fleet."),
        "flower": Lazy("workers.cli.flower:flower", "Serve Flower, with Midwatch's pages in it."),
        "simulate": Lazy("workers.cli.simulate:simulate", "Serve a model on loopback, with faults on demand."),
    },
    "Jobs": {
        "submit": Lazy("workers.cli.submit:submit", "Enqueue a job for an agent."),
        "jobs": Lazy("workers.cli.jobs:jobs", "List, show, follow and cancel jobs."),
        "trace": Lazy("workers.cli.trace:trace", "Show what a job did, step by step, and why."),
        "sessions": Lazy(
            "workers.cli.sessions:sessions", "Read, compact and forget the conversations that jobs take place in."
        ),
    },
    "Attend": {
        "dlq": Lazy("workers.cli.dlq:dlq", "List, show, replay and discard dead letters."),
        "approvals": Lazy("workers.cli.approvals:approvals", "Decide what was parked for a human."),
        "gate": Lazy("workers.cli.gate:gate", "See and steer what goes to each downstream."),
    },
    "Look after": {
        "findings": Lazy("workers.cli.findings:findings", "Show what a person should look at."),
        "settings": Lazy("workers.cli.settings:settings", "List every setting, its value, and where it comes from."),
        "doctor": Lazy("workers.cli.doctor:doctor", "Check whether this deployment is safe to run."),
        "bench": Lazy("workers.cli.bench:bench", "Measure this machine."),
    },
}


@click.group(
    "midwatch",
    cls=LazyGroup,
    sections=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every listing takes --json. Exit codes: 0 fine, 1 the operation failed, 2 usage, 3 not found, 4 refused, "
    "5 Redis unreachable, 6 a wait timed out, 7 parked for a human, 130 interrupted.",
)
@click.version_option(package_name="midwatch", message="%(prog)s %(version)s")
def program() -> None:
    """A worker fleet for LLM agents on Celery and Redis.

    Begin with `midwatch demo`. Where things are is read from MIDWATCH_REDIS_URL, MIDWATCH_AGENTS and the others that
    `midwatch settings` lists.
    """
