"""Read the records of jobs, for producers and operators: jobs, their traces and dead letters, poison, counters."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import cached_property

from midwatch.orchestration.errors import NotFound
from midwatch.orchestration.keyspace import HELD_S, KEPT_S
from midwatch.orchestration.protocol.letter_filter import EVERY_LETTER, LetterFilter
from midwatch.orchestration.protocol.reading import Listing, guard, read_field, read_listing, read_record
from midwatch.orchestration.store import reads
from midwatch.orchestration.store.earlier_keys import move_earlier_keys
from midwatch.orchestration.store.letters import Letters
from midwatch.orchestration.store.records import is_id, job_and_session, job_of_reply, priority_of, session_of
from midwatch.orchestration.store.sessions import Sessions
from midwatch.orchestration.store.step_keys import StepKeys, step_keys
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.step import StepRef
from midwatch.schemas.trace import TraceRecord


class JobRecords(Sessions):
    """The part of `Operations` that reads jobs."""

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

    def find_job(self, job_id: str, session_id: str) -> Job:
        """A job whose pointer is lost, by its session. The pointer is written again.

        Raises:
            NotFound: the record of the job is gone.

        """
        pipe = self.client.pipeline(transaction=False)
        pipe.hgetall(self.keys.job(session_id, job_id))
        flat = self._run(pipe, with_errors=True)[0]
        if not flat:
            raise NotFound(
                f"the record of job {job_id!r} is gone: Redis has lost its data, or the retention is over; "
                "`midwatch doctor` says whether data were lost"
            )
        pipe = self.client.pipeline(transaction=False)
        pipe.set(self.keys.job_pointer(job_id), session_id, nx=True, ex=HELD_S + KEPT_S)
        self._run(pipe, with_errors=True)
        return job_of_reply((job_id, flat))

    def input_digest(self, job: Job) -> str:
        """The digest of the job's input.

        Empty if it is not known: an earlier release enqueued the job, or its session was forgotten.
        """
        pipe = self.client.pipeline(transaction=False)
        pipe.hget(self.keys.job(job.session_id, job.job_id), "digest")
        digest = self._run(pipe, with_errors=True)[0]
        return digest.decode() if isinstance(digest, bytes) else ""

    def jobs(self, *, limit: int = 50, status: JobStatus | None = None, agent: str | None = None) -> Listing[Job]:
        """The newest jobs first. `agent` is a name, or a pattern such as `support-*`."""
        newest = reads.find_newest(
            self.client, self.keys, "jobs", limit if status is None and agent is None else 10_000
        )
        found: Listing[Job] = Listing()
        for start in range(0, len(newest), 500):
            some = self._jobs(newest[start : start + 500])
            found.unreadable += some.unreadable
            for job in some:
                if (status is None or job.status is status) and (agent is None or fnmatchcase(job.agent, agent)):
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

    @staticmethod
    def first_step(job: Job) -> StepRef:
        """The job's first step. Its session and priority are those of every step of the job."""
        return StepRef(job_id=job.job_id, session_id=job.session_id, step="1", priority=job.priority)

    def _ref(self, job_id: str) -> StepRef:
        """The job's first step. It is found even if the job's record can't be read: an operator must be able to end the job."""
        if not is_id(job_id):
            raise NotFound(f"no job {job_id!r:.140}: this is no id of a job")
        pipe = self.client.pipeline(transaction=False)
        pipe.get(self.keys.job_pointer(job_id))
        what = f"the session id of job {job_id}"
        pointer = read_field(self._run(pipe, with_errors=True)[0], what)
        if pointer is None:
            raise NotFound(f"no job {job_id!r}: never enqueued here, or its retention is over")
        session_id = guard(what, lambda: session_of(pointer))
        move_earlier_keys(self.client, self.keys, session_id, job_id)
        pipe = self.client.pipeline(transaction=False)
        pipe.hmget(self.keys.job(session_id, job_id), "spec", "lane")
        stored = self._run(pipe, with_errors=True)[0]
        return StepRef(job_id=job_id, session_id=session_id, step="1", priority=priority_of(stored))

    def _jobs(self, job_ids: Sequence[str]) -> Listing[Job]:
        job_ids = [job_id for job_id in job_ids if is_id(job_id)]
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
            move_earlier_keys(self.client, self.keys, session_id, job_id)
            pipe.hgetall(self.keys.job(session_id, job_id))
        hashes = zip(found, self._run(pipe, with_errors=True), strict=True)
        jobs = read_listing([(f"job {job_id}", (job_id, flat)) for (job_id, _), flat in hashes if flat], job_of_reply)
        return Listing(jobs, [*found.unreadable, *jobs.unreadable])

    def _keys(self, ref: StepRef) -> StepKeys:
        return step_keys(self.keys, ref)
