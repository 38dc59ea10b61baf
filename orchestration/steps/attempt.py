"""One attempt at a claimed step, and the methods that end it."""

from __future__ import annotations

from dataclasses import replace

import structlog

from midwatch.orchestration.errors import LeaseLost, StoreUnavailable
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.protocol.commits import Bill, Ending
from midwatch.orchestration.steps import endings, retry
from midwatch.orchestration.steps.call_limits import release_calls
from midwatch.orchestration.steps.gated_calls import GatedCalls
from midwatch.orchestration.steps.leases import Hold
from midwatch.orchestration.steps.letter_cause import add_cause
from midwatch.orchestration.steps.losses.report import tries_of_losses
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.steps.trace import make_record
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.model import ModelReply, Usage
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import DeadLetter, Defer, Outcome, Park, WaitOwner
from midwatch.schemas.trace import TraceRecord

log = structlog.get_logger("midwatch.step")


class Attempt:
    """Work on one claimed step. Every method that ends it raises `LeaseLost` if another worker has claimed the step since."""

    def __init__(self, services: Services, claim: Claim) -> None:
        self.services = services
        self.claim = claim
        self.gated_calls = GatedCalls(services.gate)
        self.drift: tuple[str, ...] = ()
        """Names of the drift counters that this turn increments. See `drift.counts`."""
        self.changed_request = ""
        """How the model's request differed from the agent's usual one. See `drift.ladder`."""
        self.refused: tuple[str, ...] = ()
        """The calls of this turn that were refused, as `tool: kind`."""
        self.reply: ModelReply | None = None
        """The model's last reply in this attempt. Its usage is that of all replies."""
        self.unbilled: Usage | None = None
        """The usage of the replies that is not yet added to the job. None: all is added."""
        self.claimed_at_ms = services.clock.monotonic_ms()
        """When the claim's lease began, by this process's clock."""
        self.start_clock(claim.now_ms)

    def start_clock(self, now_ms: int) -> None:
        """Record that the work starts now. `now_ms` is the server's time."""
        self.started_ms = now_ms
        self._started_here_ms = self.services.clock.monotonic_ms()

    def now_ms(self) -> int:
        """The server's time: its time at the start of the work, plus the time that has passed here since."""
        return self.started_ms + self.services.clock.monotonic_ms() - self._started_here_ms

    def take_reply(self, reply: ModelReply) -> None:
        """Note a reply, which was paid for. The attempt must bill it, however it ends."""
        before, unbilled = self.reply, self.unbilled
        self.reply = reply.model_copy(update={"usage": before.usage + reply.usage}) if before else reply
        self.unbilled = unbilled + reply.usage if unbilled else reply.usage

    def bill(self) -> None:
        """Add to the job what this attempt has paid and no commit has carried, even if another worker has the step now."""
        if self.unbilled is None:
            return
        paid_by = f"{self.claim.ref.step}|{self.claim.fence}"
        self.services.store.bill(self.claim.ref, Bill(paid_by, self.unbilled, len(self.refused), self.drift))
        self.unbilled, self.drift = None, ()

    def bill_if_possible(self) -> None:
        """Like `bill`, for a step that is lost or damaged. If the job's records are damaged, its usage stays too low."""
        try:
            self.bill()
        except StoreUnavailable:
            raise
        except Exception as error:
            log.error("usage.not_billed", job_id=self.claim.ref.job_id, error=type(error).__name__)

    def require_lease(self, hold: Hold) -> None:
        """Call this before an effect begins. Raises LeaseLost: another worker may run the same step."""
        if not self.services.leases.has_lease(hold, self.claimed_at_ms):
            raise LeaseLost

    def defer(self, defer: Defer) -> Outcome:
        """Put the step back. A steward publishes it when it is due."""
        self.bill()
        trace = self.trace(defer, failure=defer.failure, reason=defer.reason)
        if not self.services.store.defer(self.claim, defer, trace):
            raise LeaseLost
        self.services.observe(self.claim, trace, defer)
        return defer

    def park(self, park: Park) -> Outcome:
        """Put the step aside until a human decides."""
        self.bill()
        trace = self.trace(park, reason=park.reason)
        if not self.services.store.park(self.claim, park, trace):
            raise LeaseLost
        self.services.observe(self.claim, trace, park)
        return park

    def turn_back(self, refusal: Defer | Failure) -> Outcome:
        """End the attempt after the gate refused its call: defer the step, or make it a dead letter."""
        return self.defer(refusal) if isinstance(refusal, Defer) else self.end_as_dead_letter(refusal)

    def retry_or_end(self, config: RetryConfig, failure: Failure, *, owner: WaitOwner | None = None) -> Outcome:
        """Try again later, or end as a dead letter, as `config` says. `owner` holds the job until then, if it is not the job."""
        self.gated_calls.settle()
        decision = retry.decide(config, failure, self.claim.attempt, self.services.rng, self.gated_calls.settlement)
        if not isinstance(decision, Defer):
            return self.end_as_dead_letter(failure)
        return self.defer(decision.model_copy(update={"owner": owner}) if owner else decision)

    def end_as_dead_letter(self, failure: Failure) -> Outcome:
        """End the job at this step."""
        self.bill_if_possible()
        release_calls(self.services.gate, self.claim)
        failed = endings.earlier_tries(self.services.store.trace(self.claim.ref), self.claim.ref.step)
        tries = tuple(sorted((*failed, *tries_of_losses(self.claim)), key=lambda each: each.at_ms))
        ending = endings.make_ending(
            self.claim, failure, dead_ms=self.now_ms(), worker=self.services.worker, tries=tries
        )
        ending = add_cause(ending, self.services.agents, self.claim.job, self.find_downstream(failure))
        return self.finish(ending, DeadLetter(failure=failure))

    def leave_line(self) -> None:
        """Leave the line of the downstream that held the job. While a downstream is away, each place in its line is a trial."""
        holder = self.claim.job.holder
        if holder and holder.downstream and holder.turn == self.claim.ref.turn:
            self.services.gate.leave_line(self.claim.ref, holder.downstream)

    def find_downstream(self, failure: Failure) -> str | None:
        """The downstream whose call failed, or that held the job too long. None if the failure has to do with no downstream."""
        if failure.kind is FailureKind.WAITED_TOO_LONG:
            holder = self.claim.job.holder
            return holder.downstream if holder and holder.turn == self.claim.ref.turn else None
        return self.gated_calls.failed_downstream

    def finish(self, ending: Ending, outcome: Outcome) -> Outcome:
        """End the job as `ending` says."""
        word = outcome.kind if ending.status in (JobStatus.COMPLETED, JobStatus.DEAD_LETTERED) else ending.status.value
        trace = self.trace(outcome, failure=ending.failure, word=word)
        ending = replace(ending, usage=self.unbilled or Usage(), drift=self.drift)
        with self.gated_calls.settle_with_commit() as settlement:
            committed = self.services.store.finish(self.claim, ending, trace, settlement)
        if not committed:
            raise LeaseLost
        self.unbilled = None
        self.services.observe(self.claim, trace, outcome)
        return outcome

    def trace(
        self,
        outcome: Outcome,
        *,
        failure: Failure | None = None,
        reason: str = "",
        word: str = "",
    ) -> TraceRecord:
        """The record of this attempt."""
        return make_record(
            self.claim, outcome, self.reply, failure=failure, reason=reason, invalid=self.refused, word=word,
            worker=self.services.worker, span_ms=(self.started_ms, self.now_ms()), asked=self.changed_request,
        )  # fmt: skip
