"""How a worker is to run: pools, sizes, limits, and the command line that Celery gets."""

from __future__ import annotations

import click
import pytest

from midwatch import Agent, RunLimits, tool
from midwatch.workers.cli.commands.worker import split_queues
from midwatch.workers.cli.commands.worker_plan import WorkerPlan, plan


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


def planned(queues: str, pool: str | None = None, concurrency: int | None = None, events: bool = False) -> WorkerPlan:
    """The plan of a worker with one agent, on a machine with 4 CPUs."""
    return plan(
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
def test_the_pool_follows_from_what_is_served(queues, pool, concurrency):
    """Tools alone: a child for each CPU, which can be killed. Everything else waits on the network: threads."""
    chosen = planned(queues)
    assert (chosen.pool, chosen.concurrency) == (pool, concurrency)


def test_what_is_said_wins():
    """An explicit pool and size are taken as they are; a solo pool has one slot whatever is said."""
    assert planned("tools", "threads", 3).concurrency == 3
    assert planned("model", "prefork").concurrency == 4
    assert planned("tools", "solo", 8).concurrency == 1


def test_the_hard_limit_is_longer_than_the_longest_tool():
    """30 s of grace: a tool's own timeout comes first, and is reported instead of killed."""
    assert planned("tools").time_limit_s == 120
    assert planned("model,tools", "prefork").time_limit_s == 120 + 7 + 30
    assert planned("maintenance", "prefork").time_limit_s is None
    assert planned("tools", "threads").time_limit_s is None


def test_tools_in_a_pool_that_cant_kill_are_warned_about():
    """Threads and solo can't stop a tool that hangs; prefork can; without tools there is nothing to stop."""
    assert "can't stop one that hangs" in (planned("model,tools").warning or "")
    assert planned("tools", "solo").warning
    assert planned("tools").warning is None
    assert planned("model").warning is None


def test_celery_gets_the_whole_plan():
    """Queues with the fleet's prefix, no gossip and no mingle; the heartbeat only with events."""
    quiet = planned("tools").argv("mw")
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
    """Each once; a queue that does not exist is named, with the one that was meant."""
    context, parameter = click.Context(click.Command("worker")), click.Option(["--queues"])
    assert split_queues(context, parameter, " tools, model,tools") == ("tools", "model")
    with pytest.raises(click.BadParameter, match="did you mean 'tools'"):
        split_queues(context, parameter, "tool")
    with pytest.raises(click.BadParameter, match="got none"):
        split_queues(context, parameter, ",")
