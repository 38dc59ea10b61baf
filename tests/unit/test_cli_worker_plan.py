"""The plan of a worker: pools, sizes, limits, and Celery's command line."""

from __future__ import annotations

import click
import pytest

from midwatch import Agent, RunLimits, tool
from midwatch.workers.cli.commands.worker import split_queues
from midwatch.workers.cli.commands.worker_plan import WorkerPlan, make_plan


@tool(idempotent=True, inline=True, timeout_s=7)
def quick(text: str) -> str:
    """Answer at once.

    Args:
        text: anything.
    """
    return text


@tool(idempotent=True, timeout_s=90)
def slow(text: str) -> str:
    """Take long.

    Args:
        text: anything.
    """
    return text


AGENT = Agent("a", "claude-sonnet-4-6", "You work.", [quick, slow], limits=RunLimits(call_timeout_s=120))


def plan_for(queues: str, pool: str | None = None, concurrency: int | None = None, events: bool = False) -> WorkerPlan:
    """Make the plan of a worker with one agent, on a machine with 4 CPUs."""
    return make_plan(
        queues=queues.split(","), pool=pool, concurrency=concurrency, name=None, events=events, agents=[AGENT], cpus=4
    )


@pytest.mark.parametrize(
    ("queues", "pool", "concurrency"),
    [
        ("tools", "prefork", 4),
        ("model", "threads", 100),
        ("model,tools,maintenance", "threads", 16),
        ("model,maintenance", "threads", 16),
    ],
)
def test_the_pool_depends_on_the_queues(queues, pool, concurrency):
    """Tools alone get one child per CPU, which can be killed. Other workers wait for the network and get threads."""
    chosen = plan_for(queues)
    assert (chosen.pool, chosen.concurrency) == (pool, concurrency)


def test_explicit_options_win():
    """An explicit pool and size are used. A solo pool always has one slot."""
    assert plan_for("tools", "threads", 3).concurrency == 3
    assert plan_for("model", "prefork").concurrency == 4
    assert plan_for("tools", "solo", 8).concurrency == 1


def test_the_hard_limit_is_longer_than_the_longest_tool():
    """It is 30 s longer, so a tool's own timeout comes first and is reported."""
    assert plan_for("tools").time_limit_s == 120
    assert plan_for("model,tools", "prefork").time_limit_s == 120 + 7 + 30
    assert plan_for("maintenance", "prefork").time_limit_s is None
    assert plan_for("tools", "threads").time_limit_s is None


def test_tools_in_a_pool_that_cant_kill_give_a_warning():
    """Threads and solo can't stop a tool that hangs, prefork can. Without tools there is no warning."""
    assert "can't stop one that hangs" in (plan_for("model,tools").warning or "")
    assert plan_for("tools", "solo").warning
    assert plan_for("tools").warning is None
    assert plan_for("model").warning is None


def test_celery_gets_the_whole_plan():
    """Queues have the fleet's prefix. Gossip and mingle are off. The heartbeat is on only with events."""
    quiet = plan_for("tools").argv("mw")
    assert quiet == [
        *("--quiet", "worker", "--queues", "mw.tools", "--pool", "prefork", "--concurrency", "4"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat", "--time-limit", "120"),
    ]
    named = WorkerPlan(("model", "tools"), "threads", 16, None, "w1", True).argv("mw")
    assert named[named.index("--queues") + 1] == "mw.model,mw.tools"
    assert "--task-events" in named
    assert "--without-heartbeat" not in named
    assert named[-2:] == ["--hostname", "w1@%h"]


def test_queues_are_read_in_order_and_checked():
    """Duplicates are removed. An unknown queue is an error with a suggestion."""
    context, parameter = click.Context(click.Command("worker")), click.Option(["--queues"])
    assert split_queues(context, parameter, " tools, model,tools") == ("tools", "model")
    with pytest.raises(click.BadParameter, match="did you mean 'tools'"):
        split_queues(context, parameter, "tool")
    with pytest.raises(click.BadParameter, match="got none"):
        split_queues(context, parameter, ",")
