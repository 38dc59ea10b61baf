"""The root of the command line: the name and the short help of every command."""

from __future__ import annotations

import click

from midwatch.workers.cli.lazy_group import LazyCommand, LazyGroup

COMMANDS = {
    "Run": {
        "demo": LazyCommand(
            "midwatch.workers.cli.commands.demo:demo", "Show the whole system on this machine, with faults switched on."
        ),
        "dev": LazyCommand(
            "midwatch.workers.cli.commands.dev:dev", "Run the whole system on this machine with your own agents."
        ),
        "worker": LazyCommand(
            "midwatch.workers.cli.commands.worker:worker",
            "Run one worker process. All workers together form the fleet.",
        ),
        "flower": LazyCommand("midwatch.workers.cli.commands.flower:flower", "Serve Flower with Midwatch's pages."),
        "simulate": LazyCommand(
            "midwatch.workers.cli.commands.simulate:simulate",
            "Serve a simulated model on loopback, with faults on demand.",
        ),
    },
    "Jobs": {
        "submit": LazyCommand("midwatch.workers.cli.commands.submit:submit", "Enqueue a job for an agent."),
        "jobs": LazyCommand("midwatch.workers.cli.commands.jobs:jobs", "List, show, follow and cancel jobs."),
        "trace": LazyCommand(
            "midwatch.workers.cli.commands.trace:trace", "Show what a job did, step by step, and why."
        ),
        "sessions": LazyCommand(
            "midwatch.workers.cli.commands.sessions:sessions",
            "Read, compact and forget the conversations of jobs.",
        ),
    },
    "Attend": {
        "dlq": LazyCommand("midwatch.workers.cli.commands.dlq:dlq", "List, show, replay and discard dead letters."),
        "approvals": LazyCommand(
            "midwatch.workers.cli.commands.approvals:approvals", "Approve or reject steps that are parked for a human."
        ),
        "gate": LazyCommand(
            "midwatch.workers.cli.commands.gate:gate",
            "Show, limit, pause or block the calls to a downstream.",
        ),
    },
    "Look after": {
        "workers": LazyCommand("midwatch.workers.cli.commands.workers:workers", "List the workers of the fleet."),
        "findings": LazyCommand(
            "midwatch.workers.cli.commands.findings:findings", "Show findings that a person should look at."
        ),
        "settings": LazyCommand(
            "midwatch.workers.cli.commands.settings:settings", "List every setting with its value and its source."
        ),
        "doctor": LazyCommand(
            "midwatch.workers.cli.commands.doctor:doctor", "Check whether this deployment is safe to run."
        ),
        "bench": LazyCommand("midwatch.workers.cli.commands.bench:bench", "Run benchmarks on this machine."),
    },
}


@click.group(
    "midwatch",
    cls=LazyGroup,
    sections=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every listing takes --json. Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 refused, "
    "5 Redis unreachable, 6 a wait timed out, 7 parked for a human, 130 interrupted.",
)
@click.version_option(package_name="midwatch", message="%(prog)s %(version)s")
def program() -> None:
    """A worker fleet for LLM agents on Celery and Redis.

    Begin with `midwatch demo`. Settings come from environment variables such as MIDWATCH_REDIS_URL and MIDWATCH_AGENTS.
    `midwatch settings` lists them all.
    """
