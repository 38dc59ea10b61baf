"""Every seam in one file: what somebody implements to extend the system."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.commits import Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.protocol.store_replies import (
    CompactionBusy,
    LeaseState,
    NothingToCompact,
    SetAside,
    TurnCommitted,
)
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, NewJob
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import Defer, Park, Priority, StepRef
from midwatch.schemas.trace import TraceRecord


class Model(Protocol):
    """A provider: one file in `workers/providers/` and its registration."""

    name: str
    """The provider's name: `anthropic`, `openai`, ..."""

    def complete(self, request: ModelRequest) -> ModelReply:
        """Make one call, without retrying.

        Raises:
            ModelError: whatever went wrong, classified. Nothing else leaves this method.

        """
        ...

    def count(self, request: ModelRequest) -> int | None:
        """Input tokens of the request by the provider's own counter; None when it has none."""
        ...


Piggyback = Callable[[], object]
"""A message that a commit carries in its own round trip when both go to the same server. Calling it sends it by itself."""


class Gate(Protocol):
    """Admission: may this call start now? `RedisGate` is the coordinator; `OpenGate` admits everything.

    A gate of your own is a subclass with the first two.
    """

    def admit(self, call: Call) -> Defer | Failure | None:
        """None: admitted, settle it. A Defer (never an attempt): not now. A Failure: time does not cure it.

        Raises:
            StoreUnavailable: nobody can say. The call must not be made.

        """
        ...

    def settle(self, call: Call, report: Report) -> Settlement:
        """Tell what became of an admitted call, whatever became of it. A second report of the same call counts nothing."""
        ...

    def settling(self, call: Call, report: Report) -> Piggyback:
        """The settlement of a call that went well, for the commit of what it brought to take along."""
        return partial(self.settle, call, report)


class Dispatcher(Protocol):
    """Brings steps to workers. Found through the entry point group `midwatch.dispatcher`."""

    def publish(self, refs: Sequence[StepRef]) -> None:
        """Publish steps that are recorded as owed. Publishing one twice is harmless; losing one costs seconds.

        Raises:
            StoreUnavailable: the broker can't be reached. The steps stay owed.

        """
        ...

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """Keys of the model and tools queue, for scripts that push the next step's message in the commit itself.

        None when hand-off is off, or broker and state are not one server: then commit first, publish after.
        """
        ...

    def message(self, ref: StepRef) -> bytes:
        """The step's message in the broker's own wire format."""
        ...


class Store(Protocol):
    """The truth. `RedisStore` keeps it; tests without a server use the same store on a Redis in their own process.

    When the claim's fence is no longer current, a write changes nothing: it returns False, or LOST. Its `piggyback` is sent
    in any case.

    Raises (all methods): StoreUnavailable.
    """

    def enqueue(self, job: NewJob) -> bool:
        """Record the job and owe its first step. False: a job of that id exists already, nothing changed.

        Raises:
            SessionBusy: the session runs another job and the policy is `reject`.

        """
        ...

    def claim(self, ref: StepRef, nonce: str) -> Claim | ClaimRefusal:
        """Take the step, or say why there is nothing to do. The same nonce again gets the same claim (a lost reply)."""
        ...

    def renew(self, claim: Claim) -> LeaseState:
        """Prolong the lease by `lease_ms` from now."""
        ...

    def commit_turn(self, claim: Claim, commit: TurnCommit, piggyback: Piggyback | None = None) -> TurnCommitted:
        """Append the turn; owe its calls, or the next turn when it has none that run."""
        ...

    def commit_results(self, claim: Claim, commit: ResultCommit, piggyback: Piggyback | None = None) -> bool:
        """Append results; the last one of a turn owes the next model turn. A result whose step is over is refused."""
        ...

    def set_limits(self, claim: Claim, *, agent_version: str, max_steps: int, timeout_ms: int) -> None:
        """Give a job that was enqueued by name the limits of its agent, at its first step."""
        ...

    def defer(self, claim: Claim, defer: Defer, trace: TraceRecord) -> bool:
        """Put the step back until its time; the steward releases it."""
        ...

    def park(self, claim: Claim, park: Park, trace: TraceRecord) -> bool:
        """Put the step aside until a human decides."""
        ...

    def wait_for_child(self, claim: Claim, poll_ms: int) -> bool:
        """The tool step is a child job under way: give the worker back, look again when the child ends or after `poll_ms`."""
        ...

    def finish(self, claim: Claim, ending: Ending, trace: TraceRecord, piggyback: Piggyback | None = None) -> bool:
        """End the job; the session goes to the next one in line, unless a dead letter holds it."""
        ...

    def set_aside(
        self, ref: StepRef, nonce: str, failure: Failure, *, worker: str, max_tries: int, wait_ms: int
    ) -> SetAside:
        """Put back a step whose records can't be read here, or bury it when this happened `max_tries` times.

        It reads no record, so it works whatever is wrong with them. `nonce` is that of our claim, whether it succeeded or
        raised.
        """
        ...

    def begin_compaction(
        self, ref: StepRef, nonce: str, *, job_id: str = "", lock_ms: int = 15_000
    ) -> CompactionWork | CompactionBusy | NothingToCompact:
        """Take the session's lock for `lock_ms`, and read what there is to compact.

        With a `job_id`, there is nothing to compact unless that job is the session's active one.
        """
        ...

    def commit_compaction(self, work: CompactionWork, compaction: Compaction) -> bool:
        """Make it the truth; messages added meanwhile stay. False: the lock was lost, or the log is another one now."""
        ...

    def archived(self, session_id: str, group: int) -> bytes | None:
        """The originals of a group that was compacted, packed; None when there are none."""
        ...

    def job(self, job_id: str) -> Job:
        """The job as it stands. Raises NotFound."""
        ...

    def trace(self, ref: StepRef) -> list[TraceRecord]:
        """The job's records so far: the evidence of a dead letter."""
        ...

    def drift_counters(self, hours: int) -> Mapping[tuple[int, str], int]:
        """Counters of `drift` by hour (since the epoch) and name: this hour's, and those of the hours before it."""
        ...

    def put_result(self, session_id: str, handle: str, body: bytes) -> None:
        """Keep a large tool result beside the session."""
        ...

    def get_result(self, session_id: str, handle: str) -> bytes | None:
        """A kept result, or None when there is none (any more)."""
        ...


class Clock(Protocol):
    """Where time comes from outside Redis: durations only, never decisions that scripts make."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment of this process."""
        ...

    def sleep_ms(self, ms: int) -> None:
        """Wait."""
        ...
