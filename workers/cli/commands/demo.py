"""`midwatch demo` and `midwatch dev`: the whole system on this machine."""

from __future__ import annotations

import click

from midwatch.workers.cli import options


@click.command()
@click.option("--jobs", type=click.IntRange(1, 10_000), default=60, show_default=True, metavar="N", help="How many.")
@click.option("--keep", is_flag=True, help="Leave everything running afterwards, to look around in Flower.")
@options.as_json
def demo(jobs: int, keep: bool, as_json: bool) -> None:
    """Show the whole system on this machine, faults switched on.

    An embedded server, a model server that misbehaves, workers that are killed, Flower. Runs N real jobs to their ends
    and prints what happened. Needs no key. Exits with 1 when a job is lost or an effect happened twice.
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
    help="Where Flower listens.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1_000),
    metavar="N",
    default=16,
    show_default=True,
    help="Model turns at a time.",
)
def dev(port: int, concurrency: int) -> None:
    """Run the whole system on this machine with your own agents.

    The agents are those of MIDWATCH_AGENTS. Without a vendor's key, the model server of `midwatch simulate` plays the
    vendor. Runs until Ctrl-C.
    """
    from midwatch.workers.demo.runner import run_dev

    code = run_dev(flower_port=port, concurrency=concurrency)
    if code:
        raise click.exceptions.Exit(code)
