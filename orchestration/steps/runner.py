"""One step, top to bottom: claim, admit, context, model, settle, validate, commit; or claim, validate, run, commit."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog

from midwatch.orchestration.agents.registry import Registry
from midwatch.orchestration.drift.breaker import DriftBreaker
from midwatch.orchestration.errors import LeaseLost, NotFound, StoreUnavailable, UnknownAgent
from midwatch.orchestration.ports import Clock, Gate, Model, Piggyback, Store
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.calls import Call, Report, Settlement
from midwatch.orchestration.protocol.claims import Claim, ClaimRefusal
from midwatch.orchestration.protocol.commits import Ending
from midwatch.orchestration.steps import endings, retry
from midwatch.orchestration.steps.compaction_step import Compacted, Compactor
from midwatch.orchestration.steps.leases import LeaseKeeper
from midwatch.orchestration.steps.model_step import ModelStep
from midwatch.orchestration.steps.tool_step import ToolStep
from midwatch.orchestration.steps.trace import record
from midwatch.orchestration.tokens.estimate import Estimator
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.model import ModelReply
from midwatch.schemas.policy import RetryConfig
from midwatch.schemas.step import Continue, DeadLetter, Defer, Outcome, Park, StepKind, StepRef
from midwatch.schemas.trace import TraceRecord

log = structlog.get_logger("midwatch.step")

NOT_LOADED = RetryConfig(max_retries=5, base_s=5.0, jitter="none", retry_on=(FailureKind.INTERNAL,))
"""How long a job waits for a worker that has its agent loaded: a rolling deployment takes minutes."""


@dataclass
class StepRunner:
    """Runs steps. One per process; thread-safe, because all that changes is behind the ports."""

    store: Store
    agents: Registry
    model: Callable[[str], Model]
    """The provider of a name."""
    gate: Gate
    leases: LeaseKeeper
    clock: Clock
    worker: str
    rng: random.Random = field(default_factory=random.Random)
    observe: Callable[[Claim, TraceRecord, Outcome], None] = lambda claim, trace, outcome: None
    compact_beside: Callable[[StepRef], object] = lambda ref: None
    """Publishes a compaction: a hint, given again at the next turn when it was lost."""
    estimator: Estimator = field(default_factory=Estimator)
    not_strict: set[tuple[str, str]] = field(default_factory=set)
    """Agents (by version) and models whose provider refused a strict form: it is not sent again."""
    _life: str = field(default_factory=lambda: secrets.token_hex(4))
    """Makes nonces unlike those of an earlier process: in a container host name and pid come back after a crash, and a
    nonce that came back with them would pass a dead worker's claim off as our own."""
    _nonces: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.compactor = Compactor(self.store, self.model, self.gate)
        self.drift = DriftBreaker(self.store.drift_counters, self.clock.monotonic_ms)

    def compact(self, ref: StepRef) -> Compacted:
        """A compaction as a task of its own, beside the job of `ref`.

        Raises:
            StoreUnavailable: Redis is away. The next turn asks for it again.

        """
        try:
            agent = self.agents.find(self.store.job(ref.job_id).agent)
        except (NotFound, UnknownAgent) as error:  # its job is over for good, or its agent is on other workers
            log.warning("compaction.skipped", session_id=ref.session_id, job_id=ref.job_id, error=str(error)[:300])
            return Compacted.NOTHING
        nonce = f"{self.worker}.{self._life}.{next(self._nonces)}"
        wanted = ref.turn == 0  # by an operator, whatever the fill and whoever has the session
        above = 0.0 if wanted else agent.context_budget.shrink_to
        return self.compactor.run(ref, agent, nonce, job_id="" if wanted else ref.job_id, above=above)

    def run(self, ref: StepRef) -> Outcome | ClaimRefusal:
        """Claim the step and bring it to one of the five outcomes; or say why there is nothing to do.

        Raises:
            StoreUnavailable: Redis is away. The step stays owed.

        """
        claim = self.store.claim(ref, f"{self.worker}.{self._life}.{next(self._nonces)}")
        if isinstance(claim, ClaimRefusal):
            return claim
        return Attempt(self, claim).run()


class Attempt:
    """One attempt at one step."""

    def __init__(self, runner: StepRunner, claim: Claim) -> None:
        self.r = runner
        self.claim = claim
        self.unsettled: tuple[Call, Report] | None = None
        """A call that went well, of which the coordinator has not been told."""
        self.settled = Settlement()
        self.anchor: Anchor | None = None
        self.drift: tuple[str, ...] = ()
        """What the fleet counts of this turn: see `drift`."""
        self.asked = ""
        """How the model was asked otherwise than usual: see `ladder`."""
        self.begin(claim.now_ms)

    def begin(self, now_ms: int) -> None:
        """The work begins now, which is `now_ms` on the server."""
        self.started_ms = now_ms
        self.began_ms = self.r.clock.monotonic_ms()

    def run(self) -> Outcome:
        """Never raises for what the step did; only for a store that is away."""
        try:
            if self.claim.ending:
                return self.dead(endings.forced(self.claim))
            return self.work()
        except LeaseLost:
            log.info("lease.lost", job_id=self.claim.ref.job_id, step=self.claim.ref.step)
            return Continue()
        finally:
            self.settle()  # no commit took it along

    def work(self) -> Outcome:
        """The step itself. What nobody foresaw is a dead letter with its name, not a lease that runs out thrice."""
        try:
            agent = self.r.agents.find(self.claim.job.agent)
            if self.claim.ref.kind is StepKind.TOOL:
                return ToolStep(self, agent).run()
            return ModelStep(self, agent).run()
        except UnknownAgent as error:
            return self.failed(NOT_LOADED, Failure(kind=FailureKind.INTERNAL, detail=str(error)))
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception as error:
            log.exception("step.broke", job_id=self.claim.ref.job_id, step=self.claim.ref.step)
            return self.dead(Failure(kind=FailureKind.INTERNAL, detail=f"{type(error).__name__}: {error}"[:500]))

    def admit(self, call: Call) -> Defer | Failure | None:
        """Ask the coordinator. A step makes one call at a time: of the last one it is told first."""
        self.settle()
        return self.r.gate.admit(call)

    def report(self, call: Call, report: Report) -> None:
        """What became of an admitted call. Of a failure the coordinator is told now: its answer decides how to go on."""
        self.unsettled = (call, report)
        if report.failure:
            self.settle()

    def settle(self) -> None:
        """Tell the coordinator what it has not been told."""
        told, self.unsettled = self.unsettled, None
        if told:
            self.settled = self.r.gate.settle(*told)

    @contextmanager
    def along(self) -> Iterator[Piggyback | None]:
        """The same, for the commit in this block to take along. One that breaks may not have: then it is told by itself."""
        yield self.r.gate.settling(*self.unsettled) if self.unsettled else None
        self.unsettled = None

    def refused(self, refusal: Defer | Failure) -> Outcome:
        """The coordinator did not admit the call: for now, or for good."""
        return self.deferred(refusal) if isinstance(refusal, Defer) else self.dead(refusal)

    def parked(self, park: Park) -> Outcome:
        """A human decides how the job goes on."""
        trace = self.trace(park, reason=park.reason)
        if not self.r.store.park(self.claim, park, trace):
            raise LeaseLost
        self.r.observe(self.claim, trace, park)
        return park

    def failed(self, config: RetryConfig, failure: Failure, reply: ModelReply | None = None) -> Outcome:
        """Put it back with a wait, or make it a dead letter."""
        self.settle()
        decision = retry.decide(config, failure, self.claim.attempt, self.r.rng, self.settled)
        return self.deferred(decision) if isinstance(decision, Defer) else self.dead(failure, reply)

    def deferred(self, defer: Defer) -> Outcome:
        """Not now: the steward brings it back."""
        trace = self.trace(defer, failure=defer.failure, reason=defer.reason)
        if not self.r.store.defer(self.claim, defer, trace):
            raise LeaseLost
        self.r.observe(self.claim, trace, defer)
        return defer

    def dead(self, failure: Failure, reply: ModelReply | None = None) -> Outcome:
        """End the job around this step."""
        tries = endings.tries_of(self.r.store.trace(self.claim.ref), self.claim.ref.step)
        ending = endings.ending(self.claim, failure, dead_ms=self.now_ms(), worker=self.r.worker, tries=tries)
        if reply:  # refused, or not acceptable, but paid for
            ending = replace(ending, usage=reply.usage)
        return self.finish(ending, DeadLetter(failure=failure), reply)

    def finish(self, ending: Ending, outcome: Outcome, reply: ModelReply | None = None) -> Outcome:
        """Make the ending the truth."""
        word = outcome.kind if ending.status in (JobStatus.COMPLETED, JobStatus.DEAD_LETTERED) else ending.status.value
        trace = self.trace(outcome, reply, failure=ending.failure, word=word)
        with self.along() as along:
            done = self.r.store.finish(self.claim, replace(ending, drift=self.drift), trace, along)
        if not done:
            raise LeaseLost
        self.r.observe(self.claim, trace, outcome)
        return outcome

    def now_ms(self) -> int:
        """The server's time of the claim plus what has passed here since: no clock of this machine in it."""
        return self.started_ms + self.r.clock.monotonic_ms() - self.began_ms

    def trace(
        self,
        outcome: Outcome,
        reply: ModelReply | None = None,
        *,
        failure: Failure | None = None,
        reason: str = "",
        invalid: tuple[str, ...] = (),
        word: str = "",
    ) -> TraceRecord:
        """This attempt's record."""
        return record(
            self.claim, outcome, reply, failure=failure, reason=reason, invalid=invalid, word=word, worker=self.r.worker,
            span_ms=(self.started_ms, self.now_ms()), asked=self.asked,
        )  # fmt: skip
