"""Client: what a producer, an operator or a web page can do with a fleet."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from midwatch.orchestration.client.handle import JobHandle
from midwatch.orchestration.client.jobs import Jobs, only_match
from midwatch.orchestration.client.new_job import new_job
from midwatch.orchestration.client.presence import Presence
from midwatch.orchestration.client.repetition import find_first, is_known_child
from midwatch.orchestration.errors import ConfigError, KeyReused, NotFound, SessionBusy
from midwatch.orchestration.protocol.reading import Listing
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.pipelines import run_pipeline
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.store.sessions import SessionNumbers
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Message

if TYPE_CHECKING:
    from midwatch.orchestration.admission.board import Board
    from midwatch.orchestration.agents.agent import Agent
    from midwatch.orchestration.client.findings import Findings
    from midwatch.orchestration.client.letters.dead_letters import DeadLetters


class Approvals:
    """`client.approvals`: parked calls, approved and rejected."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def list(self, *, limit: int = 1_000) -> Listing[Job]:
        """The jobs that wait for a human, the newest first. `waiting` holds what each waits for."""
        return self._operations.jobs(limit=limit, status=JobStatus.PARKED)

    def approve(self, job_id: str, step: str | None = None) -> bool:
        """Let a parked call run. Returns False if it was already decided."""
        return self._operations.decide(job_id, step, approve=True)

    def reject(self, job_id: str, reason: str = "", step: str | None = None) -> bool:
        """Refuse a parked call. The reason is returned to the model. Returns False if it was already decided."""
        return self._operations.decide(job_id, step, approve=False, reason=reason)


class Sessions:
    """`client.sessions`: conversations, shown, compacted and deleted."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def find_id(self, prefix: str) -> str:
        """The id of the only session of the newest jobs that begins with the text. Otherwise as `client.jobs.find_id`."""
        pipe = self._operations.client.pipeline(transaction=False)
        pipe.exists(self._operations.keys.session(prefix))
        if run_pipeline(pipe) == [1]:
            return prefix
        return only_match(prefix, [job.session_id for job in self._operations.jobs(limit=1_000)], "sessions")

    def messages(self, session_id: str) -> Listing[Message]:
        """The live messages: those that the next call sends, without the memory. Raises NotFound."""
        return self._require(session_id, self._operations.messages(session_id))

    def memory(self, session_id: str) -> Memory | None:
        """The memory that replaces the archived groups. None if nothing was compacted yet. Raises NotFound."""
        memory = self._operations.memory(session_id)
        if memory is None:
            self.messages(session_id)
        return memory

    def originals(self, session_id: str) -> Listing[Message]:
        """The whole original conversation: archived and live groups, with elided results restored. Raises NotFound."""
        return self._require(session_id, self._operations.originals(session_id))

    def show(self, session_id: str) -> SessionNumbers:
        """The session in numbers. Raises NotFound."""
        return self._operations.numbers(session_id)

    def compact(self, session_id: str) -> bool:
        """Have a worker compact the session now. Returns False if a compaction is already under way.

        Raises:
            NotFound: the session does not exist.
            StoreUnavailable: the broker can't be reached. Nothing was requested.

        """
        return self._operations.compact(session_id)

    def forget(self, session_id: str) -> bool:
        """Delete the session's conversation, memory, archive and results, and the outputs of its jobs.

        Returns False if there was nothing to delete.

        Raises:
            Refused: the session runs a job, or a dead letter needs it.

        """
        return self._operations.forget(session_id)

    @staticmethod
    def _require(session_id: str, messages: Listing[Message]) -> Listing[Message]:
        if not messages and not messages.unreadable:
            raise NotFound(f"no session {session_id!r}: it has no messages, or its retention is over")
        return messages


@dataclass
class Client:
    """One connection to one fleet. Thread-safe."""

    store: RedisStore
    operations: Operations

    def __post_init__(self) -> None:
        self.jobs = Jobs(self.operations)
        self.approvals = Approvals(self.operations)
        self.sessions = Sessions(self.operations)
        self.workers = Presence(self.store.client, self.operations.keys)

    # The rest is imported at its first use, because most programs only enqueue or list jobs.

    @cached_property
    def dead_letters(self) -> DeadLetters:
        """The dead letters: shown, replayed, discarded."""
        from midwatch.orchestration.client.letters.dead_letters import DeadLetters

        return DeadLetters(self.operations)

    @cached_property
    def gate(self) -> Board:
        """The limits and the state of the downstreams."""
        from midwatch.orchestration.admission.board import Board

        return Board(self.store.client, self.operations.keys)

    @cached_property
    def findings(self) -> Findings:
        """What a person should look at."""
        from midwatch.orchestration.client.findings import Findings

        return Findings(self.store.client, self.operations.keys)

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
        """Record a job and its first step. Once this returns, the job reaches an end even if processes crash.

        With a `parent`, the job is that job's child: it has its tenant, its limits bind it, and it is cancelled with it.

        Raises:
            ConfigError: an id, the priority or the input is invalid.
            NotFound: there is no such parent.
            Refused: the parent is over, has another tenant, or may have no more children.
            SessionBusy: the session runs another job, and the agent has `on_busy="reject"`.
            KeyReused: the idempotency key was used before, with another input.
            StoreUnavailable: Redis can't be reached. The message says whether anything was recorded.
            UnreadableRecord: the session is damaged.

        """
        adoption = None
        if parent:
            from midwatch.orchestration.client.adoption import Adoption

            adoption = Adoption(self.operations, parent.id, tenant)
        job = new_job(
            agent,
            input,
            session_id=session_id,
            idempotency_key=idempotency_key,
            priority=priority,
            tenant=adoption.tenant if adoption else tenant,
            parent=adoption.parent() if adoption else None,
        )
        if adoption:
            adoption.adopt(job.job_id)
        try:
            accepted = self.store.enqueue(job, on_interrupt=self.operations.cancel)
            first = find_first(self.operations, job) if not accepted else None
        except (SessionBusy, KeyReused) as error:
            if adoption and not is_known_child(self.operations, error, job):
                adoption.forget(job.job_id)
            raise
        # The first enqueue of a key decides the session. That may be another call's, so the stored job is read.
        if first is None and idempotency_key is not None:
            first = self.operations.job(job.job_id)
        return JobHandle(self.operations, job.job_id, first.session_id if first else job.session_id, accepted=accepted)


class Connect(Protocol):
    """The type of an entry point in the group `midwatch.dispatcher`."""

    def __call__(self, redis_url: str | None = None, broker_url: str | None = None) -> Client:
        """Connect to the fleet at these addresses. The default is the environment's."""
        ...


def connect(redis_url: str | None = None, broker_url: str | None = None) -> Client:
    """Connect to a fleet. The producer need not have the agents' code.

    Raises:
        ConfigError: no dispatcher is installed.

    """
    return _load_dispatcher()(redis_url, broker_url)


@cache
def _load_dispatcher() -> Connect:
    for entry in entry_points(group="midwatch.dispatcher"):
        dispatcher: Connect = entry.load()
        return dispatcher
    raise ConfigError(
        "no dispatcher is installed (entry point group 'midwatch.dispatcher'); expected `pip install midwatch`"
    )


_lock = threading.Lock()
_clients: dict[int, Client] = {}


def default_client() -> Client:
    """The client of the environment's fleet. Each process has its own, since connections don't survive a fork."""
    with _lock:
        if os.getpid() not in _clients:
            _clients[os.getpid()] = connect()
        return _clients[os.getpid()]
