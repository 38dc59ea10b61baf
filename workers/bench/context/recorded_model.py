"""The model of a replay: says what the record says, and looks at every request it is sent.

It reports true usage, as a provider does: the engine's estimator learns from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from midwatch.orchestration.tools.context import ToolContext
from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Text, ToolMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.step import StepKind, StepRef
from midwatch.workers.bench.context.counting import TokenCounter
from midwatch.workers.bench.context.needed import Tally, said, tally
from midwatch.workers.bench.context.screenplay import PlayedJob
from midwatch.workers.bench.context.transcripts import PROVIDER
from midwatch.workers.bench.context.windows import Budget, CallRow, goal_intact, split_groups

REPLAYED = "recorded"
SUMMARY = "summary"
SUMMARY_BYTES = 4_000


class RecordedModel:
    """`ports.Model` over one session's record. Where the replay stands, it is told: `begin` a job, then each `step`."""

    name = PROVIDER

    def __init__(self, counter: TokenCounter, budget: Budget, system: str, compactions: Callable[[], int]) -> None:
        self.counter, self.budget, self.system = counter, budget, system
        self._compactions = compactions
        self.rows: list[CallRow] = []
        self.own_s = 0.0
        """Time spent here: not the fleet's."""
        self.summaries = 0
        self._job = PlayedJob("")
        self._step: StepRef | None = None
        self._history: list[str] = []
        """All that was said in the session, as it was said."""

    def begin(self, job: PlayedJob) -> None:
        """The session's next job."""
        self._job = job
        self._history.append(job.input)

    def at(self, step: StepRef) -> None:
        """The step that runs now."""
        self._step = step

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        began_s = time.perf_counter()
        try:
            if self._step is None or self._step.kind is not StepKind.MODEL or request.model != REPLAYED:
                return self._summary(request)
            return self._answer(request, self._step.turn)
        finally:
            self.own_s += time.perf_counter() - began_s

    def count(self, request: ModelRequest) -> int | None:
        """None: the judge's own count must not help the one who is judged. The estimator stands alone here."""
        return None

    def result(self, context: ToolContext) -> ToolMessage | None:
        """What the record has for a call of the current job; for its tools."""
        turn, _, ordinal = context.step_id.partition(".")
        recorded = self._job.turn(int(turn)).results.get(int(ordinal or 0))
        if recorded is not None:
            self._history.append(f"Error: {recorded.content}" if recorded.is_error else recorded.content)
        return recorded

    def _answer(self, request: ModelRequest, number: int) -> ModelReply:
        turn = self._job.turn(number)
        tokens = self.counter.request(request)
        fixed = "\n".join((request.system, *(canonical_json(tool.model_dump(mode="json")) for tool in request.tools)))
        facts = tally(turn.calls, self._history, map(said, request.messages), fixed) if turn.calls else Tally()
        self.rows.append(
            CallRow(
                call=len(self.rows) + 1,
                tokens=tokens,
                fill=self.budget.fill(tokens),
                over_budget=self.budget.over(tokens),
                split_groups=split_groups(request.messages),
                goal_intact=goal_intact(request.messages, self._job.input),
                system_intact=request.system == self.system,
                compactions=self._compactions(),
                facts=facts,
            )
        )
        reply = ModelReply(
            parts=turn.parts,
            stop=turn.stop,
            usage=Usage(input_tokens=tokens, output_tokens=self.counter.parts(turn.parts)),
            model=request.model,
        )
        self._history.append(said(AssistantMessage(group=0, parts=turn.parts, provider=PROVIDER, model=request.model)))
        return reply

    def _summary(self, request: ModelRequest) -> ModelReply:
        """The stand-in of a summarizing model: the beginning of what it was sent. It is no figure of a real one's."""
        self.summaries += 1
        text = "\n".join(map(said, request.messages)).encode()[:SUMMARY_BYTES].decode(errors="ignore")
        usage = Usage(input_tokens=self.counter.request(request), output_tokens=self.counter.text(text))
        return ModelReply(parts=(Text(text=text),), stop=Stop.END, usage=usage, model=request.model)
