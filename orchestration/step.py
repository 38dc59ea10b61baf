"""One step, top to bottom: claim, admit, context, model, settle, validate, commit; or claim, validate, run, commit."""

from __future__ import annotations

import itertools
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from orchestration import context, endings, retry, turn
from orchestration.admission.call import Call, Report, Settlement
from orchestration.agent import Agent
from orchestration.children import orphaned
from orchestration.commits import Claim, Ending, TurnCommit, Verdict
from orchestration.errors import LeaseLost, ModelError, StoreUnavailable, UnknownAgent
from orchestration.gatedcalls import model_call
from orchestration.inlinecalls import run_inline
from orchestration.leases import LeaseKeeper
from orchestration.ports import Clock, Gate, Model, Store
from orchestration.registry import Registry
from orchestration.results import answer_page
from orchestration.toolstep import ToolStep
from orchestration.tracing import record
from schemas.failure import Failure, FailureKind
from schemas.job import JobStatus
from schemas.model import ModelReply, ModelRequest
from schemas.policy import RetryConfig
from schemas.step import Complete, Continue, DeadLetter, Defer, Outcome, StepKind, StepRef
from schemas.trace import TraceRecord

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
    _life: str = field(default_factory=lambda: secrets.token_hex(4))
    """Makes nonces unlike those of an earlier process: in a container host name and pid come back after a crash, and a
    nonce that came back with them would pass a dead worker's claim off as our own."""
    _nonces: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, ref: StepRef) -> Outcome | Verdict:
        """Claim the step and bring it to one of the five outcomes; or say why there is nothing to do.

        Raises:
            StoreUnavailable: Redis is away. The step stays owed.

        """
        claim = self.store.claim(ref, f"{self.worker}.{self._life}.{next(self._nonces)}")
        if isinstance(claim, Verdict):
            return claim
        return Attempt(self, claim).run()


class Attempt:
    """One attempt at one step."""

    def __init__(self, runner: StepRunner, claim: Claim) -> None:
        self.r = runner
        self.claim = claim
        self.settled = Settlement()
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

    def work(self) -> Outcome:
        """The step itself. What nobody foresaw is a dead letter with its name, not a lease that runs out thrice."""
        try:
            agent = self.r.agents.find(self.claim.job.agent)
            if self.claim.ref.kind is StepKind.TOOL:
                return ToolStep(self, agent).run()
            return self.model_turn(agent)
        except UnknownAgent as error:
            return self.failed(NOT_LOADED, Failure(kind=FailureKind.INTERNAL, detail=str(error)))
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception as error:
            log.exception("step.broke", job_id=self.claim.ref.job_id, step=self.claim.ref.step)
            return self.dead(Failure(kind=FailureKind.INTERNAL, detail=f"{type(error).__name__}: {error}"[:500]))

    def model_turn(self, agent: Agent) -> Outcome:
        """Ask the model once."""
        claim, store = self.claim, self.r.store
        if not claim.job.agent_version:
            store.set_limits(
                claim,
                agent_version=agent.version,
                max_steps=agent.limits.max_steps,
                timeout_ms=int(agent.limits.session_timeout_s * 1000),
            )
        if orphaned(store, claim.job):
            self.claim = replace(claim, ending="cancelled")
            return self.dead(Failure(kind=FailureKind.CANCELLED, detail="the job that asked for this one is over"))
        if spent := endings.over_budget(agent, claim):
            return self.dead(spent)
        try:
            request = context.assemble(agent, claim)
        except ModelError as error:
            return self.failed(agent.retry_config, error.failure)
        call = model_call(agent, claim, request)
        if refusal := self.r.gate.admit(call):
            return self.refused(refusal)
        with self.r.leases.hold(claim, call.lasts_ms):
            reply = self.ask(agent, request, call)
        if isinstance(reply, Failure):
            return self.failed(agent.retry_config, reply)
        return self.commit(agent, reply)

    def ask(self, agent: Agent, request: ModelRequest, call: Call) -> ModelReply | Failure:
        """The call itself, settled with the coordinator whatever comes of it."""
        try:
            reply = self.r.model(agent.model.provider).complete(request)
        except ModelError as error:
            self.settled = self.r.gate.settle(
                call, Report(failure=error.failure, sent=error.sent, headers=error.ratelimit)
            )
            return error.failure
        except Exception as error:  # a provider broke its promise: what it reserved must not stay reserved
            failure = Failure(kind=FailureKind.INTERNAL, detail=type(error).__name__)
            self.r.gate.settle(call, Report(failure=failure))
            raise
        self.r.gate.settle(call, Report(usage=reply.usage, headers=reply.ratelimit or {}, latency_ms=reply.latency_ms))
        return reply

    def refused(self, refusal: Defer | Failure) -> Outcome:
        """The coordinator did not admit the call: for now, or for good."""
        return self.deferred(refusal) if isinstance(refusal, Defer) else self.dead(refusal)

    def commit(self, agent: Agent, reply: ModelReply) -> Outcome:
        """Make the reply the truth, then run what it called inline."""
        claim, store = self.claim, self.r.store
        read = turn.read(agent, claim, reply)
        if read.failure:
            return self.failed(agent.retry_config, read.failure, reply)
        if read.output is not None:
            ending = Ending(JobStatus.COMPLETED, read.output, messages=(read.assistant,), usage=reply.usage)
            return self.finish(ending, Complete(output=read.output), reply)
        pages = [answer_page(store, claim, reply, call) for call in read.pages]
        owed = tuple(claim.ref.call(row.ordinal) for row in read.calls if not row.started)
        outcome = Continue(next=owed if read.calls else (claim.ref.model_turn(claim.ref.turn + 1),))
        trace = self.trace(outcome, reply, invalid=tuple(read.invalid))
        done = store.commit_turn(
            claim,
            TurnCommit(
                messages=(read.assistant, *read.answers, *pages),
                calls=tuple(read.calls),
                usage=reply.usage,
                trace=trace,
                tool_calls=len(read.calls),
                invalid_calls=len(read.invalid),
                children=read.children,
            ),
        )
        if done is False:
            raise LeaseLost
        self.r.observe(claim, trace, outcome)
        if read.inline and done:
            run_inline(self, agent, read.inline)
        return outcome

    def failed(self, config: RetryConfig, failure: Failure, reply: ModelReply | None = None) -> Outcome:
        """Put it back with a wait, or make it a dead letter."""
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
        if not self.r.store.finish(self.claim, ending, trace):
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
            span_ms=(self.started_ms, self.now_ms()),
        )  # fmt: skip
