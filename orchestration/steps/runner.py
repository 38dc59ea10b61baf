"""Run a step: claim it, work on it, and bring it to one of the five outcomes."""

from __future__ import annotations

import structlog

from midwatch.orchestration.errors import LeaseLost, RecordLost, StoreUnavailable, UnknownAgent, UnreadableRecord
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.passwords import hide_passwords
from midwatch.orchestration.protocol.reading import explain
from midwatch.orchestration.protocol.store_replies import SetAside
from midwatch.orchestration.steps import endings
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.compaction.compaction_step import CompactionStep
from midwatch.orchestration.steps.losses.report import log_new_loss
from midwatch.orchestration.steps.losses.suspects import handle_losses
from midwatch.orchestration.steps.model_step import ModelStep
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.steps.tool_step import ToolStep
from midwatch.orchestration.steps.trace import bind_trace
from midwatch.orchestration.store.damage.burying import failure_of_loss
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import Continue, DeadLetter, Defer, Outcome, StepKind, StepRef, WaitOwner

log = structlog.get_logger("midwatch.step")

AGENT_NOT_LOADED = RetryConfig(max_retries=5, base_s=5.0, jitter="none", retry_on=(FailureKind.INTERNAL,))
"""How long a job waits for a worker that has loaded its agent: a rolling deployment takes minutes."""

UNREADABLE_TRIES, UNREADABLE_WAIT_MS = 30, 2_000
"""How often, and at what interval, a step is put back for other workers when this one can't read its records. If one worker
in ten can read them, 30 tries reach one with a probability of 96 %. After these tries, which take a minute, the step becomes
a dead letter."""


class StepRunner:
    """Runs steps. One per process; thread-safe."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def run(self, ref: StepRef, nonce: str = "") -> Outcome | ClaimRefusal:
        """Run the step to an outcome, or return why its claim was refused.

        Args:
            ref: The step.
            nonce: Of a claim that another process has made for this one. By default the step is claimed anew.

        Raises:
            StoreUnavailable: Redis can't be reached. The step stays owed.

        """
        if ref.kind is StepKind.COMPACT:
            return CompactionStep(self.services, ref).run()
        nonce = nonce or self.services.next_nonce()
        self.services.look_at_data()
        try:
            claim = self.services.store.claim(ref, nonce)
        except StoreUnavailable:
            raise
        except RecordLost as error:
            return self._bury(ref, error)
        except Exception as error:
            return self._set_aside(ref, nonce, f"its records can't be read: {explain(error)}")
        if isinstance(claim, ClaimRefusal):
            return claim
        bind_trace(claim.job)
        return self.work_on(claim)

    def work_on(self, claim: Claim) -> Outcome:
        """Work on a claimed step. Raises only StoreUnavailable."""
        attempt = Attempt(self.services, claim)
        try:
            return self._run_step(attempt)
        except LeaseLost:
            log.info("lease.lost", job_id=claim.ref.job_id, step=claim.ref.step)
            self._look_at_data()
            attempt.bill_if_possible()
            return Continue()
        except StoreUnavailable:
            raise
        except RecordLost as error:
            return self._bury(claim.ref, error)
        except UnreadableRecord as error:
            attempt.bill_if_possible()
            return self._set_aside(claim.ref, claim.nonce, str(error))
        except Exception as error:  # end the job here: if the error were raised, three leases would be lost first
            log.exception("step.broke", job_id=claim.ref.job_id, step=claim.ref.step)
            return self._end_broken(attempt, hide_passwords(f"{type(error).__name__}: {error}")[:500])
        finally:
            attempt.gated_calls.settle()

    def _look_at_data(self) -> None:
        """The server does not know this claim. Another worker has the step, or the data are lost."""
        try:
            self.services.look_at_data(now=True)
        except StoreUnavailable as error:
            log.debug("data.not_looked_at", error=str(error)[:200])

    def _run_step(self, attempt: Attempt) -> Outcome:
        if attempt.claim.losses:
            log_new_loss(attempt.claim)
        if attempt.claim.ending:
            attempt.leave_line()
            return attempt.end_as_dead_letter(endings.failure_of_ending(attempt.claim))
        try:
            agent = self.services.agents.find(attempt.claim.job.agent)
        except UnknownAgent as error:
            failure = Failure(kind=FailureKind.INTERNAL, detail=str(error))
            return attempt.retry_or_end(AGENT_NOT_LOADED, failure, owner=WaitOwner.WORKERS)
        if attempt.claim.losses and (outcome := handle_losses(attempt, agent)):
            return outcome
        step = ToolStep if attempt.claim.ref.kind is StepKind.TOOL else ModelStep
        return step(attempt, agent).run()

    def _end_broken(self, attempt: Attempt, detail: str) -> Outcome:
        try:
            return attempt.end_as_dead_letter(Failure(kind=FailureKind.INTERNAL, detail=detail))
        except LeaseLost:
            return Continue()
        except StoreUnavailable:
            raise
        except Exception as error:  # the usual script can't write the dead letter: the job's keys are damaged
            log.error("step.not_ended", job_id=attempt.claim.ref.job_id, error=type(error).__name__)
            return self._set_aside(attempt.claim.ref, attempt.claim.nonce, detail, max_tries=1)

    def _bury(self, ref: StepRef, lost: RecordLost) -> Outcome:
        """End a job that has lost a record: no other worker can find it."""
        log.error("record.lost", job_id=ref.job_id, step=ref.step, session_id=ref.session_id, lost=lost.what)
        try:
            result = self.services.store.bury(ref, lost, worker=self.services.worker)
        except StoreUnavailable:
            raise
        except Exception as error:
            return self._set_aside(ref, "", f"{lost}: {explain(error)}")
        return DeadLetter(failure=failure_of_loss(lost)) if result is SetAside.BURIED else Continue()

    def _set_aside(self, ref: StepRef, nonce: str, detail: str, *, max_tries: int = UNREADABLE_TRIES) -> Outcome:
        """Leave a step to a worker that can read its records, or make it a dead letter after `max_tries`."""
        failure = Failure(kind=FailureKind.INTERNAL, detail=detail)
        try:
            result = self.services.store.set_aside(
                ref, nonce, failure, worker=self.services.worker, max_tries=max_tries, wait_ms=UNREADABLE_WAIT_MS
            )
        except StoreUnavailable:
            raise
        except Exception as error:  # this worker's user may not run scripts: the step stays owed, for another worker
            log.error("step.not_set_aside", job_id=ref.job_id, step=ref.step, why=detail, error=explain(error))
            return Continue()
        log.warning("step.set_aside", job_id=ref.job_id, step=ref.step, why=detail, result=result.value)
        match result:
            case SetAside.BURIED:
                return DeadLetter(failure=failure)
            case SetAside.LEFT:
                return Defer(after_ms=UNREADABLE_WAIT_MS, reason=detail, counts_as_attempt=False, failure=failure)
            case _:
                return Continue()
