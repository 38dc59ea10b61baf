"""`midwatch dev`: run the whole system on this machine with the user's own agents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from midwatch.workers.cli.environment import read_settings
from midwatch.workers.dev_address import remove_left_behind

if TYPE_CHECKING:
    from midwatch.workers.demo.dev import DevPlan
    from midwatch.workers.settings import Settings

PORT = click.IntRange(1, 65_535)
HELLO = "midwatch.workers.demo.hello"


@click.command()
@click.option("--port", type=PORT, metavar="PORT", default=5555, show_default=True, help="Port of Flower.")
@click.option("--redis-port", type=PORT, metavar="PORT", default=6389, show_default=True, help="Port of the server.")
@click.option(
    "--model-port", type=PORT, metavar="PORT", default=6390, show_default=True, help="Port of the simulated model."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1_000),
    metavar="N",
    default=16,
    show_default=True,
    help="Model turns that run at once.",
)
@click.option("--rules", metavar="MODULE:ATTR", help="Simulate the models, with a rule set in your code.")
@click.option(
    "--script",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Simulate the models, with replies in order from a JSON or TOML file.",
)
def dev(port: int, redis_port: int, model_port: int, concurrency: int, rules: str | None, script: Path | None) -> None:
    """Run the whole system on this machine with your own agents.

    Runs the agents of MIDWATCH_AGENTS until Ctrl-C. Other programs in the same folder find its server automatically,
    unless MIDWATCH_REDIS_URL is set. A provider whose key is not set is replaced by the server of `midwatch simulate`.
    It calls each tool once, and its answers say that they are simulated. With --rules or --script, all providers are
    replaced.
    """
    if rules and script:
        raise click.UsageError("expected --rules or --script, got both")
    given = ("--rules", rules) if rules else ("--script", str(script.resolve())) if script else ()
    from dataclasses import replace

    from midwatch.workers.demo.dev import run_dev

    remove_left_behind()
    plan = replace(
        make_plan(read_settings(), tuple(given)),
        flower_port=port,
        redis_port=redis_port,
        model_port=model_port,
        concurrency=concurrency,
    )
    code = run_dev(plan)
    if code:
        raise click.exceptions.Exit(code)


def make_plan(current: Settings, rules: tuple[str, ...] = ()) -> DevPlan:
    """Load the agents and decide which providers are simulated: all with rules, else those without credentials.

    Raises:
        ConfigError: the agents can't be loaded.

    """
    from midwatch.workers.cli.commands.load_agents import find_missing, load_agents
    from midwatch.workers.demo.dev import DevPlan
    from midwatch.workers.process.prepare import find_providers
    from midwatch.workers.providers.credentials import NEEDED, Credentials

    specs = current.agents or (HELLO,)
    agents = load_agents(current.model_copy(update={"agents": specs}))
    credentials = Credentials.from_settings(current)
    wanted = [name for name in find_providers(agents, ("model", "maintenance")) if name in NEEDED]
    return DevPlan(
        agents=",".join(specs),
        prefix=current.prefix,
        missing=find_missing(current, agents),
        providers=tuple(name for name in wanted if rules or credentials.find_missing(name)),
        rules=rules,
    )
