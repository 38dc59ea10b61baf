"""The model of a replay. It answers with the recorded turns, and checks every request.

It reports true usage, as a provider does. The token estimator learns from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import takewhile

from midwatch.orchestration.tools.context import ToolContext
from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Text, ToolMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.step import StepKind, StepRef
from midwatch.workers.bench.context.counting import TokenCounter
from midwatch.workers.bench.context.needed import Tally, names_in, tally, tally_names, text_of
from midwatch.workers.bench.context.recorded_jobs import RecordedJob
from midwatch.workers.bench.context.transcripts import PROVIDER
from midwatch.workers.bench.context.windows import Budget, CallFigures, goal_intact, split_groups

REPLAYED = "recorded"
SUMMARY = "summary"
SUMMARY_BYTES = 4_000


class RecordedModel:
    """`ports.Model` with one session's recorded turns. The replay calls `begin` for each job and `at` for each step."""

    name = PROVIDER

    def __init__(self, counter: TokenCounter, budget: Budget, system: str, compactions: Callable[[], int]) -> None:
        self.counter, self.budget, self.system = counter, budget, system
        self._compactions = compactions
        self.rows: list[CallFigures] = []
        self.own_s = 0.0
        """Time spent in this model. It does not count as the fleet's time."""
        self.summaries = 0
        self._job = RecordedJob("")
        self._step: StepRef | None = None
        self._last: ModelRequest | None = None
        self._history: list[str] = []
        """The unchanged texts of all messages of the session."""

    def begin(self, job: RecordedJob) -> None:
        """Start the session's next job."""
        self._job = job
        self._history.append(job.input)

    def at(self, step: StepRef) -> None:
        """Set the current step."""
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
        """Return None: the exact count of this check must not help the estimator, which is being checked."""
        return None

    def result(self, context: ToolContext) -> ToolMessage | None:
        """Return the recorded result of the current job's call. The recorded tools call this."""
        turn, _, ordinal = context.step_id.partition(".")
        recorded = self._job.turn(int(turn)).results.get(int(ordinal or 0))
        if recorded is not None:
            self._history.append(f"Error: {recorded.content}" if recorded.is_error else recorded.content)
        return recorded

    def _answer(self, request: ModelRequest, number: int) -> ModelReply:
        turn = self._job.turn(number)
        tokens = self.counter.request(request)
        fixed = "\n".join((request.system, *(canonical_json(tool.model_dump(mode="json")) for tool in request.tools)))
        window = list(map(text_of, request.messages))
        facts = tally(turn.calls, self._history, window, fixed) if turn.calls else Tally()
        text = "\n".join(part.text for part in turn.parts if isinstance(part, Text))
        said = tally_names(names_in(text), self._history, window, fixed)
        self.rows.append(
            CallFigures(
                call=len(self.rows) + 1,
                tokens=tokens,
                fill=self.budget.fill(tokens),
                over_budget=self.budget.over(tokens),
                split_groups=split_groups(request.messages),
                goal_intact=goal_intact(request.messages, self._job.input),
                system_intact=request.system == self.system,
                compactions=self._compactions(),
                cached_tokens=self._count_cached(request),
                facts=facts,
                said=said,
            )
        )
        reply = ModelReply(
            parts=turn.parts,
            stop=turn.stop,
            usage=Usage(input_tokens=tokens, output_tokens=self.counter.parts(turn.parts)),
            model=request.model,
        )
        self._history.append(
            text_of(AssistantMessage(group=0, parts=turn.parts, provider=PROVIDER, model=request.model))
        )
        return reply

    def _count_cached(self, request: ModelRequest) -> int:
        """Count the tokens of the beginning that this request shares with the one before."""
        last, self._last = self._last, request
        if last is None or (last.system, last.tools) != (request.system, request.tools):
            return 0
        same = takewhile(lambda pair: pair[0] == pair[1], zip(last.messages, request.messages, strict=False))
        return self.counter.fixed(request.system, request.tools) + self.counter.messages(one for one, _ in same)

    def _summary(self, request: ModelRequest) -> ModelReply:
        """Answer in place of a summary model, with the beginning of the request. A real model would give other figures."""
        self.summaries += 1
        text = "\n".join(map(text_of, request.messages)).encode()[:SUMMARY_BYTES].decode(errors="ignore")
        usage = Usage(input_tokens=self.counter.request(request), output_tokens=self.counter.text(text))
        return ModelReply(parts=(Text(text=text),), stop=Stop.END, usage=usage, model=request.model)
