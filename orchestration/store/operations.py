"""Operations on jobs, for operators and producers: list, read, cancel, replay, discard, decide."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

import structlog

from midwatch.orchestration.errors import NotFound, Refused, StoreUnavailable, UnreadableRecord
from midwatch.orchestration.protocol.letter_filter import EVERY_LETTER, LetterFilter
from midwatch.orchestration.protocol.reading import Listing, guard, read_field, read_listing, read_record
from midwatch.orchestration.store import reads
from midwatch.orchestration.store.letters import Letters
from midwatch.orchestration.store.records import (
    job_and_session,
    job_of_reply,
    member,
    member_base,
    priority_of,
    session_of,
)
from midwatch.orchestration.store.script_calls import operate, put_aside
from midwatch.orchestration.store.script_calls.operate import CancelResult
from midwatch.orchestration.store.script_calls.put_aside import Resolved
from midwatch.orchestration.store.sessions import Sessions
from midwatch.orchestration.store.step_keys import StepKeys, step_keys
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.schemas.decision import Verdict
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.step import Priority, StepRef
from midwatch.schemas.trace import TraceRecord

log = structlog.get_logger("midwatch.operations")

DISCARDED = "This call was not made: its job was given up."
"""The answer to open calls of a discarded dead letter."""

PATIENCE_MS = 1_000
"""How long an operation keeps trying to reach the server."""


class Operations(Sessions):
    """The operations that the Python client, the command line and the pages share."""

    def job(self, job_id: str) -> Job:
        """The job.

        Raises:
            NotFound: there is none.
            UnreadableRecord: it is of a later release, or damaged.

        """
        jobs = self._jobs([job_id])
        if jobs.unreadable:
            raise jobs.unreadable[0]
        if not jobs:
            raise NotFound(
                f"no job {job_id!r}: never enqueued here, or its retention is over; `midwatch jobs list` shows what there is"
            )
        return jobs[0]

    def jobs(self, *, limit: int = 50, status: JobStatus | None = None, agent: str | None = None) -> Listing[Job]:
        """The newest jobs first."""
        newest = reads.find_newest(
            self.client, self.keys, "jobs", limit if status is None and agent is None else 10_000
        )
        found: Listing[Job] = Listing()
        for start in range(0, len(newest), 500):
            some = self._jobs(newest[start : start + 500])
            found.unreadable += some.unreadable
            for job in some:
                if (status is None or job.status is status) and (agent is None or job.agent == agent):
                    found.append(job)
            if len(found) >= limit:
                break
        return Listing(found[:limit], found.unreadable)

    @cached_property
    def letters(self) -> Letters:
        """The dead letters, to be read page by page."""
        return Letters(self.client, self.keys)

    def dead_letters(self, *, limit: int = 1_000, wanted: LetterFilter = EVERY_LETTER) -> Listing[DeadLetterRecord]:
        """The newest dead letters first."""
        return self.letters.newest(limit, wanted)

    def dead_letter(self, job_id: str) -> DeadLetterRecord:
        """One dead letter. Raises NotFound."""
        ref = self._ref(job_id)
        pipe = self.client.pipeline(transaction=False)
        pipe.hget(self._keys(ref).letters, job_id)
        what = f"the dead letter of job {job_id}"
        raw = read_field(self._run(pipe, with_errors=True)[0], what)
        if raw is None:
            raise NotFound(f"job {job_id!r} has no dead letter: it is {self.job(job_id).status}")
        return read_record(DeadLetterRecord, raw, what)

    def poison(self, limit: int = 100) -> Listing[PoisonRecord]:
        """Messages that are not valid steps, the newest first."""
        return reads.read_poison(self.client, self.keys, limit)

    def trace(self, job_id: str) -> Listing[TraceRecord]:
        """The trace records of the job, in the order of their commits."""
        pipe = self.client.pipeline(transaction=False)
        pipe.lrange(self._keys(self._ref(job_id)).trace, 0, -1)
        return reads.read_trace(job_id, self._run(pipe, with_errors=True)[0])

    def counters(self) -> dict[str, int]:
        """The fleet's counters, summed over the partitions."""
        return reads.read_counters(self.client, self.keys)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job and all its descendants. Returns False if the job had already ended.

        A running job ends at its next claim, and none of its steps starts. A dead letter is discarded.
        """
        ref = self._ref(job_id)
        children = reads.find_children(self.client, self.keys, ref)  # before its steps end
        call = operate.cancel(self._keys(ref), job=job_id, session=ref.session_id, member_base=member_base(ref))
        reply = self._scripts.run(call, patience_ms=PATIENCE_MS)
        if reply.status is JobStatus.DEAD_LETTERED:
            return self.discard(job_id)
        owed = [ref.model_copy(update={"step": step}) for step in reply.owed_steps]
        if reply.result is CancelResult.MARKED:
            self._publish_owed(owed, begun=True)  # a cancelled job must not wait behind jobs that have not begun
        elif reply.next_step:
            self._publish_owed((reply.next_step,))
        if reply.status in (None, JobStatus.CANCELLED):
            self._cancel_all(children)
        return reply.result in (CancelResult.CANCELLED, CancelResult.MARKED)

    def replay(
        self, job_id: str, *, max_steps: int = 50, time_ms: int | None = None, wait_ms: int | None = None,
        lane: Priority | None = None, redriven: bool = False,
    ) -> bool:  # fmt: skip
        """Resume a dead-lettered job at the step where it stopped. Returns False, and does nothing, if it is no dead letter.

        Args:
            job_id: of the job.
            max_steps: model turns that the job may take after its last one.
            time_ms: how long it may work from now on. None: its limit starts again.
            wait_ms: how long others may hold it from now on. None: its limit starts again.
            lane: the priority of its steps from now on. None: the one that it was enqueued with.
            redriven: True if no human asked for the replay.
        """
        ref = self._ref(job_id)
        call = operate.replay(
            self._keys(ref), job=job_id, session=ref.session_id, lane=lane, redriven=redriven, steps_granted=max_steps,
            time_granted_ms=time_ms, wait_granted_ms=wait_ms,
        )  # fmt: skip
        reply = self._scripts.run(call, patience_ms=PATIENCE_MS)
        if reply.replayed:
            ref = ref.model_copy(update={"priority": reply.priority})
            self._publish_owed([ref.model_copy(update={"step": step}) for step in reply.owed_steps])
        return reply.replayed

    def discard(self, job_id: str) -> bool:
        """Discard a dead letter: its session's next job starts, and its descendants are cancelled.

        Returns False if the job is no dead letter.
        """
        ref = self._ref(job_id)
        children = reads.find_children(self.client, self.keys, ref)
        call = operate.discard(
            self._keys(ref), job=job_id, session=ref.session_id, member_base=member_base(ref), repair_text=DISCARDED
        )
        reply = self._scripts.run(call, patience_ms=PATIENCE_MS)
        if reply.next_step:
            self._publish_owed((reply.next_step,))
        if reply.discarded:
            self._cancel_all(children)
        return reply.discarded

    def decide(self, job_id: str, step: str | None = None, *, approve: bool, reason: str = "") -> bool:
        """Approve or reject a parked step, by default the one that the job waits for. Returns False if it was decided before.

        Raises:
            Refused: the job is not parked, its question has expired, or an ancestor is over, so that the job can't go on.

        """
        job = self.job(job_id)
        step = step or (job.waiting.step if job.waiting else None)
        if job.status is not JobStatus.PARKED or step is None:
            raise Refused(f"job {job_id!r} is {job.status}, not parked: there is nothing to decide")
        if approve and (over := reads.find_over(self.client, self.keys, job)):
            raise Refused(
                f"job {job_id!r} can't go on: {over}. Nothing runs. End it with `midwatch jobs cancel {job_id}`"
            )
        ref = self._ref(job_id).model_copy(update={"step": step})
        verdict = Verdict.APPROVE if approve else Verdict.REJECT
        call = put_aside.resolve(self._keys(ref), step=step, member=member(ref), verdict=verdict, reason=reason[:500])
        resolved = self._scripts.run(call, patience_ms=PATIENCE_MS)
        if resolved is Resolved.EXPIRED:
            raise Refused(f"step {step} of job {job_id!r} waited too long for a decision: its question has expired")
        if resolved is Resolved.DECIDED:
            self._publish_owed((ref,))
        return resolved is Resolved.DECIDED

    @staticmethod
    def first_step(job: Job) -> StepRef:
        """The job's first step. Its session and priority are those of every step of the job."""
        return StepRef(job_id=job.job_id, session_id=job.session_id, step="1", priority=job.priority)

    def _ref(self, job_id: str) -> StepRef:
        """The job's first step. It is found even if the job's record can't be read: an operator must be able to end the job."""
        pipe = self.client.pipeline(transaction=False)
        pipe.get(self.keys.job_pointer(job_id))
        what = f"the session id of job {job_id}"
        pointer = read_field(self._run(pipe, with_errors=True)[0], what)
        if pointer is None:
            raise NotFound(f"no job {job_id!r}: never enqueued here, or its retention is over")
        session_id = guard(what, lambda: session_of(pointer))
        pipe = self.client.pipeline(transaction=False)
        pipe.hmget(self.keys.job(session_id, job_id), "spec", "lane")
        stored = self._run(pipe, with_errors=True)[0]
        return StepRef(job_id=job_id, session_id=session_id, step="1", priority=priority_of(stored))

    def _jobs(self, job_ids: Sequence[str]) -> Listing[Job]:
        pipe = self.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.get(self.keys.job_pointer(job_id))
        pointers = zip(job_ids, self._run(pipe, with_errors=True), strict=True)
        found = read_listing(
            ((f"the session id of job {job_id}", (job_id, reply)) for job_id, reply in pointers if reply),
            job_and_session,
        )
        pipe = self.client.pipeline(transaction=False)
        for job_id, session_id in found:
            pipe.hgetall(self.keys.job(session_id, job_id))
        hashes = zip(found, self._run(pipe, with_errors=True), strict=True)
        jobs = read_listing([(f"job {job_id}", (job_id, flat)) for (job_id, _), flat in hashes if flat], job_of_reply)
        return Listing(jobs, [*found.unreadable, *jobs.unreadable])

    def _keys(self, ref: StepRef) -> StepKeys:
        return step_keys(self.keys, ref)

    def _cancel_all(self, job_ids: Sequence[str]) -> None:
        """Cancel these jobs. A child that is missed here, because it is new, ends itself at its next model turn."""
        for job_id in job_ids:
            with suppress(NotFound, UnreadableRecord):
                self.cancel(job_id)

    def _publish_owed(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        """Publish steps that a script has just owed. If this fails, a steward publishes them later."""
        try:
            self._dispatcher.publish(refs, begun=begun)
        except StoreUnavailable as error:
            log.warning("publish.failed", steps=len(refs), error=str(error))
