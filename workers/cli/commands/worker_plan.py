"""The plan of one worker process: queues, pool, size and limits, and the Celery command line for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from midwatch.orchestration.agents.agent import Agent
from midwatch.workers.cli.commands.worker_options import CeleryOptions, make_node

QUEUES = ("model", "tools", "maintenance")
POOLS = ("threads", "prefork", "solo")

THREADS = 16
MODEL_THREADS = 100
"""Threads of a worker that only calls models. Such threads mostly wait. 100 threads reached 91 % of the ideal rate, 200
threads reached 78 % (measured)."""

TIME_LIMIT_GRACE_S = 30.0
"""Time that the pool's limit adds to a tool's timeout. The timeout comes first and is reported to the model; the pool kills
only a tool that ignores it."""


@dataclass(frozen=True)
class WorkerPlan:
    """The decisions that are made before the worker starts."""

    queues: tuple[str, ...]
    pool: str
    concurrency: int
    time_limit_s: float | None
    """A pool child that runs longer is killed. None: no limit."""
    name: str | None
    events: bool
    extra: tuple[str, ...] = ()
    """More arguments for Celery."""

    @property
    def warning(self) -> str | None:
        """A warning for the operator, or None."""
        if "tools" in self.queues and self.pool != "prefork":
            return (
                f"tools run in the {self.pool} pool, which can't stop one that hangs: it keeps its slot until it "
                "returns. In production run a separate worker for tools: midwatch worker --queues tools"
            )
        return None

    def argv(self, prefix: str) -> list[str]:
        """Return the arguments for Celery's worker."""
        arguments = ["--quiet", "worker", "--queues", ",".join(f"{prefix}.{queue}" for queue in self.queues)]
        arguments += ["--pool", self.pool, "--concurrency", str(self.concurrency)]
        # Gossip and mingle exchange messages between workers, which are not needed here. With the heartbeat they use 7 of
        # an idle worker's 11 connections.
        arguments += ["--without-gossip", "--without-mingle"]
        arguments += ["--task-events"] if self.events else ["--without-heartbeat"]
        if self.time_limit_s is not None:
            arguments += ["--time-limit", f"{self.time_limit_s:g}"]
        if self.name:
            arguments += ["--hostname", make_node(self.name)]
        return [*arguments, *self.extra]


def make_plan(
    *,
    queues: Sequence[str],
    pool: str | None,
    concurrency: int | None,
    name: str | None,
    events: bool,
    agents: Iterable[Agent],
    cpus: int,
    celery: CeleryOptions = CeleryOptions(),  # noqa: B008 - it is frozen
) -> WorkerPlan:
    """Make the plan, with defaults for missing options.

    A worker for tools alone gets a prefork pool: a hard limit can kill a tool that hangs, and CPU work is isolated. Other
    workers wait for the network and get threads.
    """
    chosen = pool or ("prefork" if tuple(queues) == ("tools",) else "threads")
    return WorkerPlan(
        queues=tuple(queues),
        pool=chosen,
        concurrency=_choose_concurrency(chosen, tuple(queues), concurrency, cpus),
        time_limit_s=_time_limit_s(queues, agents) if chosen == "prefork" else None,
        name=name,
        events=events,
        extra=celery.arguments(chosen),
    )


def _choose_concurrency(pool: str, queues: tuple[str, ...], given: int | None, cpus: int) -> int:
    if pool == "solo":
        return 1
    if given is not None:
        return given
    if pool == "prefork":
        return cpus
    return MODEL_THREADS if queues == ("model",) else THREADS


def _time_limit_s(queues: Sequence[str], agents: Iterable[Agent]) -> float | None:
    """Return a limit above the longest possible step. Inline tools run one after the other in their model turn."""
    longest_s = 0.0
    for agent in agents:
        if "tools" in queues:
            longest_s = max([longest_s, *(tool.timeout_s for tool in agent.tools)])
        if "model" in queues:
            inline_s = sum(tool.timeout_s for tool in agent.tools if tool.inline)
            longest_s = max(longest_s, agent.limits.call_timeout_s + inline_s)
    return longest_s + TIME_LIMIT_GRACE_S if longest_s else None
