"""MemoryStore: the step machine without a server: what the scripts are compared with, and the store of `run_inline`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from midwatch.orchestration.errors import SessionBusy
from midwatch.orchestration.keyspace import ORIGINALS_BYTES
from midwatch.orchestration.ports import Clock, Piggyback
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal, RowState
from midwatch.orchestration.protocol.commits import Ending, ResultCommit, TurnCommit
from midwatch.orchestration.protocol.store_replies import LeaseState, TurnCommitted
from midwatch.orchestration.store.redis_store import LEASE_MS
from midwatch.orchestration.testing.local_begin import begin
from midwatch.orchestration.testing.local_compaction import MemoryCompacting
from midwatch.orchestration.testing.local_reads import MemoryShelf
from midwatch.orchestration.testing.local_state import JobState, MemoryState, Row, SessionState
from midwatch.schemas.job import JobStatus, NewJob, SessionPolicy, Waiting
from midwatch.schemas.step import Defer, Park, StepRef
from midwatch.schemas.trace import TraceRecord


class MemoryStore(MemoryShelf, MemoryCompacting):
    """See `ports.Store` for the promises, and `store/lua/` for the scripts that keep them in Redis.

    Args:
        clock: its `monotonic_ms` is this server's time.
        publish: is given the steps to bring to workers, as a dispatcher is.
        lease_ms: how long a claim holds without renewal.

    """

    def __init__(
        self,
        clock: Clock,
        publish: Callable[[Sequence[StepRef]], object] = lambda refs: None,
        *,
        lease_ms: int = LEASE_MS,
        originals_bytes: int = ORIGINALS_BYTES,
    ) -> None:
        self.state = MemoryState(clock)
        self.originals_bytes = originals_bytes
        self.publish = publish
        self.lease_ms = lease_ms

    def enqueue(self, job: NewJob, *, on_interrupt: Callable[[str], object] | None = None) -> bool:
        """See `ports.Store.enqueue`. `on_interrupt` is called with the job that an `interrupt` policy is to cancel."""
        if job.job_id in self.state.jobs:
            return False
        home = self.state.homes.setdefault(job.job_id, job.session_id)
        job = job.model_copy(update={"session_id": home})
        session = self.state.sessions.setdefault(home, SessionState())
        active = session.active
        if active and job.on_busy is SessionPolicy.REJECT:
            del self.state.homes[job.job_id]  # a job that was refused binds its id to no session
            raise SessionBusy(f"session {job.session_id!r} runs job {active!r} and the policy is on_busy='reject'")
        state = JobState.of(job, self.state.now_ms)
        self.state.jobs[job.job_id] = state
        self.state.counters["jobs.enqueued"] += 1
        if active is None:
            session.active = job.job_id
            self.publish((self.state.owe(job.ref),))
        elif job.on_busy is SessionPolicy.INTERRUPT:
            session.waiting.appendleft(job.job_id)
            if on_interrupt:
                on_interrupt(active)
        else:
            session.waiting.append(job.job_id)
        return True

    def claim(self, ref: StepRef, nonce: str) -> Claim | ClaimRefusal:
        """See `ports.Store.claim`."""
        return begin(self.state, ref, nonce, self.lease_ms)

    def renew(self, claim: Claim) -> LeaseState:
        """See `ports.Store.renew`."""
        row = self.state.held(claim)
        if row is None or row.state is not RowState.STARTED:
            return LeaseState.LOST
        row.until_ms = self.state.now_ms + self.lease_ms
        self.state.settle(claim.ref)
        self.state.due[claim.ref] = row.until_ms
        return LeaseState.CANCELLED if self.state.jobs[claim.ref.job_id].cancel else LeaseState.HELD

    def commit_turn(self, claim: Claim, commit: TurnCommit, piggyback: Piggyback | None = None) -> TurnCommitted:
        """See `ports.Store.commit_turn`."""
        state, ref = self.state, claim.ref
        job = state.jobs[ref.job_id]
        if piggyback:
            piggyback()
        if state.held(claim) is None:  # sent again, because its reply was lost?
            if job.committed != (ref.step, claim.fence):
                return TurnCommitted.LOST
            return TurnCommitted.CANCELLED if job.cancel else TurnCommitted.COMMITTED
        job.committed = (ref.step, claim.fence)
        session, record = state.session(job), job.record
        session.log += commit.messages
        session.groups = claim.group
        session.anchor = commit.anchor or session.anchor
        job.update(
            usage=record.usage + commit.usage,
            tool_calls=record.tool_calls + commit.tool_calls,
            invalid_calls=record.invalid_calls + commit.invalid_calls,
            children=record.children + commit.children,
            open_calls=len(commit.calls),
        )
        job.trace.append(commit.trace)
        state.counters["steps.model"] += 1
        state.drift.update(commit.drift)
        state.counters["calls.invalid"] += commit.invalid_calls
        del job.rows[ref.step]
        state.settle(ref)
        owed = []
        for call in commit.calls:
            row = job.rows[ref.call(call.ordinal).step] = Row(call=call.call)
            if call.started:
                row.state, row.fence, row.until_ms = RowState.STARTED, claim.fence, state.now_ms + self.lease_ms
                state.due[ref.call(call.ordinal)] = row.until_ms
            else:
                owed.append(state.owe(ref.call(call.ordinal)))
        if not commit.calls:
            owed.append(self._owe_turn(job, ref.turn + 1))
        self.publish(owed)
        return TurnCommitted.CANCELLED if job.cancel else TurnCommitted.COMMITTED

    def _owe_turn(self, job: JobState, turn: int) -> StepRef:
        job.rows[str(turn)] = Row()
        return self.state.owe(job.ref(str(turn)))

    def commit_results(self, claim: Claim, commit: ResultCommit, piggyback: Piggyback | None = None) -> bool:
        """See `ports.Store.commit_results`."""
        state, applied = self.state, 0
        if piggyback:
            piggyback()
        for ref, message, trace in zip(commit.refs, commit.messages, commit.traces, strict=True):
            if state.held(claim, ref) is None:
                continue
            job = state.jobs[ref.job_id]
            state.session(job).log.append(message)
            job.trace.append(trace)
            job.update(open_calls=job.record.open_calls - 1)
            del job.rows[ref.step]
            state.settle(ref)
            state.counters["steps.tool"] += 1
            applied += 1
        if applied and not job.record.open_calls:
            self.publish((self._owe_turn(job, claim.ref.turn + 1),))
        return applied == len(commit.refs)

    def set_limits(self, claim: Claim, *, agent_version: str, max_steps: int, timeout_ms: int) -> None:
        """See `ports.Store.set_limits`."""
        if self.state.held(claim) is None:
            return
        job = self.state.jobs[claim.ref.job_id]
        job.timeout_ms = timeout_ms
        deadline_ms = (job.record.started_ms or 0) + timeout_ms
        job.update(agent_version=agent_version, max_steps=max_steps, deadline_ms=deadline_ms)

    def defer(self, claim: Claim, defer: Defer, trace: TraceRecord) -> bool:
        """See `ports.Store.defer`."""
        row, ref = self.state.held(claim), claim.ref
        if row is None:
            return False
        job = self.state.jobs[ref.job_id]
        due_ms = self.state.now_ms + defer.after_ms
        row.state, row.nonce, row.until_ms = RowState.PENDING, "", 0 if defer.wakes else due_ms
        if defer.counts_as_attempt:
            row.attempt, row.losses = row.attempt + 1, 0
            job.update(retries=job.record.retries + 1)
            self.state.counters["steps.retried"] += 1
        self.state.settle(ref)
        self.state.due[ref] = due_ms
        job.trace.append(trace)
        if job.record.status is JobStatus.RUNNING:
            waiting = Waiting(step=ref.step, reason=defer.reason, until_ms=due_ms, attempt=row.attempt)
            job.update(waiting=waiting)
        return True

    def park(self, claim: Claim, park: Park, trace: TraceRecord) -> bool:
        """See `ports.Store.park`."""
        row = self.state.held(claim)
        if row is None:
            return False
        job = self.state.jobs[claim.ref.job_id]
        row.why = Waiting(step=claim.ref.step, reason=f"{park.reason}: {park.question}", kind=park.reason)
        row.state, row.nonce, row.until_ms = RowState.PARKED, "", 0
        row.begun = False  # a human decides now, knowing it
        self.state.settle(claim.ref)
        job.trace.append(trace)
        if job.record.status is not JobStatus.DEAD_LETTERED:  # by a sibling; then it shows after the replay
            job.update(status=JobStatus.PARKED, waiting=row.why)
        return True

    def wait_for_child(self, claim: Claim, poll_ms: int) -> bool:
        """See `ports.Store.wait_for_child`."""
        row = self.state.held(claim)
        if row is None:
            return False
        row.state, row.nonce, row.losses = RowState.WAITING, "", 0
        row.begun = False
        row.until_ms = self.state.now_ms + poll_ms
        self.state.settle(claim.ref)
        self.state.due[claim.ref] = row.until_ms
        return True

    def finish(self, claim: Claim, ending: Ending, trace: TraceRecord, piggyback: Piggyback | None = None) -> bool:
        """See `ports.Store.finish`."""
        state, row = self.state, self.state.held(claim)
        if piggyback:
            piggyback()
        if row is None:
            return False
        job = state.jobs[claim.ref.job_id]
        session, status = state.session(job), ending.status
        if status is JobStatus.DEAD_LETTERED and job.cancel:
            status = JobStatus.CANCELLED
        session.log += ending.messages
        session.anchor = ending.anchor or session.anchor
        state.drift.update(ending.drift)
        if ending.messages:
            session.groups = claim.group
        job.trace.append(trace)
        if status is not job.record.status:
            state.counters[f"jobs.{status}"] += 1
        job.update(
            status=status,
            finished_ms=state.now_ms,
            waiting=None,
            usage=job.record.usage + ending.usage,
            output=ending.output if ending.output is not None else job.record.output,
            failure=ending.failure or job.record.failure,
        )
        if status is JobStatus.DEAD_LETTERED and ending.letter:
            row.state, row.nonce, row.until_ms = RowState.DEAD, "", 0
            state.settle(claim.ref)
            state.letters[job.record.job_id] = ending.letter
            heirs: tuple[StepRef, ...] = ()
        else:
            state.letters.pop(job.record.job_id, None)
            state.end_steps(job, ending.repair)
            heirs = state.hand_over(session)
        self.publish((*heirs, *((claim.job.parent,) if claim.job.parent else ())))
        return True
