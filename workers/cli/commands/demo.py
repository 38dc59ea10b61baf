"""`midwatch demo`: show the whole system on this machine, with faults switched on."""

from __future__ import annotations

import click

from midwatch.workers.cli import options


@click.command()
@click.option(
    "--jobs", type=click.IntRange(1, 10_000), default=60, show_default=True, metavar="N", help="Number of jobs."
)
@click.option("--keep", is_flag=True, help="Keep everything running afterwards, to look at the jobs in Flower.")
@options.as_json
def demo(jobs: int, keep: bool, as_json: bool) -> None:
    """Show the whole system on this machine, with faults switched on.

    Starts an embedded server, a model server with faults, workers and Flower, and kills workers while jobs make progress. Runs
    N real jobs to their ends and prints a summary. Needs no API key. Exits with 1 if a job does not complete, and says why, or
    if an effect happened twice. With --json, stdout holds one JSON document, and the progress goes to stderr.
    """
    from midwatch.workers.demo.runner import run_demo

    code = run_demo(jobs, as_json=as_json, keep=keep)
    if code:
        raise click.exceptions.Exit(code)
