"""Run a step: claim it, work on it, and bring it to one of the five outcomes."""

from __future__ import annotations

import structlog

from midwatch.orchestration.errors import LeaseLost, StoreUnavailable, UnknownAgent
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.steps import endings
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.compaction_step import CompactionStep
from midwatch.orchestration.steps.model_step import ModelStep
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.steps.tool_step import ToolStep
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import Continue, Outcome, StepKind, StepRef

log = structlog.get_logger("midwatch.step")

AGENT_NOT_LOADED = RetryConfig(max_retries=5, base_s=5.0, jitter="none", retry_on=(FailureKind.INTERNAL,))
"""How long a job waits for a worker that has its agent loaded: a rolling deployment takes minutes."""


class StepRunner:
    """Runs steps. One per process; thread-safe."""

    def __init__(self, services: Services) -> None:
        self.services = services

    def run(self, ref: StepRef) -> Outcome | ClaimRefusal:
        """Bring the step to an outcome, or say why there is nothing to do.

        Raises:
            StoreUnavailable: Redis is away. The step stays owed.

        """
        if ref.kind is StepKind.COMPACT:
            return CompactionStep(self.services, ref).run()
        claim = self.services.store.claim(ref, self.services.next_nonce())
        if isinstance(claim, ClaimRefusal):
            return claim
        return self.work_on(claim)

    def work_on(self, claim: Claim) -> Outcome:
        """Work on a claimed step. Only a store that is away raises."""
        attempt = Attempt(self.services, claim)
        try:
            return self._run_step(attempt)
        except LeaseLost:
            log.info("lease.lost", job_id=claim.ref.job_id, step=claim.ref.step)
            return Continue()
        except StoreUnavailable:
            raise
        except Exception as error:  # a dead letter with the error's name; not three lost leases
            log.exception("step.broke", job_id=claim.ref.job_id, step=claim.ref.step)
            detail = f"{type(error).__name__}: {error}"[:500]
            return self._end_broken(attempt, Failure(kind=FailureKind.INTERNAL, detail=detail))
        finally:
            attempt.gated_calls.settle()

    def _run_step(self, attempt: Attempt) -> Outcome:
        if attempt.claim.ending:
            return attempt.end_as_dead_letter(endings.failure_of_ending(attempt.claim))
        try:
            agent = self.services.agents.find(attempt.claim.job.agent)
        except UnknownAgent as error:
            failure = Failure(kind=FailureKind.INTERNAL, detail=str(error))
            return attempt.retry_or_end(AGENT_NOT_LOADED, failure)
        step = ToolStep if attempt.claim.ref.kind is StepKind.TOOL else ModelStep
        return step(attempt, agent).run()

    @staticmethod
    def _end_broken(attempt: Attempt, failure: Failure) -> Outcome:
        try:
            return attempt.end_as_dead_letter(failure)
        except LeaseLost:
            return Continue()
