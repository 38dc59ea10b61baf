"""Operations on jobs, for operators and producers: list, read, cancel, replay, discard, decide."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property

from midwatch.orchestration.errors import NotFound, Refused, StoreUnavailable, UnreadableRecord
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.protocol.reading import guard
from midwatch.orchestration.store import reads
from midwatch.orchestration.store.damage.looking_over import LookingOver
from midwatch.orchestration.store.job_records import JobRecords
from midwatch.orchestration.store.records import (
    is_step,
    member,
    member_base,
)
from midwatch.orchestration.store.script_calls import operate, put_aside
from midwatch.orchestration.store.script_calls.operate import CancelResult
from midwatch.orchestration.store.script_calls.put_aside import Resolved
from midwatch.orchestration.store.script_calls.script_call import Reply, ScriptCall
from midwatch.schemas.decision import Verdict
from midwatch.schemas.job import JobStatus
from midwatch.schemas.step import Priority, StepRef

log = get_logger("midwatch.operations")

DISCARDED = "This call was not made: its job was given up."
"""The answer to open calls of a discarded dead letter."""

LOST = "This call has no result: its job was cancelled, and records of it were lost."
"""The answer to open calls of a cancelled job that lost some of its steps."""

PATIENCE_MS = 1_000
"""How long an operation keeps trying to reach the server."""


class Operations(JobRecords):
    """The operations that the Python client, the command line and the pages share."""

    @cached_property
    def records(self) -> LookingOver:
        """Looks for jobs that no message will reach, because entries or records are lost."""
        return LookingOver(self.client, self.keys, self._dispatcher)

    def cancel(self, job_id: str) -> bool:
        """Cancel a job and all its descendants. Returns False if the job had already ended.

        A running job ends at its next claim, and none of its steps starts. A dead letter is discarded.
        """
        ref = self._ref(job_id)
        children = reads.find_children(self.client, self.keys, ref)  # before its steps end
        call = operate.cancel(
            self._keys(ref), job=job_id, session=ref.session_id, member_base=member_base(ref), repair_text=LOST
        )
        reply = self._run_script(job_id, call)
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

        Raises:
            Refused: records of the job are lost.

        """
        ref = self._ref(job_id)
        call = operate.replay(
            self._keys(ref), job=job_id, session=ref.session_id, lane=lane, redriven=redriven, steps_granted=max_steps,
            time_granted_ms=time_ms, wait_granted_ms=wait_ms,
        )  # fmt: skip
        reply = self._run_script(job_id, call)
        if reply.is_lost:
            raise Refused(
                f"job {job_id!r} can't go on: Redis lost records of it. Discard it with `midwatch dlq discard {job_id}`, "
                "then enqueue its input again"
            )
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
        reply = self._run_script(job_id, call)
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
        if step is not None and not is_step(step):
            raise Refused(f"job {job_id!r} has no step {step!r:.40}: expected a step such as '3.0'")
        if job.status is not JobStatus.PARKED or step is None:
            raise Refused(f"job {job_id!r} is {job.status}, not parked: there is nothing to decide")
        if approve and (over := reads.find_over(self.client, self.keys, job)):
            raise Refused(
                f"job {job_id!r} can't go on: {over}. Nothing runs. End it with `midwatch jobs cancel {job_id}`"
            )
        ref = self._ref(job_id).model_copy(update={"step": step})
        verdict = Verdict.APPROVE if approve else Verdict.REJECT
        call = put_aside.resolve(self._keys(ref), step=step, member=member(ref), verdict=verdict, reason=reason[:500])
        resolved = self._run_script(job_id, call)
        if resolved is Resolved.EXPIRED:
            raise Refused(f"step {step} of job {job_id!r} waited too long for a decision: its question has expired")
        if resolved is Resolved.DECIDED:
            self._publish_owed((ref,))
        return resolved is Resolved.DECIDED

    def _run_script(self, job_id: str, call: ScriptCall[Reply]) -> Reply:
        """Run a script on a job. A damaged key raises UnreadableRecord."""
        return guard(f"job {job_id}, or its session,", lambda: self._scripts.run(call, patience_ms=PATIENCE_MS))

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
