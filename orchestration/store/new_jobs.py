"""Record new jobs, and publish the steps that are owed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256

import redis
from redis.exceptions import ResponseError

from midwatch.orchestration.errors import SessionBusy, StoreUnavailable, UnreadableRecord
from midwatch.orchestration.keyspace import HELD_S, KEPT_S, Keyspace
from midwatch.orchestration.logs import get_logger
from midwatch.orchestration.ports import Dispatcher
from midwatch.orchestration.protocol.reading import explain, guard
from midwatch.orchestration.store.backlog import PLACES, keys_of_new_job
from midwatch.orchestration.store.earlier_keys import move_earlier_keys
from midwatch.orchestration.store.records import spec
from midwatch.orchestration.store.script_calls import begin_work
from midwatch.orchestration.store.script_calls.begin_work import EnqueueResult
from midwatch.orchestration.store.scripts import UNAVAILABLE, Scripts, unavailable
from midwatch.schemas.job import NewJob, SessionPolicy
from midwatch.schemas.step import StepRef

log = get_logger("midwatch.store")


def digest_of(text: str) -> str:
    """Return the digest of an input. A repeated request has the same digest."""
    return sha256(text.encode()).hexdigest()


class NewJobs:
    """The part of `ports.Store` that records new jobs."""

    client: redis.Redis
    keys: Keyspace
    scripts: Scripts
    _dispatcher: Dispatcher

    def enqueue(self, job: NewJob, *, on_interrupt: Callable[[str], object] | None = None) -> bool:
        """See `ports.Store.enqueue`. With the policy `interrupt`, `on_interrupt` is called with the job to cancel."""
        job = job.model_copy(update={"session_id": self._bind_session(job)})
        move_earlier_keys(self.client, self.keys, job.session_id, job.job_id)
        call = begin_work.enqueue(
            keys_of_new_job(self.keys, self._dispatcher, job), job=job.job_id, session=job.session_id, priority=job.priority,
            spec=spec(job), input=job.input, digest=digest_of(job.input), max_steps=job.max_steps, timeout_ms=job.timeout_ms,
            max_wait_ms=job.max_wait_ms, max_total_ms=job.max_total_ms, on_busy=job.on_busy,
            message=self._message(job.ref, begun=job.parent is not None), tenant=job.tenant or "", places=PLACES,
        )  # fmt: skip
        result, active_job = guard(
            f"job {job.job_id}, or its session,", lambda: self.scripts.run(call, patience_ms=1_000)
        )
        if result is EnqueueResult.BUSY:
            self._refuse(job, active_job)
        if result is EnqueueResult.QUEUED and job.on_busy is SessionPolicy.INTERRUPT and on_interrupt:
            on_interrupt(active_job)
        if result is EnqueueResult.STARTED:
            self._publish_unless_handed_off((job.ref,), begun=job.parent is not None)
        return result is not EnqueueResult.EXISTS

    def _bind_session(self, job: NewJob) -> str:
        """Bind the job id to a session and return it. The first enqueue decides, so one id never becomes two jobs."""
        pointer = self.keys.job_pointer(job.job_id)
        try:
            known = self.client.set(pointer, job.session_id, nx=True, get=True, ex=HELD_S + KEPT_S)
        except UNAVAILABLE as error:
            raise unavailable(error) from error
        except ResponseError as error:  # the key is of a wrong type
            raise UnreadableRecord(f"the session id of job {job.job_id}", explain(error)) from error
        return known.decode() if isinstance(known, bytes) else job.session_id

    def _refuse(self, job: NewJob, active_job: str) -> None:
        """Raise SessionBusy. A refused job binds its id to no session."""
        self.client.delete(self.keys.job_pointer(job.job_id))
        raise SessionBusy(
            f"session {job.session_id!r} runs job {active_job!r} and the agent's policy is on_busy='reject'; "
            "wait for it, cancel it, or use on_busy='enqueue'"
        )

    def _message(self, ref: StepRef, *, begun: bool = False) -> bytes:
        """The message that a script pushes to hand off the step. Empty if it must not push one."""
        return self._dispatcher.message(ref, begun=begun) if self._dispatcher.hand_off(ref.priority) else b""

    def _publish_unless_handed_off(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        if refs and not self._dispatcher.hand_off(refs[0].priority):
            self._publish(refs, begun=begun)

    def _publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        try:
            self._dispatcher.publish(refs, begun=begun)
        except StoreUnavailable as error:  # recorded as owed: a steward publishes it
            log.warning("publish.failed", steps=len(refs), error=str(error))
