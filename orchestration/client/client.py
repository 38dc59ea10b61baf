"""Client: what a producer, an operator or a page does with a fleet."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Protocol

from midwatch.orchestration.admission.board import Board
from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.client.findings import Findings
from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.errors import ConfigError, NotFound
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.store.sessions import SessionNumbers
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.job import Job, JobStatus, Parent
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message
from midwatch.schemas.trace import TraceRecord


class Jobs:
    """`client.jobs`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, *, limit: int = 50, status: str | None = None, agent: str | None = None) -> Sequence[Job]:
        """The newest first."""
        return self._client.operations.jobs(limit=limit, status=JobStatus(status) if status else None, agent=agent)

    def get(self, job_id: str) -> JobHandle:
        """A handle of a job that exists. Raises NotFound."""
        job = self._client.operations.job(job_id)
        return JobHandle(self._client, job.job_id, job.session_id)

    def show(self, job_id: str) -> Job:
        """All that is known of it. Raises NotFound."""
        return self._client.operations.job(job_id)

    def trace(self, job_id: str) -> Sequence[TraceRecord]:
        """Its steps as they were committed. Raises NotFound."""
        return self._client.operations.trace(job_id)

    def cancel(self, job_id: str) -> bool:
        """Cancel it. False: it had ended already."""
        return self._client.operations.cancel(job_id)


class DeadLetters:
    """`client.dead_letters`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, *, limit: int = 1_000) -> Sequence[DeadLetterRecord]:
        """The newest first."""
        return self._client.operations.dead_letters(limit=limit)

    def show(self, job_id: str) -> DeadLetterRecord:
        """One of them. Raises NotFound."""
        return self._client.operations.dead_letter(job_id)

    def replay(self, job_id: str) -> bool:
        """Resume the job at the step it stopped at. False: it is not dead (any more)."""
        return self._client.operations.replay(job_id)

    def discard(self, job_id: str) -> bool:
        """Give it up; its session goes on. False: it was not dead."""
        return self._client.operations.discard(job_id)


class Approvals:
    """`client.approvals`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, *, limit: int = 1_000) -> Sequence[Job]:
        """Jobs that wait for a human, the newest first; `waiting` says for what."""
        return self._client.operations.jobs(limit=limit, status=JobStatus.PARKED)

    def approve(self, job_id: str, step: str | None = None) -> bool:
        """Let a parked call run. False: somebody decided before."""
        return self._client.operations.decide(job_id, step, approve=True)

    def reject(self, job_id: str, reason: str = "", step: str | None = None) -> bool:
        """Refuse a parked call; the model is told why. False: somebody decided before."""
        return self._client.operations.decide(job_id, step, approve=False, reason=reason)


class Sessions:
    """`client.sessions`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def messages(self, session_id: str) -> tuple[Message, ...]:
        """The live conversation: what the next call is sent, beside the memory. Raises NotFound."""
        return self._some(session_id, self._client.operations.messages(session_id))

    def memory(self, session_id: str) -> Memory | None:
        """What stands for the groups that a compaction took out; None while nothing was compacted. Raises NotFound."""
        memory = self._client.operations.memory(session_id)
        if memory is None:
            self.messages(session_id)
        return memory

    def originals(self, session_id: str) -> tuple[Message, ...]:
        """The whole conversation as it was said: archived groups and live ones, elided results put back. Raises NotFound."""
        return self._some(session_id, self._client.operations.originals(session_id))

    def show(self, session_id: str) -> SessionNumbers:
        """The session in numbers. Raises NotFound."""
        return self._client.operations.numbers(session_id)

    def compact(self, session_id: str) -> bool:
        """Ask a worker to compact it now. False: one is at it already.

        Raises:
            NotFound: no such session.
            StoreUnavailable: the broker can't be reached; nothing was asked.

        """
        return self._client.operations.compact(session_id)

    def forget(self, session_id: str) -> bool:
        """Delete its conversation, memory, archive and results, and the outputs of its jobs. False: there was nothing.

        Raises:
            Refused: a job is under way in it, or a dead letter holds it.

        """
        return self._client.operations.forget(session_id)

    @staticmethod
    def _some(session_id: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if not messages:
            raise NotFound(f"no session {session_id!r}: nothing was said in it, or its retention is over")
        return messages


@dataclass
class Client:
    """One connection to one fleet. Thread-safe."""

    store: RedisStore
    operations: Operations

    def __post_init__(self) -> None:
        self.jobs = Jobs(self)
        self.dead_letters = DeadLetters(self)
        self.approvals = Approvals(self)
        self.sessions = Sessions(self)
        self.gate = Board(self.store.client, self.operations.keys)
        self.findings = Findings(self.store.client, self.operations.keys)

    def enqueue(
        self,
        agent: Agent | str,
        input: str,
        *,
        session_id: str | None = None,
        idempotency_key: str | None = None,
        priority: str = "normal",
        tenant: str | None = None,
        parent: JobHandle | None = None,
    ) -> JobHandle:
        """Record a job and owe its first step: when this returns, the job reaches an end whatever dies.

        Raises:
            ConfigError: a bad id, priority or input.
            SessionBusy: the session runs another job, and the agent says `on_busy="reject"`.
            StoreUnavailable: Redis can't be reached; nothing was recorded.

        """
        job = new_job(
            agent,
            input,
            session_id=session_id,
            idempotency_key=idempotency_key,
            priority=priority,
            tenant=tenant,
            parent=self._parent(parent),
        )
        accepted = self.store.enqueue(job, on_interrupt=self.operations.cancel)
        # The first enqueue of a key decides the session, also one that was refused, or that loses the race behind it.
        sure = accepted and idempotency_key is None
        home = job.session_id if sure else self.operations.job(job.job_id).session_id
        return JobHandle(self, job.job_id, home, accepted=accepted)

    def _parent(self, handle: JobHandle | None) -> Parent | None:
        if handle is None:
            return None
        job = handle.job()
        ref = job.parent or self.operations.first_step(job)
        return Parent(ref=ref.model_copy(update={"step": "0"}), root_id=job.root_id, depth=job.depth + 1)


class Connect(Protocol):
    """What an entry point of the group `midwatch.dispatcher` is."""

    def __call__(self, redis_url: str | None = None, broker_url: str | None = None) -> Client:
        """A client of the fleet at these addresses, by default those of the environment."""
        ...


def connect(redis_url: str | None = None, broker_url: str | None = None) -> Client:
    """A client of a fleet, for producers that hold or don't hold the agents' code.

    Raises:
        ConfigError: no dispatcher is installed.

    """
    return _dispatcher()(redis_url, broker_url)


@cache
def _dispatcher() -> Connect:
    found = entry_points(group="midwatch.dispatcher")
    for entry in found:
        found_it: Connect = entry.load()
        return found_it
    raise ConfigError(
        "no dispatcher is installed (entry point group 'midwatch.dispatcher'); expected `pip install midwatch`"
    )


_lock = threading.Lock()
_clients: dict[int, Client] = {}


def default_client() -> Client:
    """The client of the environment's fleet, one per process (connections don't survive a fork)."""
    with _lock:
        if os.getpid() not in _clients:
            _clients[os.getpid()] = connect()
        return _clients[os.getpid()]
