"""`midwatch demo` and `midwatch dev`: run the whole system on this machine."""

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

    Starts an embedded server, a model server with faults, workers and Flower, and kills workers at random. Runs N real jobs
    to their ends and prints a summary. Needs no API key. Exits with 1 if a job is lost or an effect happened twice.
    """
    from midwatch.workers.demo.runner import run_demo

    code = run_demo(jobs, as_json=as_json, keep=keep)
    if code:
        raise click.exceptions.Exit(code)


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    metavar="PORT",
    default=5555,
    show_default=True,
    help="Port of Flower.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1_000),
    metavar="N",
    default=16,
    show_default=True,
    help="Model turns that run at once.",
)
def dev(port: int, concurrency: int) -> None:
    """Run the whole system on this machine with your own agents.

    Runs the agents of MIDWATCH_AGENTS until Ctrl-C. If no vendor's API key is set, the server of `midwatch simulate`
    replaces the vendor.
    """
    from midwatch.workers.demo.runner import run_dev

    code = run_dev(flower_port=port, concurrency=concurrency)
    if code:
        raise click.exceptions.Exit(code)
