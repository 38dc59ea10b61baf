"""A compaction as its own task: find the agent, compact the session, log the result."""

from __future__ import annotations

import structlog

from midwatch.orchestration.errors import NotFound, StoreUnavailable, UnknownAgent, UnreadableRecord, WrongSession
from midwatch.orchestration.protocol.claims import ClaimRefusal
from midwatch.orchestration.steps.compaction.compactor import Compacted, Compactor
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.steps.trace import bind_trace
from midwatch.schemas.step import Continue, Outcome, StepRef

log = structlog.get_logger("midwatch.compaction")


class CompactionStep:
    """Compacts the session of `ref` while its job goes on. It holds the session's lock, but no claim."""

    def __init__(self, services: Services, ref: StepRef) -> None:
        self.services = services
        self.ref = ref

    def run(self) -> Outcome | ClaimRefusal:
        """Compact the session. The outcome is always `Continue`: if the compaction fails, the next turn requests another one.

        The refusal is `WRONG_SESSION`, if the job of the message belongs to another session.

        Raises:
            StoreUnavailable: Redis can't be reached.

        """
        ref = self.ref
        try:
            result = self.compact()
        except StoreUnavailable:
            raise
        except WrongSession:
            return ClaimRefusal.WRONG_SESSION
        except UnreadableRecord as error:
            log.warning("compaction.skipped", session_id=ref.session_id, job_id=ref.job_id, error=str(error))
        except Exception:
            log.exception("compaction.broke", session_id=ref.session_id, job_id=ref.job_id)
        else:
            log.debug("compaction.ended", session_id=ref.session_id, job_id=ref.job_id, result=result.value)
        return Continue()

    def compact(self) -> Compacted:
        """Compact the session if it is too full. Turn 0 means that an operator requested it: then the fill does not matter.

        The last answer of a job requests a compaction too. The session may run its next job by then, so the compaction does
        not require that the requesting job is the active one.
        """
        ref, services = self.ref, self.services
        try:
            job = services.store.job(ref.job_id)
            if job.session_id != ref.session_id:
                raise WrongSession(f"job {ref.job_id!r} belongs to another session than {ref.session_id!r}")
            bind_trace(job)
            agent = services.agents.find(job.agent)
        except (NotFound, UnknownAgent) as error:  # the job's record has expired, or only other workers have its agent
            log.warning("compaction.skipped", session_id=ref.session_id, job_id=ref.job_id, error=str(error)[:300])
            return Compacted.NOTHING
        is_operators = ref.turn == 0
        return Compactor(services.store, services.model, services.gate, services.estimator).run(
            ref,
            agent,
            services.next_nonce(),
            job_id="" if is_operators or job.status.ended else ref.job_id,
            above=0.0 if is_operators else agent.context_budget.shrink_to,
        )
