"""How one worker process is to run: queues, pool, size and limits, and the Celery command line that says so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from midwatch.orchestration.agents.agent import Agent

QUEUES = ("model", "tools", "maintenance")
POOLS = ("threads", "prefork", "solo")

THREADS = 16
MODEL_THREADS = 100
"""A slot that only calls models only waits: of the ideal rate, 100 threads gave 91 %, 200 gave 78 % (measured)."""

TIME_LIMIT_GRACE_S = 30.0
"""A tool's own timeout comes first and is reported; the pool kills only what does not heed it."""


@dataclass(frozen=True)
class WorkerPlan:
    """Decided before anything starts."""

    queues: tuple[str, ...]
    pool: str
    concurrency: int
    time_limit_s: float | None
    """When a pool child that has not come back is killed. None: nothing is."""
    name: str | None
    events: bool

    @property
    def warning(self) -> str | None:
        """What the operator should know of this combination."""
        if "tools" in self.queues and self.pool != "prefork":
            return (
                f"tools run in the {self.pool} pool, which can't stop one that hangs: it keeps its slot until it "
                "returns. In production give them a worker of their own: midwatch worker --queues tools"
            )
        return None

    def argv(self, prefix: str) -> list[str]:
        """The arguments of a Celery worker."""
        arguments = ["--quiet", "worker", "--queues", ",".join(f"{prefix}.{queue}" for queue in self.queues)]
        arguments += ["--pool", self.pool, "--concurrency", str(self.concurrency)]
        # Gossip and mingle are talk between workers that nothing here listens to; with the heartbeat they take 7 of an
        # idle worker's 11 connections.
        arguments += ["--without-gossip", "--without-mingle"]
        arguments += ["--task-events"] if self.events else ["--without-heartbeat"]
        if self.time_limit_s is not None:
            arguments += ["--time-limit", f"{self.time_limit_s:g}"]
        if self.name:
            arguments += ["--hostname", f"{self.name}@%h"]
        return arguments


def plan(
    *,
    queues: Sequence[str],
    pool: str | None,
    concurrency: int | None,
    name: str | None,
    events: bool,
    agents: Iterable[Agent],
    cpus: int,
) -> WorkerPlan:
    """Fill in what was not said.

    Tools alone get prefork: a hard limit can kill what hangs, and their CPU work is isolated. Everything else waits on
    the network, and gets threads.
    """
    chosen = pool or ("prefork" if tuple(queues) == ("tools",) else "threads")
    return WorkerPlan(
        queues=tuple(queues),
        pool=chosen,
        concurrency=_concurrency(chosen, tuple(queues), concurrency, cpus),
        time_limit_s=_time_limit_s(queues, agents) if chosen == "prefork" else None,
        name=name,
        events=events,
    )


def _concurrency(pool: str, queues: tuple[str, ...], given: int | None, cpus: int) -> int:
    if pool == "solo":
        return 1
    if given is not None:
        return given
    if pool == "prefork":
        return cpus
    return MODEL_THREADS if queues == ("model",) else THREADS


def _time_limit_s(queues: Sequence[str], agents: Iterable[Agent]) -> float | None:
    """Longer than the longest thing that may run here. Inline tools run one after the other in their model turn."""
    longest_s = 0.0
    for agent in agents:
        if "tools" in queues:
            longest_s = max([longest_s, *(tool.timeout_s for tool in agent.tools)])
        if "model" in queues:
            inline_s = sum(tool.timeout_s for tool in agent.tools if tool.inline)
            longest_s = max(longest_s, agent.limits.call_timeout_s + inline_s)
    return longest_s + TIME_LIMIT_GRACE_S if longest_s else None
