"""The plan of a worker: pools, sizes, limits, and Celery's command line."""

from __future__ import annotations

import os

import click
import pytest

from midwatch import Agent, RunLimits, tool
from midwatch.workers.cli.commands import worker_options
from midwatch.workers.cli.commands.worker import split_queues, worker
from midwatch.workers.cli.commands.worker_options import CeleryOptions
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


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        (CeleryOptions(max_tasks_per_child=50), "--max-tasks-per-child=50"),
        (CeleryOptions(max_memory_per_child=400_000), "--max-memory-per-child=400000"),
        (CeleryOptions(autoscale="8,2"), "--autoscale=8,2"),
    ],
)
def test_children_of_a_prefork_pool_can_be_recycled(options, argument):
    """Celery gets the option. A pool of threads has no children, so there it is refused with what to do."""
    plan = make_plan(
        queues=["tools"], pool=None, concurrency=None, name=None, events=False, agents=[AGENT], cpus=4, celery=options
    )
    assert argument in plan.argv("mw")
    with pytest.raises(click.UsageError, match="add --pool prefork"):
        options.arguments("threads")


def test_a_name_may_have_celerys_form():
    """`-n w1@%h` is `--name w1`. A pid file is Celery's in every pool."""
    plan = make_plan(
        queues=["model"], pool=None, concurrency=None, name="w1@%h", events=False, agents=[AGENT], cpus=4,
        celery=CeleryOptions(pidfile="/run/w1.pid"),
    )  # fmt: skip
    assert "w1@%h" in plan.argv("mw")
    assert "--pidfile=/run/w1.pid" in plan.argv("mw")


def parse(*arguments: str) -> dict[str, object]:
    """Parse a command line. Returns what the command would get."""
    return dict(worker.make_context("worker", list(arguments)).params)


def test_celerys_short_options_are_taken(monkeypatch):
    """As on `celery worker`. An option that asks for what every worker does anyway is accepted."""
    monkeypatch.delenv("MIDWATCH_LOG_LEVEL", raising=False)
    monkeypatch.setenv("MIDWATCH_EVENTS", "false")
    given = parse(
        "-c", "3", "-Q", "tools", "-n", "w1@%h", "-P", "processes", "-l", "info", "-E", "-f", "w.log", "--without-gossip",
        "--without-mingle", "--without-heartbeat", "--autoscale=2,6",
    )  # fmt: skip
    assert (given["concurrency"], given["queues"], given["name"], given["pool"]) == (3, ("tools",), "w1@%h", "prefork")
    assert (given["logfile"], given["autoscale"]) == ("w.log", "6,2")
    assert (os.environ["MIDWATCH_LOG_LEVEL"], os.environ["MIDWATCH_EVENTS"]) == ("INFO", "true")
    assert parse("-c", "auto")["concurrency"] is None


@pytest.mark.parametrize("names", worker_options.REFUSED, ids="/".join)
def test_other_options_of_celery_are_refused_with_the_reason(names):
    """None is unknown, and none is ignored."""
    is_flag, reason = worker_options.REFUSED[names]
    for name in names:
        with pytest.raises(click.UsageError) as caught:
            parse(name, *(() if is_flag else ("7",)))
        assert reason in str(caught.value)


@pytest.mark.process
def test_no_option_of_celerys_worker_is_unknown():
    """A new release of Celery may bring another one."""
    from celery.bin.worker import worker as celery_worker

    known = {name for parameter in worker.params for name in parameter.opts}
    assert {name for parameter in celery_worker.params for name in parameter.opts} - known <= {
        "--executable",
        "-O",
        "--optimization",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-P", "gevent"), "lose running steps"),
        (("-c", "many"), "expected a number"),
        (("--autoscale", "9"), "expected MAX,MIN"),
        (("--autoscale", "3,0"), "at least 1 child"),
        (("-Q", "modle"), "did you mean 'model'?"),
        (("-l", "loud"), "is not one of"),
    ],
)
def test_a_wrong_value_says_what_was_expected(arguments, said):
    """Before anything starts."""
    with pytest.raises(click.UsageError) as caught:
        parse(*arguments)
    assert said in caught.value.format_message()
