"""A fleet for fault tests: workers with the planned agents on a given server, their journal, and a producer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import psutil

from midwatch import Client, JobHandle
from midwatch.schemas.message import ToolMessage
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.celery_app.write_message import NUMBERS, numbered_key
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.local.fleet import Fleet, wait_ready, worker_argv
from midwatch.workers.local.process import Member
from midwatch.workers.settings import Settings
from tests.faults.journal import VARIABLE, Journal
from tests.patience import PATIENCE_S, wait_for

LEASE_MS = 1_500
ROOT = Path(__file__).parents[2]


class Crew:
    """Use as a context manager. The workers end with the block. The server belongs to the caller."""

    def __init__(self, folder: Path, server: EmbeddedServer, prefix: str, **env: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.server, self.prefix = server, prefix
        self.journal = Journal(folder)
        self.fleet = Fleet(
            {
                "PYTHONPATH": str(ROOT),
                "MIDWATCH_PREFIX": prefix,
                "MIDWATCH_REDIS_URL": server.url,
                "MIDWATCH_AGENTS": "tests.faults.fault_agents",
                "MIDWATCH_EVENTS": "false",
                "MIDWATCH_LEASE_MS": str(LEASE_MS),
                "MIDWATCH_SWEEP_MS": "100",
                VARIABLE: str(folder),
                **env,
            },
            folder / "logs",
        )
        self.client: Client = make_client(Settings(redis_url=server.url, prefix=prefix, lease_ms=LEASE_MS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.stop(timeout_s=0)  # they are killed, because another test covers a clean end
        self.client.store.client.close()

    def start(self, name: str, pool: str, slots: int, queues: str = "model,tools", **env: str) -> Member:
        """Start a worker without waiting for it. See `ready`."""
        return self.fleet.start(name, worker_argv(queues, pool, slots, name), env)

    def worker(self, name: str, pool: str, slots: int, queues: str = "model,tools", **env: str) -> Member:
        """Start a worker and wait until it consumes."""
        member = self.start(name, pool, slots, queues, **env)
        ready(member)
        return member

    def enqueue(self, plan: str, agent: str = "fault", **options: Any) -> JobHandle:
        """Enqueue a job that follows a plan."""
        return self.client.enqueue(agent, plan, **options)

    def queued(self, queue: str) -> int:
        """Count the messages that no worker has taken."""
        name = self.client.operations.keys.queue(queue)
        return sum(int(self.client.store.client.llen(numbered_key(name, number))) for number in NUMBERS)

    def row(self, job: JobHandle, step: str) -> list[str]:
        """Return a step's row: state, fence, end of the lease, attempt, losses and so on. It is empty when the step is over."""
        raw = self.client.store.client.hget(self.client.operations.keys.steps(job.session_id, job.id), step)
        return raw.decode().split("|") if isinstance(raw, bytes) else []

    def results(self, job: JobHandle) -> list[ToolMessage]:
        """Return the tool results of the conversation, in order."""
        return [
            message for message in self.client.sessions.messages(job.session_id) if isinstance(message, ToolMessage)
        ]

    def began(self, word: str, times: int = 1) -> int:
        """Wait until a tool began with this word `times` times. Return the process in which it began last."""
        wait_for(lambda: len(self.journal.of(word)) >= times, f"{word!r} to begin")
        return self.journal.of(word)[-1].pid


def ready(*members: Member) -> None:
    """Wait until workers consume."""
    for member in members:
        wait_ready(member, "ready", PATIENCE_S)


def children(member: Member) -> set[int]:
    """Return the processes of a prefork pool."""
    return {child.pid for child in psutil.Process(member.pid).children(recursive=True)}
