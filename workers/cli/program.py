"""The root of the command line: every command by name, and the short help that `midwatch --help` shows of it."""

from __future__ import annotations

import click

from midwatch.workers.cli.lazy_group import Lazy, LazyGroup

COMMANDS = {
    "Run": {
        "demo": Lazy(
            "midwatch.workers.cli.commands.demo:demo", "Show the whole system on this machine, faults switched on."
        ),
        "dev": Lazy(
            "midwatch.workers.cli.commands.demo:dev", "Run the whole system on this machine with your own agents."
        ),
        "worker": Lazy(
            "midwatch.workers.cli.commands.worker:worker", "Run one worker process; any number of them form the fleet."
        ),
        "flower": Lazy("midwatch.workers.cli.commands.flower:flower", "Serve Flower, with Midwatch's pages in it."),
        "simulate": Lazy(
            "midwatch.workers.cli.commands.simulate:simulate", "Serve a model on loopback, with faults on demand."
        ),
    },
    "Jobs": {
        "submit": Lazy("midwatch.workers.cli.commands.submit:submit", "Enqueue a job for an agent."),
        "jobs": Lazy("midwatch.workers.cli.commands.jobs:jobs", "List, show, follow and cancel jobs."),
        "trace": Lazy("midwatch.workers.cli.commands.trace:trace", "Show what a job did, step by step, and why."),
        "sessions": Lazy(
            "midwatch.workers.cli.commands.sessions:sessions",
            "Read, compact and forget the conversations that jobs take place in.",
        ),
    },
    "Attend": {
        "dlq": Lazy("midwatch.workers.cli.commands.dlq:dlq", "List, show, replay and discard dead letters."),
        "approvals": Lazy(
            "midwatch.workers.cli.commands.approvals:approvals", "Approve or reject steps that are parked for a human."
        ),
        "gate": Lazy("midwatch.workers.cli.commands.gate:gate", "See and steer what goes to each downstream."),
    },
    "Look after": {
        "findings": Lazy("midwatch.workers.cli.commands.findings:findings", "Show what a person should look at."),
        "settings": Lazy(
            "midwatch.workers.cli.commands.settings:settings", "List every setting, its value, and where it comes from."
        ),
        "doctor": Lazy("midwatch.workers.cli.commands.doctor:doctor", "Check whether this deployment is safe to run."),
        "bench": Lazy("midwatch.workers.cli.commands.bench:bench", "Measure this machine."),
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
