"""MemoryOperations: what operators do to the jobs of a MemoryStore: the verbs and answers of `store.Operations`."""

from __future__ import annotations

from midwatch.orchestration.errors import NotFound, Refused
from midwatch.orchestration.protocol.claims import RowState
from midwatch.orchestration.store.operations import DISCARDED
from midwatch.orchestration.testing.local_state import JobState
from midwatch.orchestration.testing.local_store import MemoryStore
from midwatch.schemas.deadletter import DeadLetterRecord
from midwatch.schemas.decision import HumanDecision, Verdict
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.message import Message
from midwatch.schemas.step import StepKind, StepRef
from midwatch.schemas.trace import TraceRecord


class MemoryOperations:
    """Cancel, replay, discard, decide, sweep, and read."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.state = store.state

    def job(self, job_id: str) -> Job:
        """The job as it stands. Raises NotFound."""
        return self.state.job(job_id).record

    def trace(self, job_id: str) -> list[TraceRecord]:
        """The job's steps in the order they were committed. Raises NotFound."""
        return list(self.state.job(job_id).trace)

    def messages(self, session_id: str) -> tuple[Message, ...]:
        """The whole conversation of a session, in the order it is sent; empty when there is none."""
        session = self.state.sessions.get(session_id)
        return session.conversation() if session else ()

    def dead_letters(self) -> list[DeadLetterRecord]:
        """The newest dead letters first."""
        return sorted(self.state.letters.values(), key=lambda letter: letter.dead_ms, reverse=True)

    def dead_letter(self, job_id: str) -> DeadLetterRecord:
        """One dead letter. Raises NotFound."""
        if job_id not in self.state.letters:
            raise NotFound(f"job {job_id!r} has no dead letter: it is {self.job(job_id).status}")
        return self.state.letters[job_id]

    def cancel(self, job_id: str) -> bool:
        """Cancel a job. False: it had ended already. A job under way ends at its next claim; a dead letter is given up."""
        job = self.state.job(job_id)
        if job.record.status is JobStatus.DEAD_LETTERED:
            return self.discard(job_id)
        if job.record.status.ended:
            return False
        if job.record.status is not JobStatus.QUEUED:
            job.cancel = True
            idle = [job.ref(step) for step in job.steps() if job.rows[step].state is not RowState.STARTED]
            self.store.publish([self.state.owe(ref) for ref in idle])
            return True
        job.update(status=JobStatus.CANCELLED, finished_ms=self.state.now_ms)
        self.state.counters["jobs.cancelled"] += 1
        self.state.settle(job.ref("1"))
        session = self.state.session(job)
        if session.active == job_id:
            self.store.publish(self.state.hand_over(session))
        else:
            session.waiting.remove(job_id)
        return True

    def replay(self, job_id: str, *, max_steps: int = 50) -> bool:
        """Resume a dead-lettered job at the step it stopped at. False: it is not dead (any more)."""
        job, now = self._dead(job_id), self.state.now_ms
        if job is None:
            return False
        owed = []
        for step in job.steps():
            row, ref = job.rows[step], job.ref(step)
            if row.state is RowState.STARTED and row.until_ms > now:
                self.state.due[ref] = row.until_ms
            elif row.state is not RowState.PARKED:
                row.state = RowState.STARTED if row.state is RowState.STARTED else RowState.PENDING
                row.until_ms, row.attempt, row.losses, row.nonce = 0, 0, 0, ""
                owed.append(self.state.owe(ref))
        parked = job.parked()
        job.update(
            status=JobStatus.PARKED if parked else JobStatus.RUNNING,
            waiting=job.rows[parked[0]].why if parked else None,
            max_steps=max(job.record.max_steps, job.record.turn + max_steps),
            deadline_ms=now + job.timeout_ms,
            failure=None,
            finished_ms=None,
        )
        del self.state.letters[job_id]
        self.state.counters["letters.replayed"] += 1
        self.store.publish(owed)
        return True

    def discard(self, job_id: str) -> bool:
        """Give a dead letter up; its session goes on with the next job. False: there was none."""
        job = self._dead(job_id)
        if job is None:
            return False
        job.discarded = True
        self.state.end_steps(job, DISCARDED)
        del self.state.letters[job_id]
        self.state.counters["letters.discarded"] += 1
        self.store.publish(self.state.hand_over(self.state.session(job)))
        return True

    def decide(self, job_id: str, step: str | None = None, *, approve: bool, reason: str = "") -> bool:
        """Approve or reject a parked step (by default the first). False: somebody decided before.

        Raises:
            Refused: the job is not parked.

        """
        job = self.state.job(job_id)
        step = step or (job.record.waiting.step if job.record.waiting else None)
        if job.record.status is not JobStatus.PARKED or step is None:
            raise Refused(f"job {job_id!r} is {job.record.status}, not parked: there is nothing to decide")
        row = job.rows.get(step)
        if row is None or row.state is not RowState.PARKED:
            return False
        asked = row.why.kind if row.why else None
        row.state, row.until_ms = RowState.PENDING, 0
        row.decision = (
            HumanDecision(verdict=Verdict.APPROVE)
            if approve
            else HumanDecision(verdict=Verdict.REJECT, about=asked, reason=reason[:500])
        )
        parked = job.parked()
        job.update(
            status=JobStatus.PARKED if parked else JobStatus.RUNNING,
            waiting=job.rows[parked[0]].why if parked else None,
        )
        self.store.publish((self.state.owe(job.ref(step)),))
        return True

    def sweep(
        self, *, patience_ms: int, stale_ms: int, idle: tuple[bool, bool], limit: int = 200
    ) -> tuple[list[StepRef], int]:
        """What must be published now, and the ms until the next entry is due (-1: none is waiting)."""
        now, state = self.state.now_ms, self.state
        refs = sorted((ref for ref, at_ms in state.due.items() if at_ms <= now), key=state.due.__getitem__)[:limit]
        for ref in refs:
            state.owe(ref)
        for ref, since_ms in sorted(state.owed.items(), key=lambda entry: entry[1])[:limit]:
            empty = idle[ref.kind is StepKind.TOOL]
            if since_ms <= now - (patience_ms if empty else stale_ms):
                state.owed[ref] = now
                refs.append(ref)
        return refs, max(0, min(state.due.values()) - now) if state.due else -1

    def _dead(self, job_id: str) -> JobState | None:
        job = self.state.job(job_id)
        return job if job.record.status is JobStatus.DEAD_LETTERED and not job.discarded else None
