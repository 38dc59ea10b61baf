"""What operators and producers do to jobs from outside their steps: cancel, decide, replay, discard, list, read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from midwatch.orchestration.errors import NotFound, Refused, StoreUnavailable
from midwatch.orchestration.keyspace import PARTITIONS
from midwatch.orchestration.protocol.addresses import child_id
from midwatch.orchestration.store.records import following, job_of, member, member_base, step_keys
from midwatch.orchestration.store.scripts import Arg
from midwatch.orchestration.store.sessions import Conversations
from midwatch.schemas.deadletter import DeadLetterRecord, PoisonRecord
from midwatch.schemas.decision import Verdict
from midwatch.schemas.job import Job, JobStatus
from midwatch.schemas.step import StepKind, StepRef
from midwatch.schemas.trace import TraceRecord

log = structlog.get_logger("midwatch.operations")

DISCARDED = "This call was not made: its job was given up."


class Operations(Conversations):
    """Shared by the Python client, the command line and the pages: the same verbs, the same answers."""

    def job(self, job_id: str) -> Job:
        """The job as it stands. Raises NotFound."""
        jobs = self._jobs([job_id])
        if not jobs:
            raise NotFound(
                f"no job {job_id!r}: never enqueued here, or its retention is over; `midwatch jobs list` shows what there is"
            )
        return jobs[0]

    def jobs(self, *, limit: int = 50, status: JobStatus | None = None, agent: str | None = None) -> list[Job]:
        """The newest jobs first."""
        newest = self._newest("jobs", limit if status is None and agent is None else 10_000)
        found: list[Job] = []
        for start in range(0, len(newest), 500):
            for job in self._jobs(newest[start : start + 500]):
                if (status is None or job.status is status) and (agent is None or job.agent == agent):
                    found.append(job)
            if len(found) >= limit:
                break
        return found[:limit]

    def dead_letters(self, *, limit: int = 1_000) -> list[DeadLetterRecord]:
        """The newest dead letters first."""
        pipe = self.client.pipeline(transaction=False)
        for p in range(PARTITIONS):
            pipe.hvals(self.keys.index(p, "letters"))
        letters = [DeadLetterRecord.model_validate_json(raw) for values in self._run(pipe) for raw in values]
        return sorted(letters, key=lambda letter: letter.dead_ms, reverse=True)[:limit]

    def dead_letter(self, job_id: str) -> DeadLetterRecord:
        """One dead letter. Raises NotFound."""
        ref = self._ref(job_id)
        pipe = self.client.pipeline(transaction=False)
        pipe.hget(step_keys(self.keys, ref)[11], job_id)
        raw = self._run(pipe)[0]
        if raw is None:
            raise NotFound(f"job {job_id!r} has no dead letter: it is {self.job(job_id).status}")
        return DeadLetterRecord.model_validate_json(raw)

    def poison(self, limit: int = 100) -> list[PoisonRecord]:
        """Messages that could not become a step, newest first."""
        pipe = self.client.pipeline(transaction=False)
        pipe.lrange(self.keys.poison(), 0, limit - 1)
        return [PoisonRecord.model_validate_json(raw) for raw in self._run(pipe)[0]]

    def trace(self, job_id: str) -> list[TraceRecord]:
        """The job's steps in the order they were committed."""
        pipe = self.client.pipeline(transaction=False)
        pipe.lrange(step_keys(self.keys, self._ref(job_id))[4], 0, -1)
        return [TraceRecord.model_validate_json(raw) for raw in self._run(pipe)[0]]

    def counters(self) -> dict[str, int]:
        """The fleet's counters, summed over the partitions."""
        pipe = self.client.pipeline(transaction=False)
        for p in range(PARTITIONS):
            pipe.hgetall(self.keys.index(p, "counters"))
        total: dict[str, int] = {}
        for counters in self._run(pipe):
            for name, value in counters.items():
                total[name.decode()] = total.get(name.decode(), 0) + int(value)
        return total

    def cancel(self, job_id: str) -> bool:
        """Cancel a job and its children. False: it had ended already.

        A job under way ends at its next claim; nothing of it starts any more. A dead letter is given up: its session goes on.
        """
        ref = self._ref(job_id)
        reply = self._script("cancel", ref, (job_id, ref.session_id, member_base(ref)))
        match reply[0]:
            case b"cancelled":
                self._hand_on(ref, reply[1])
            case b"marked":
                self._publish_steps(ref, reply[1:])
                self._cancel_children(ref, reply[1:])
            case b"ended" if reply[1] == b"dead_lettered":
                return self.discard(job_id)
            case _:
                return False
        return True

    def replay(self, job_id: str, *, max_steps: int = 50) -> bool:
        """Resume a dead-lettered job at the step it stopped at. False: it is not dead (any more): a second replay is a no-op."""
        ref = self._ref(job_id)
        reply = self._script("replay", ref, (job_id, ref.session_id, member_base(ref), max_steps))
        if reply[0] != b"replayed":
            return False
        self._publish_steps(ref, reply[1:])
        return True

    def discard(self, job_id: str) -> bool:
        """Give a dead letter up; its session goes on with the next job. False: there was none."""
        ref = self._ref(job_id)
        reply = self._script("discard", ref, (job_id, ref.session_id, member_base(ref), DISCARDED))
        if reply[0] != b"discarded":
            return False
        self._hand_on(ref, reply[1])
        return True

    def decide(self, job_id: str, step: str | None = None, *, approve: bool, reason: str = "") -> bool:
        """Approve or reject a parked step (by default the one the job waits for). False: somebody decided before.

        Raises:
            Refused: the job is not parked.

        """
        job = self.job(job_id)
        step = step or (job.waiting.step if job.waiting else None)
        if job.status is not JobStatus.PARKED or step is None:
            raise Refused(f"job {job_id!r} is {job.status}, not parked: there is nothing to decide")
        ref = self._ref(job_id).model_copy(update={"step": step})
        verdict = Verdict.APPROVE if approve else Verdict.REJECT
        queue = 13 if ref.kind is StepKind.MODEL else 14
        if not self._script("resolve", ref, (step, member(ref), verdict, json.dumps(reason[:500]), "", queue)):
            return False
        self._announce((ref,))
        return True

    @staticmethod
    def first_step(job: Job) -> StepRef:
        """The address of the job's first step: with its session and priority, where everything of it lies."""
        return StepRef(job_id=job.job_id, session_id=job.session_id, step="1", priority=job.priority)

    def _ref(self, job_id: str) -> StepRef:
        return self.first_step(self.job(job_id))

    def _newest(self, index: str, limit: int) -> list[str]:
        pipe = self.client.pipeline(transaction=False)
        for p in range(PARTITIONS):
            pipe.zrange(self.keys.index(p, index), 0, limit - 1, desc=True, withscores=True)
        rows = [row for reply in self._run(pipe) for row in reply]
        return [row[0].decode() for row in sorted(rows, key=lambda row: row[1], reverse=True)[:limit]]

    def _jobs(self, job_ids: Sequence[str]) -> list[Job]:
        pipe = self.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipe.get(self.keys.job_pointer(job_id))
        homes = [(job_id, home.decode()) for job_id, home in zip(job_ids, self._run(pipe), strict=True) if home]
        pipe = self.client.pipeline(transaction=False)
        for job_id, home in homes:
            pipe.hgetall(self.keys.job(home, job_id))
        return [
            job_of(job_id, {key.decode(): value.decode() for key, value in flat.items()})
            for (job_id, _), flat in zip(homes, self._run(pipe), strict=True)
            if flat
        ]

    def _script(self, name: str, ref: StepRef, args: Sequence[Arg]) -> Any:
        return self._scripts.call(name, step_keys(self.keys, ref), args, patience_ms=1_000)

    def _publish_steps(self, ref: StepRef, steps: Iterable[bytes]) -> None:
        self._announce([ref.model_copy(update={"step": step.decode()}) for step in steps])

    def _cancel_children(self, ref: StepRef, steps: Iterable[bytes]) -> None:
        """Nobody waits for their answers any more. One that was missed here ends at its next turn: `children.orphaned`."""
        calls = [ref.model_copy(update={"step": step.decode()}) for step in steps]
        for child in self._jobs([child_id(call) for call in calls if call.kind is StepKind.TOOL]):
            self.cancel(child.job_id)

    def _announce(self, refs: Sequence[StepRef]) -> None:
        """Publish what a script has just owed. When that fails a steward does it: the verb itself has been recorded."""
        try:
            self._dispatcher.publish(refs)
        except StoreUnavailable as error:
            log.warning("publish.failed", steps=len(refs), error=str(error))

    def _hand_on(self, ref: StepRef, entry: bytes) -> None:
        heir = following(ref, entry)
        if heir:
            self._announce((heir,))
