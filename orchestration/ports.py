"""The ports: the protocols that you implement to extend Midwatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from midwatch.orchestration.errors import RecordLost
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.commits import Bill, Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.compactions import Compaction, CompactionWork
from midwatch.orchestration.protocol.lineage import CallReservation, LimitReached, OverAncestor
from midwatch.orchestration.protocol.store_replies import (
    ChildWait,
    CompactionBusy,
    LeaseState,
    NothingToCompact,
    SetAside,
    TurnCommitted,
)
from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job, NewJob
from midwatch.schemas.lineage import Bounds
from midwatch.schemas.loss import Loss
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.step import Defer, Park, Priority, StepRef
from midwatch.schemas.trace import TraceRecord


class Model(Protocol):
    """A provider of models. A new provider is one file in `workers/providers/` and its registration."""

    name: str
    """The provider's name: `anthropic`, `openai`, ..."""

    def complete(self, request: ModelRequest) -> ModelReply:
        """Make one call, without retrying.

        Raises:
            ModelError: the call failed. The error classifies the failure. No other exception may be raised.

        """
        ...

    def count(self, request: ModelRequest) -> int | None:
        """Count the input tokens of the request with the provider's own counter. None if it has none."""
        ...


Piggyback = Callable[[], object]
"""A message that a commit can carry in its own round trip, if both go to the same server. Calling it sends it alone."""


class Gate(Protocol):
    """Decides whether a call may start now. `RedisGate` is the coordinator; `OpenGate` admits every call.

    To write a gate, make a subclass that implements `admit` and `settle`.
    """

    def admit(self, call: Call) -> Defer | Failure | None:
        """Decide whether the call may start.

        Returns None if it may; `settle` must follow. A Defer means that it may not start now; it never counts as an
        attempt. A Failure means that it may never start. Raises StoreUnavailable: the call must not be made.
        """
        ...

    def settle(self, call: Call, report: Report) -> Settlement:
        """Report the result of an admitted call. Every admitted call needs a report; a second one changes nothing."""
        ...

    def make_piggyback(self, call: Call, report: Report) -> Piggyback:
        """Make the settlement of a successful call into a message that the commit of its result can carry."""
        return partial(self.settle, call, report)

    def leave_line(self, ref: StepRef, downstream: str) -> None:
        """Forget the waiting call of a step whose job has ended. Raises StoreUnavailable. A gate without lines does nothing."""

    def reserve_calls(self, reservation: CallReservation) -> Sequence[LimitReached | None]:
        """Reserve the tool calls of a turn in its lineage. Returns for each call the limit that it would exceed, or None.

        A gate that does not implement this lets all calls run. Then a job's limit does not bind its children.

        Raises:
            LeaseLost: a later claim of the job has reserved calls.
            StoreUnavailable: the gate can't decide. No call may run.

        """
        return [None] * len(reservation.calls)


class Dispatcher(Protocol):
    """Publishes steps to workers. It is found through the entry point group `midwatch.dispatcher`."""

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        """Publish steps that are recorded as owed. A repeated message is harmless. A lost one delays its step by seconds.

        A job's first step goes to the queue of first steps, which workers serve behind all other steps of its priority.
        `begun` means that these steps were claimed before: then their jobs run, and none of them counts as a first step.

        Raises:
            StoreUnavailable: the broker can't be reached. The steps stay owed.

        """
        ...

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """Keys of the model queue and the tools queue. Scripts push the message of the next step there in the commit itself.

        None if hand-off is off, or if broker and state are on different servers. Then steps are published after the commit.
        """
        ...

    def first_queue(self, priority: Priority) -> str | None:
        """Key of the queue of first steps: there `enqueue` pushes the message of a new job. None if there is no hand-off."""
        ...

    def message(self, ref: StepRef, *, begun: bool = False) -> bytes:
        """The step's message in the broker's format. `begun` has the meaning that it has for `publish`."""
        ...


class Store(Protocol):
    """Keeps jobs, steps and sessions. `RedisStore` implements it; tests without a server use it on a Redis in their process.

    If the claim's fence is no longer current, a write changes nothing and returns False, or LOST. Its `piggyback` is sent in
    any case.

    Raises (all methods): StoreUnavailable.
    """

    def enqueue(self, job: NewJob) -> bool:
        """Record the job and mark its first step as owed. Returns False if a job with this id exists; then nothing changes.

        Raises:
            SessionBusy: the session runs another job and the policy is `reject`.

        """
        ...

    def claim(self, ref: StepRef, nonce: str) -> Claim | ClaimRefusal:
        """Claim the step. A repetition with the same nonce returns the same claim. Raises RecordLost: a record is gone."""
        ...

    def renew(self, claim: Claim) -> LeaseState:
        """Prolong the lease by `lease_ms` from now."""
        ...

    def commit_turn(self, claim: Claim, commit: TurnCommit, piggyback: Piggyback | None = None) -> TurnCommitted:
        """Append the turn to the log. Mark its calls as owed, or the next model turn if no call runs."""
        ...

    def commit_results(self, claim: Claim, commit: ResultCommit, piggyback: Piggyback | None = None) -> bool:
        """Append results to the log. The last result of a turn makes the next turn owed. Results of ended steps are refused."""
        ...

    def set_limits(
        self, claim: Claim, *, agent_version: str, max_steps: int, timeout_ms: int, bounds: Bounds,
        max_wait_ms: int | None = None, max_total_ms: int | None = None,
    ) -> None:  # fmt: skip
        """Give a job that was enqueued by name the limits of its agent, at its first step."""
        ...

    def defer(self, claim: Claim, defer: Defer, trace: TraceRecord) -> bool:
        """Put the step back until it is due. Then a steward publishes it."""
        ...

    def record_loss(self, claim: Claim, loss: Loss, after_ms: int) -> bool:
        """Record how the step's separate process ended, and put the step back until it is due."""
        ...

    def park(self, claim: Claim, park: Park, trace: TraceRecord) -> bool:
        """Put the step aside until a human decides, or until its question expires."""
        ...

    def wait_for_child(self, claim: Claim, poll_ms: int, *, child_id: str, worked_ms: int) -> ChildWait:
        """Release the tool step while its child job runs. It is published again when the child ends, or after `poll_ms`.

        `worked_ms` is how long the child has worked so far. It counts as work of this job.
        """
        ...

    def bill(self, ref: StepRef, bill: Bill) -> bool:
        """Add what was paid to the job of this step, whoever has the step now. Returns False if it was added before."""
        ...

    def finish(self, claim: Claim, ending: Ending, trace: TraceRecord, piggyback: Piggyback | None = None) -> bool:
        """End the job. The next job of the session starts, unless this one became a dead letter."""
        ...

    def set_aside(
        self, ref: StepRef, nonce: str, failure: Failure, *, worker: str, max_tries: int, wait_ms: int
    ) -> SetAside:
        """Put back a step whose records this worker can't read. After `max_tries` times it is a dead letter. Reads no record."""
        ...

    def bury(self, ref: StepRef, lost: RecordLost, *, worker: str) -> SetAside:
        """End a job that has lost a record, as a dead letter that can't be replayed. What is left is kept."""

    def begin_compaction(
        self, ref: StepRef, nonce: str, *, job_id: str = "", lock_ms: int = 15_000
    ) -> CompactionWork | CompactionBusy | NothingToCompact:
        """Lock the session for `lock_ms`, and read what to compact: nothing, if `job_id` is not its active job."""
        ...

    def commit_compaction(self, work: CompactionWork, compaction: Compaction) -> bool:
        """Apply the compaction. Messages added since its begin stay. Returns False if the lock was lost or the log replaced."""
        ...

    def get_archived(self, session_id: str, group: int) -> bytes | None:
        """The packed originals of an archived group, or None if there are none."""
        ...

    def job(self, job_id: str) -> Job:
        """The current record of the job. Raises NotFound."""
        ...

    def over_ancestor(self, job: Job) -> OverAncestor | None:
        """The nearest ancestor of the job that is over: completed, cancelled, timed out, or a discarded dead letter."""
        ...

    def trace(self, ref: StepRef) -> list[TraceRecord]:
        """The job's records so far: the evidence of a dead letter."""
        ...

    def drift_counters(self, hours: int) -> Mapping[tuple[int, str], int]:
        """The drift counters of the last `hours` hours with the current one, by hour (since the epoch) and name."""
        ...

    def put_result(self, session_id: str, handle: str, body: bytes) -> None:
        """Store a large tool result for the session."""
        ...

    def get_result(self, session_id: str, handle: str) -> bytes | None:
        """A stored result, or None if it does not exist or has expired."""
        ...


class Clock(Protocol):
    """The time of this process. It measures durations only: scripts decide by the time of the server."""

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment of this process."""
        ...

    def sleep_ms(self, ms: int) -> None:
        """Wait."""
        ...
