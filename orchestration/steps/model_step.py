"""A model turn: made to fit, admitted, asked, settled, read, committed; then what it called inline runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from midwatch.orchestration.agents.agent import Agent
from midwatch.orchestration.context import window
from midwatch.orchestration.context.recall import RECALL, answer_recall
from midwatch.orchestration.drift import counts, ladder
from midwatch.orchestration.errors import LeaseLost
from midwatch.orchestration.protocol.anchor import Anchor
from midwatch.orchestration.protocol.commits import Ending, TurnCommit
from midwatch.orchestration.protocol.store_replies import TurnCommitted
from midwatch.orchestration.steps import endings, make_room, read_reply
from midwatch.orchestration.steps.child_jobs import orphaned
from midwatch.orchestration.steps.gated_calls import asked, model_call
from midwatch.orchestration.steps.inline_calls import run_inline
from midwatch.orchestration.tools.result_pages import answer_read_result
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import ToolCall, ToolMessage
from midwatch.schemas.model import ModelReply, Stop
from midwatch.schemas.step import Complete, Continue, Outcome, Park

if TYPE_CHECKING:
    from midwatch.orchestration.steps.runner import Attempt

log = structlog.get_logger("midwatch.step")


class ModelStep:
    """Runs one model turn."""

    def __init__(self, attempt: Attempt, agent: Agent) -> None:
        self.a = attempt
        self.r = attempt.r
        self.agent = agent
        self.anchor: Anchor | None = None
        """What the provider counted, for the next estimate."""
        self.estimated_tokens = 0
        self.offer: ladder.Offer
        """Who is asked, and what with; known when it was."""

    def run(self) -> Outcome:
        """Ask the model once; twice when the provider finds the request too long, or refuses its strict schemas."""
        agent, claim, store = self.agent, self.a.claim, self.r.store
        if not claim.job.agent_version:
            store.set_limits(
                claim,
                agent_version=agent.version,
                max_steps=agent.limits.max_steps,
                timeout_ms=int(agent.limits.session_timeout_s * 1000),
            )
        if orphaned(store, claim.job):
            self.a.claim = replace(claim, ending="cancelled")
            return self.a.dead(Failure(kind=FailureKind.CANCELLED, detail="the job that asked for this one is over"))
        if spent := endings.over_budget(agent, claim):
            return self.a.dead(spent)
        if ended := make_room.fit(self.a, agent):
            return ended
        reply = self.called()
        if isinstance(reply, Failure) and reply.kind is FailureKind.CONTEXT_OVERFLOW:
            self.r.estimator.correct(str(agent.model), window.weight_of(agent, self.a.claim), None)
            if ended := make_room.fit(self.a, agent, overflowed=True):
                return ended
            reply = self.called()  # once more, within the same step
        if isinstance(reply, Failure) and reply.kind is FailureKind.FORMAT_ERROR and self.offer.strict:
            model = str(self.offer.model)
            log.warning("ladder.strict_refused", agent=agent.name, model=model, detail=reply.detail[:300])
            self.r.not_strict.add((agent.version, model))  # a grammar too large, a form that the vendor takes otherwise
            reply = self.called()
        if isinstance(reply, Failure):
            return self.a.failed(agent.retry_config, reply)
        return self.commit(reply) if isinstance(reply, ModelReply) else reply

    def called(self) -> ModelReply | Failure | Outcome:
        """Admission, then the call."""
        behind = ladder.find_streak(self.agent, self.a.claim.log)
        drifting = self.r.drift.open_tools(str(self.agent.model))
        self.offer = ladder.make_offer(self.agent, behind, drifting, not_strict=self.r.not_strict)
        self.a.asked = self.offer.changes
        request = window.assemble(self.agent, self.a.claim, self.offer)
        self.estimated_tokens = make_room.tokens_of(self.a, self.agent)
        call = model_call(self.agent, self.a.claim, request, self.estimated_tokens, self.offer.model)
        if refusal := self.a.admit(call):
            return self.a.refused(refusal)
        with self.r.leases.hold(self.a.claim, call.lasts_ms):
            reply, report = asked(lambda: self.r.model(self.offer.model.provider), request, self.r.gate, call)
            self.a.report(call, report)
        if isinstance(reply, Failure):
            return reply
        self.learned(reply)
        if reply.stop is Stop.CONTEXT_FULL:
            self.a.settle()  # now: to make room may take long
            return Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail="the model's window is full")
        return reply

    def learned(self, reply: ModelReply) -> None:
        """What the provider counted: the anchor of the next estimate."""
        if not reply.usage.reported or reply.usage.input_tokens <= 0:
            return
        weight, model = window.weight_of(self.agent, self.a.claim), str(self.offer.model)
        self.r.estimator.learn(model, weight, reply.usage.input_tokens, self.a.claim.anchor)
        self.anchor = Anchor(weight, reply.usage.input_tokens, model)

    def commit(self, reply: ModelReply) -> Outcome:
        """Make the reply the truth, then run what it called inline."""
        agent, claim, store = self.agent, self.a.claim, self.r.store
        read = read_reply.read(agent, claim, reply, self.offer.model.provider)
        self.a.drift = self.drift_fields(read, reply)
        if read.failure and read.refusals and agent.asks_human("repeated_failure"):
            return self.a.parked(Park(question=read.failure.detail, reason="repeated_failure"))
        if read.failure:
            return self.a.failed(agent.retry_config, read.failure, reply)
        if read.output is not None:
            ending = Ending(
                JobStatus.COMPLETED, read.output, messages=(read.assistant,), usage=reply.usage, anchor=self.anchor
            )
            return self.a.finish(ending, Complete(output=read.output), reply)
        pages = [self.paged(reply, call) for call in read.pages]
        owed = tuple(claim.ref.call(row.ordinal) for row in read.calls if not row.started)
        outcome = Continue(next=owed if read.calls else (claim.ref.model_turn(claim.ref.turn + 1),))
        trace = self.a.trace(outcome, reply, invalid=tuple(read.invalid))
        trace = trace.model_copy(update={"estimated_tokens": self.estimated_tokens})
        commit = TurnCommit(
            messages=(read.assistant, *read.answers, *pages),
            calls=tuple(read.calls),
            usage=reply.usage,
            trace=trace,
            tool_calls=len(read.calls),
            invalid_calls=len(read.invalid),
            children=read.children,
            anchor=self.anchor,
            drift=self.a.drift,
        )
        with self.a.along() as along:
            done = store.commit_turn(claim, commit, along)
        if done is TurnCommitted.LOST:
            raise LeaseLost
        if make_room.little_room(agent, claim, reply.usage.input_tokens + reply.usage.output_tokens):
            self.r.compact_beside(claim.ref.compaction())
        self.r.observe(claim, trace, outcome)
        if read.inline and done is TurnCommitted.COMMITTED:
            run_inline(self.a, agent, read.inline)
        return outcome

    def drift_fields(self, read: read_reply.Turn, reply: ModelReply) -> tuple[str, ...]:
        """What the fleet counts of it: calls, and answers that have a schema or were sent back.

        A tool that does not exist is counted without its name: a model may invent any number.
        """
        model, tokens = str(self.offer.model), reply.usage.input_tokens or self.estimated_tokens
        known = {*(spec.name for spec in self.agent.toolbox.specs), *ladder.RUNTIME_TOOLS, ladder.ANSWER}

        def named(tool: str) -> str:
            return tool if tool in known else "(unknown)"

        made = [call.name for call in reply.tool_calls]
        if read.answered(self.agent):
            made.append(ladder.ANSWER)
        return (
            *(counts.call_field(model, named(tool), tokens) for tool in made),
            *(counts.invalid_field(model, named(one.tool), tokens, one.kind) for one in read.refusals),
            *(counts.invalid_field(model, tool, tokens, counts.SHADOW) for tool in read.shadowed),
        )

    def paged(self, reply: ModelReply, call: ToolCall) -> ToolMessage:
        """Answer one call of the runtime's own tools."""
        if call.name == RECALL.name:
            ordinal = next(place for place, one in enumerate(reply.tool_calls) if one is call)
            return answer_recall(self.r.store, self.a.claim, call, ordinal)
        return answer_read_result(self.r.store, self.a.claim, reply, call)
