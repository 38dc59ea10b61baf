"""A model turn: make room, ask the gate, call the model, read the reply, commit; then run its inline calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.client.new_job import times_of
from midwatch.orchestration.context import window
from midwatch.orchestration.drift import counts, ladder
from midwatch.orchestration.drift.opaque_refusals import describe_changes, drops_opaque
from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.claims import ClaimRefusal
from midwatch.orchestration.protocol.commits import Ending, TurnCommit
from midwatch.orchestration.protocol.lineage import bounds_of
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.steps.attempt import Attempt
from midwatch.orchestration.steps.call_limits import reserve_calls
from midwatch.orchestration.steps.child_jobs import end_orphan
from midwatch.orchestration.steps.endings import failure_of_ending, find_spent_budget
from midwatch.orchestration.steps.gated_calls import call_model, model_call
from midwatch.orchestration.steps.inline_calls import answer_page, run_inline_calls
from midwatch.orchestration.steps.make_room import estimate_tokens, has_little_room, has_successors, make_room
from midwatch.orchestration.steps.questions import end_if_rejected, make_question
from midwatch.orchestration.steps.read_reply import ReadReply, drift_fields, read_reply
from midwatch.schemas.decision import ParkReason
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolMessage
from midwatch.schemas.model import ModelReply, Stop, Usage
from midwatch.schemas.step import Complete, Continue, Outcome
from midwatch.schemas.trace import TraceRecord

log = structlog.get_logger("midwatch.step")


class ModelStep:
    """Runs one model turn."""

    def __init__(self, attempt: Attempt, agent: Agent) -> None:
        self.attempt = attempt
        self.services = attempt.services
        self.agent = agent
        self.anchor: Anchor | None = None
        """The provider's token count of this call, for the next estimate."""
        self.estimated_tokens = 0
        self.offer = ladder.usual_offer(agent)
        """The model and the tools of the request."""
        self.opaque_sent_to = ""
        """The server, if the last call failed and held opaque parts of earlier turns."""
        self.opaque_counters: tuple[str, ...] = ()
        """The counter that tells the fleet that this server refuses opaque parts."""

    def run(self) -> Outcome:
        """Call the model. Call it again if the request was too long, or if the provider refused a part of it."""
        if ended := self.check_limits() or end_if_rejected(self.attempt) or make_room(self.attempt, self.agent):
            return ended
        reply = self.ask_model()
        if isinstance(reply, Failure) and reply.kind is FailureKind.CONTEXT_OVERFLOW:
            self.correct_estimate()
            if ended := make_room(self.attempt, self.agent, overflowed=True):
                return ended
            reply = self.ask_model()
        if isinstance(reply, Failure) and self.opaque_sent_to:
            reply = self.ask_without_opaque(reply)
        if isinstance(reply, Failure) and reply.is_refused_request and self.offer.strict:
            self.give_up_strict(reply)
            reply = self.ask_model()
        if isinstance(reply, Failure):
            return self.attempt.retry_or_end(self.agent.retry_config, reply)
        return self.end(reply) if isinstance(reply, ModelReply) else reply

    def check_limits(self) -> Outcome | None:
        """End a job whose parent has ended or whose token limit is reached. At its first turn, set its agent's limits."""
        attempt, claim, limits = self.attempt, self.attempt.claim, self.agent.limits
        if not claim.job.agent_version:
            self.services.store.set_limits(
                claim,
                agent_version=self.agent.version,
                max_steps=limits.max_steps,
                bounds=bounds_of(limits, claim.job.granted_steps),
                **times_of(limits, claim.job),
            )
            again = self.services.store.claim(claim.ref, claim.nonce)  # its own limits may have passed
            if isinstance(again, ClaimRefusal):
                raise LeaseLost
            attempt.claim = claim = again
            if claim.ending:
                return attempt.end_as_dead_letter(failure_of_ending(claim))
        if ended := end_orphan(attempt):
            return ended
        if spent := find_spent_budget(self.agent, claim):
            return attempt.end_as_dead_letter(spent)
        return None

    def ask_model(self) -> ModelReply | Failure | Outcome:
        """Ask the gate, then call the model. An outcome means that the gate did not admit the call."""
        attempt, agent, claim = self.attempt, self.agent, self.attempt.claim
        self.offer = self.choose_offer()
        refused_by = self.services.opaque.servers(str(self.offer.model), claim.ref.session_id)
        request = window.assemble(agent, claim, self.offer).model_copy(update={"opaque_refused_by": refused_by})
        attempt.changed_request = describe_changes(self.offer.changes, is_without_opaque=drops_opaque(request))
        self.estimated_tokens = estimate_tokens(attempt, agent)
        call = model_call(agent, claim, request, self.estimated_tokens, self.offer.model)
        if refusal := attempt.gated_calls.admit(call):
            return attempt.turn_back(refusal)
        provider = self.offer.model.provider
        with self.services.leases.hold(claim, call.lasts_ms) as hold:
            attempt.require_lease(hold)
            weight, model, gate = window.weight_of(agent, claim), self.services.model, self.services.gate
            reply, report = call_model(lambda: model(provider), request, gate, call, weight, claim.anchor)
            attempt.gated_calls.report(call, report)
        self.opaque_sent_to = report.opaque_sent_to
        if isinstance(reply, Failure):
            return reply
        attempt.take_reply(reply)
        self.learn_tokens(reply, is_wrong=report.is_usage_wrong)
        if reply.stop is Stop.CONTEXT_FULL:
            attempt.gated_calls.settle()  # before making room, which may take long
            return Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail="the model's window is full")
        return reply

    def ask_without_opaque(self, refused: Failure) -> ModelReply | Failure | Outcome:
        """Call the model once more without opaque parts of earlier turns, if the provider may have refused them."""
        model, server, session_id = str(self.offer.model), self.opaque_sent_to, self.attempt.claim.ref.session_id
        if not self.services.opaque.suspect(session_id, server, refused):
            return refused
        reply = self.ask_model()
        if isinstance(reply, ModelReply):
            log.warning("opaque.refused", model=model, server=server, detail=refused.detail[:300])
            self.services.opaque.confirm(model, server)
            self.opaque_counters = (counts.opaque_field(model, server),)
            self.attempt.changed_request = describe_changes(self.offer.changes, is_without_opaque=True)
        elif isinstance(reply, Failure) and reply.kind is FailureKind.FORMAT_ERROR:
            self.services.opaque.clear(session_id)
            detail = f"{refused.detail} (and without opaque parts of earlier turns: {reply.detail})"
            return refused if reply.detail == refused.detail else refused.model_copy(update={"detail": detail})
        return reply

    def choose_offer(self) -> ladder.Offer:
        """Choose the request's model and tools: the usual ones, or those of the ladder after refused calls."""
        streak = ladder.find_streak(self.agent, self.attempt.claim.log)
        drifting = self.services.drift.open_tools(str(self.agent.model))
        return ladder.make_offer(self.agent, streak, drifting, not_strict=self.services.not_strict)

    def correct_estimate(self) -> None:
        """Correct the estimator: the request was too long, although the estimate said that it fits."""
        self.services.estimator.correct(str(self.agent.model), window.weight_of(self.agent, self.attempt.claim), None)

    def give_up_strict(self, failure: Failure) -> None:
        """Remember that the provider refuses these strict schemas, for example because their grammar is too large."""
        model = str(self.offer.model)
        log.warning("ladder.strict_refused", agent=self.agent.name, model=model, detail=failure.detail[:300])
        self.services.not_strict.add((self.agent.version, model))

    def learn_tokens(self, reply: ModelReply, *, is_wrong: bool) -> None:
        """Keep the provider's count as the anchor of the next estimate. Keep no count of a server that counts wrongly."""
        tokens, model, estimator = reply.usage.input_tokens, str(self.offer.model), self.services.estimator
        if is_wrong:
            estimator.forget(model)
            self.anchor = Anchor(0, 0, model)
        elif reply.usage.reported and tokens > 0:
            weight = window.weight_of(self.agent, self.attempt.claim)
            estimator.learn(model, weight, tokens, self.attempt.claim.anchor)
            self.anchor = Anchor(weight, tokens, model)

    def end(self, reply: ModelReply) -> Outcome:
        """Read the reply: an answer completes the job, a failure ends or parks it, anything else is committed as a turn."""
        attempt, agent = self.attempt, self.agent
        read = read_reply(agent, attempt.claim, reply, self.offer.model)
        tokens = reply.usage.input_tokens or self.estimated_tokens
        attempt.refused = tuple(read.invalid)
        drift = drift_fields(agent, attempt.claim, read, reply, model=str(self.offer.model), tokens=tokens)
        attempt.drift = (*drift, *self.opaque_counters)
        if read.failure and read.refusals:  # the end of the ladder: a retry would ask the same question again
            for one in read.refusals:
                if agent.asks_human("repeated_failure", one.tool):
                    question = make_question(agent, ParkReason.REPEATED_FAILURE, read.failure.detail, one.tool)
                    return attempt.park(question)
            return attempt.end_as_dead_letter(read.failure)
        if read.failure:
            return attempt.retry_or_end(agent.retry_config, read.failure)
        if read.output is not None:
            messages = (read.assistant,)
            ending = Ending(JobStatus.COMPLETED, read.output, messages=messages, anchor=self.anchor)
            outcome = attempt.finish(ending, Complete(output=read.output))
            if has_successors(attempt.claim.job):
                self.request_compaction_if_full(reply)
            return outcome
        return self.commit_turn(read, reply)

    def commit_turn(self, read: ReadReply, reply: ModelReply) -> Outcome:
        """Commit the turn, then run its inline calls."""
        attempt, services = self.attempt, self.services
        pages = [answer_page(services.store, attempt.claim, reply, call) for call in read.pages]
        committed, trace, outcome = self.try_commit(read, pages)
        if committed is TurnCommitted.ADOPTED:
            adopted = services.store.job(attempt.claim.ref.job_id).adopted
            attempt.claim = replace(attempt.claim, job=attempt.claim.job.model_copy(update={"adopted": adopted}))
            committed, trace, outcome = self.try_commit(read, pages)
        self.request_compaction_if_full(reply)
        services.observe(attempt.claim, trace, outcome)
        if read.inline and committed is TurnCommitted.COMMITTED:
            run_inline_calls(attempt, self.agent, read.inline)
        return outcome

    def try_commit(self, read: ReadReply, pages: Sequence[ToolMessage]) -> tuple[TurnCommitted, TraceRecord, Outcome]:
        """Reserve the turn's calls in its lineage, and commit the turn.

        Raises:
            LeaseLost: another worker has claimed the step.

        """
        attempt, claim, services = self.attempt, self.attempt.claim, self.services
        is_alone = bool(read.calls) and not read.children and not claim.job.shares_limits
        for declined in reserve_calls(services.gate, self.agent, claim, read.calls):
            read.withdraw(declined.row, declined.message, is_child=declined.is_child)
        owed = tuple(claim.ref.call(row.ordinal) for row in read.calls if not row.started)
        outcome = Continue(next=owed if read.calls else (claim.ref.model_turn(claim.ref.turn + 1),))
        attempt.refused = tuple(read.invalid)
        trace = attempt.trace(outcome)
        trace = trace.model_copy(update={"estimated_tokens": self.estimated_tokens})
        commit = TurnCommit(
            messages=(read.assistant, *read.answers, *pages),
            calls=tuple(read.calls),
            usage=attempt.unbilled or Usage(),
            trace=trace,
            tool_calls=len(read.calls),
            invalid_calls=len(read.invalid),
            children=read.children,
            is_alone=is_alone,
            anchor=self.anchor,
            drift=attempt.drift,
        )
        with attempt.gated_calls.settle_with_commit() as settlement:
            committed = services.store.commit_turn(claim, commit, settlement)
        if committed is TurnCommitted.LOST:
            raise LeaseLost
        if committed is not TurnCommitted.ADOPTED:
            attempt.unbilled = None
        return committed, trace, outcome

    def request_compaction_if_full(self, reply: ModelReply) -> None:
        """Let another task compact the session, if the call and its answer exceed `act_at`."""
        if has_little_room(self.agent, reply.usage.input_tokens + reply.usage.output_tokens):
            self.services.request_compaction(self.attempt.claim.ref.compaction())
