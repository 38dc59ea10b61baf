"""A model turn: made to fit, admitted, asked, settled, read, committed; then what it called inline runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestration import context, drift, endings, fitting, ladder, turn
from orchestration.agent import Agent
from orchestration.children import orphaned
from orchestration.commits import Ending, TurnCommit
from orchestration.errors import LeaseLost
from orchestration.estimate import Anchor
from orchestration.gatedcalls import asked, model_call
from orchestration.inlinecalls import run_inline
from orchestration.recall import RECALL, answer_recall
from orchestration.results import answer_page
from schemas.failure import Failure, FailureKind
from schemas.job import JobStatus
from schemas.message import ToolCall, ToolMessage
from schemas.model import ModelReply, Stop
from schemas.step import Complete, Continue, Outcome, Park

if TYPE_CHECKING:
    from orchestration.step import Attempt


class ModelStep:
    """Runs one model turn."""

    def __init__(self, attempt: Attempt, agent: Agent) -> None:
        self.a = attempt
        self.r = attempt.r
        self.agent = agent
        self.anchor: Anchor | None = None
        """What the provider counted, for the next estimate."""
        self.estimated_tokens = 0
        self.model = agent.model
        """Who is asked: see `ladder.model_for`."""

    def run(self) -> Outcome:
        """Ask the model once; twice when the provider finds the request too long."""
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
        if ended := fitting.fit(self.a, agent):
            return ended
        reply = self.called()
        if isinstance(reply, Failure) and reply.kind is FailureKind.CONTEXT_OVERFLOW:
            self.r.estimator.correct(str(agent.model), context.size_bytes(agent, self.a.claim), None)
            if ended := fitting.fit(self.a, agent, overflowed=True):
                return ended
            reply = self.called()  # once more, within the same step
        if isinstance(reply, Failure):
            return self.a.failed(agent.retry_config, reply)
        return self.commit(reply) if isinstance(reply, ModelReply) else reply

    def called(self) -> ModelReply | Failure | Outcome:
        """Admission, then the call."""
        behind = ladder.streak(self.agent, self.a.claim.log)
        drifting = bool(behind.turns) and self.r.drift.open(str(self.agent.model), behind.tools)
        rung = behind.rung(drifting=drifting)
        self.model = ladder.model_for(self.agent, rung)
        only = behind.tools if rung >= ladder.NARROW_AT else frozenset()
        request = context.assemble(self.agent, self.a.claim, model=self.model, only=only)
        self.estimated_tokens = fitting.tokens_of(self.a, self.agent)
        call = model_call(self.agent, self.a.claim, request, self.estimated_tokens, self.model)
        if refusal := self.r.gate.admit(call):
            return self.a.refused(refusal)
        with self.r.leases.hold(self.a.claim, call.lasts_ms):
            reply, self.a.settled = asked(lambda: self.r.model(self.model.provider), request, self.r.gate, call)
        if isinstance(reply, Failure):
            return reply
        self.learned(reply)
        if reply.stop is Stop.CONTEXT_FULL:
            return Failure(kind=FailureKind.CONTEXT_OVERFLOW, detail="the model's window is full")
        return reply

    def learned(self, reply: ModelReply) -> None:
        """What the provider counted: the anchor of the next estimate."""
        if not reply.usage.reported or reply.usage.input_tokens <= 0:
            return
        size, model = context.size_bytes(self.agent, self.a.claim), str(self.model)
        self.r.estimator.learn(model, size, reply.usage.input_tokens, self.a.claim.anchor)
        self.anchor = Anchor(size, reply.usage.input_tokens, model)

    def commit(self, reply: ModelReply) -> Outcome:
        """Make the reply the truth, then run what it called inline."""
        agent, claim, store = self.agent, self.a.claim, self.r.store
        read = turn.read(agent, claim, reply)
        self.count(read, reply)
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
                anchor=self.anchor,
                drift=self.drift_fields(read, reply),
            ),
        )
        if done is False:
            raise LeaseLost
        if fitting.little_room(agent, claim, reply.usage.input_tokens + reply.usage.output_tokens):
            self.r.compact_beside(claim.ref.compaction())
        self.r.observe(claim, trace, outcome)
        if read.inline and done:
            run_inline(self.a, agent, read.inline)
        return outcome

    def count(self, read: turn.Turn, reply: ModelReply) -> None:
        """What this process sees of drift."""
        refused = {refusal.tool for refusal in read.refusals}
        for call in reply.tool_calls:
            self.r.drift.saw(str(self.model), call.name, call.name not in refused)

    def drift_fields(self, read: turn.Turn, reply: ModelReply) -> tuple[str, ...]:
        """What the fleet counts of it. A tool that does not exist is counted without its name: a model may invent any number."""
        model, tokens = str(self.model), reply.usage.input_tokens or self.estimated_tokens

        def named(tool: str) -> str:
            return tool if self.agent.toolbox.get(tool) or tool in ladder.RUNTIMES_OWN else "(unknown)"

        return (
            *(drift.call_field(model, named(call.name), tokens) for call in reply.tool_calls),
            *(drift.invalid_field(model, named(one.tool), tokens, one.kind) for one in read.refusals),
            *(drift.invalid_field(model, tool, tokens, drift.SHADOW) for tool in read.shadowed),
        )

    def paged(self, reply: ModelReply, call: ToolCall) -> ToolMessage:
        """Answer one call of the runtime's own tools."""
        if call.name == RECALL.name:
            ordinal = next(place for place, one in enumerate(reply.tool_calls) if one is call)
            return answer_recall(self.r.store, self.a.claim, call, ordinal)
        return answer_page(self.r.store, self.a.claim, reply, call)
