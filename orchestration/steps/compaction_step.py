"""A compaction as its own task: find the agent, compact the session, log the result."""

from __future__ import annotations

import structlog

from midwatch.orchestration.errors import NotFound, StoreUnavailable, UnknownAgent
from midwatch.orchestration.steps.compactor import Compacted, Compactor
from midwatch.orchestration.steps.services import Services
from midwatch.schemas.step import Continue, Outcome, StepRef

log = structlog.get_logger("midwatch.compaction")


class CompactionStep:
    """Compacts the session of `ref`, beside its job. It holds the session's lock and no claim."""

    def __init__(self, services: Services, ref: StepRef) -> None:
        self.services = services
        self.ref = ref

    def run(self) -> Outcome:
        """Compact, and continue in any case: when a compaction fails, the next turn requests it again.

        Raises:
            StoreUnavailable: Redis is away.

        """
        ref = self.ref
        try:
            result = self.compact()
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("compaction.broke", session_id=ref.session_id, job_id=ref.job_id)
        else:
            log.debug("compaction.ended", session_id=ref.session_id, job_id=ref.job_id, result=result.value)
        return Continue()

    def compact(self) -> Compacted:
        """Compact if there is a reason to. Turn 0 means that an operator wants it: then the fill does not matter."""
        ref, services = self.ref, self.services
        try:
            agent = services.agents.find(services.store.job(ref.job_id).agent)
        except (NotFound, UnknownAgent) as error:  # its job's retention is over, or its agent is on other workers
            log.warning("compaction.skipped", session_id=ref.session_id, job_id=ref.job_id, error=str(error)[:300])
            return Compacted.NOTHING
        is_operators = ref.turn == 0
        return Compactor(services.store, services.model, services.gate).run(
            ref,
            agent,
            services.next_nonce(),
            job_id="" if is_operators else ref.job_id,
            above=0.0 if is_operators else agent.context_budget.shrink_to,
        )
