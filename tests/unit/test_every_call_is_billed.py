"""What is paid is billed: however a step ends, its job has the usage of each reply once, by the model server's own count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from midwatch import Agent, ContextBudget, Escalation, tool
from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.protocol.calls import Call
from midwatch.orchestration.protocol.claims import Claim
from midwatch.orchestration.steps import model_step
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.orchestration.tokens.weight import weigh, weigh_all
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import Text, ToolCall
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.policy import RetryConfig, RunLimits
from midwatch.schemas.step import Defer, StepKind, StepRef

WRONG = ToolCall(id="c", name="look_up", raw_arguments='{"order": 7}')
RIGHT = ToolCall(id="c", name="look_up", raw_arguments='{"order": "W-1"}')
DONE = "It is on its way."
FULL, REFUSED = Stop.CONTEXT_FULL, Stop.REFUSAL
LEASE_MS = 3_000

Line = str | ToolCall | Stop | FailureKind


@tool(idempotent=True, inline=True)
def look_up(order: str) -> str:
    """Find an order."""
    return f"order {order} is late. " * 40


@dataclass
class PaidModel:
    """A model server that counts what it answers. Each reply costs another number of tokens."""

    lines: list[Line]
    """The last one is repeated."""
    paid: Usage = field(default_factory=Usage)
    refused: int = 0
    calls: int = 0
    during: Callable[[int], None] = lambda number: None
    """Called within each call, with its number from 1."""
    summary: str = '{"happened": [{"text": "Order W-1 is late.", "from_tool": false}], "open": []}'
    size: int = 0
    """Of the last request, in tokens."""
    name: str = "scripted"

    def complete(self, request: ModelRequest) -> ModelReply:
        """See `ports.Model`."""
        self.calls += 1
        self.during(self.calls)
        self.size = weigh(request.system) + weigh_all(request.messages)
        if request.model == "s-1":
            return self.reply((Text(text=self.summary),), Stop.END)
        line = self.lines.pop(0) if len(self.lines) > 1 else self.lines[0]
        if isinstance(line, FailureKind):
            raise ModelError(Failure(kind=line, detail="as planned"))
        if isinstance(line, Stop):
            return self.reply((Text(text="I"),), line)
        if isinstance(line, ToolCall):
            self.refused += line is WRONG
            return self.reply((line,), Stop.TOOLS)
        return self.reply((Text(text=line),), Stop.END)

    def reply(self, parts: tuple[Any, ...], stop: Stop) -> ModelReply:
        """Make a reply, and count it."""
        number = self.calls
        usage = Usage(
            input_tokens=self.size + number,
            cached_tokens=number,
            cache_write_tokens=2 * number,
            output_tokens=10 + number,
        )
        self.paid += usage
        return ModelReply(parts=parts, stop=stop, usage=usage, model="m-1")

    def count(self, request: ModelRequest) -> int | None:
        """See `ports.Model`."""
        return None


class Bench:
    """One fleet and one job."""

    def __init__(self, *lines: Line, gate: Any = None, **policies: Any) -> None:
        policies.setdefault("retry_config", RetryConfig(max_retries=2, base_s=1.0))
        self.agent = Agent("clerk", "scripted:m-1", "You help.", tools=[look_up], **policies)
        self.model = PaidModel(list(lines))
        self.fleet = InlineFleet(self.agent, model=self.model, gate=gate)
        self.job_id = self.fleet.enqueue(self.agent, "Where is order W-1?", session_id="s1")

    def run(self) -> JobStatus:
        """Run the job until it ends or is parked."""
        return self.fleet.run(self.job_id).status

    def check(self) -> None:
        """The job has what the server counted."""
        job = self.fleet.store.job(self.job_id)
        assert job.usage == self.model.paid
        assert job.invalid_calls == self.model.refused

    def check_trace(self) -> None:
        """So have the records of its turns."""
        self.check()
        records = self.fleet.trace(self.job_id)
        paid = sum((record.usage for record in records if record.usage), Usage())
        assert paid == self.model.paid
        assert sum(len(record.invalid) for record in records) == self.model.refused


def test_a_job_parked_by_repeated_failure_has_its_last_call():
    """As reported: its usage and its count of refused calls missed the last call. The findings count it, too."""
    bench = Bench(WRONG, escalation=[Escalation(when="repeated_failure")])
    assert bench.run() is JobStatus.PARKED
    bench.check_trace()
    counters = {name: count for (_, name), count in bench.fleet.store.drift_counters(2).items()}
    assert sum(count for name, count in counters.items() if name.startswith("invalid|")) == bench.model.refused
    assert bench.fleet.operations.counters()["calls.invalid"] == bench.model.refused
    bench.fleet.operations.decide(bench.job_id, approve=False, reason="no")
    assert bench.run() is JobStatus.DEAD_LETTERED
    bench.check_trace()


def test_an_approved_repeated_failure_goes_on_with_the_whole_bill():
    """The calls after the approval are added to those before."""
    bench = Bench(WRONG, escalation=[Escalation(when="repeated_failure")])
    bench.run()
    bench.model.lines = [DONE]
    bench.fleet.operations.decide(bench.job_id, approve=True)
    assert bench.run() is JobStatus.COMPLETED
    bench.check_trace()


CASES: dict[str, tuple[tuple[Line, ...], dict[str, Any], JobStatus]] = {
    "completed": ((RIGHT, DONE), {}, JobStatus.COMPLETED),
    "a refused call, then completed": ((WRONG, RIGHT, DONE), {}, JobStatus.COMPLETED),
    "the end of the ladder": ((WRONG,), {}, JobStatus.DEAD_LETTERED),
    "refused by the model": ((REFUSED,), {}, JobStatus.DEAD_LETTERED),
    "refused by the model, and tried again": (
        (REFUSED, REFUSED, DONE),
        {"retry_config": RetryConfig(max_retries=3, base_s=1.0, retry_on=[FailureKind.REFUSED])},
        JobStatus.COMPLETED,
    ),
    "refused by the model at each try": (
        (REFUSED,),
        {"retry_config": RetryConfig(max_retries=2, base_s=1.0, retry_on=[FailureKind.REFUSED])},
        JobStatus.DEAD_LETTERED,
    ),
    "a full window, then an answer": ((FULL, DONE), {}, JobStatus.COMPLETED),
    "a full window twice": ((FULL,), {}, JobStatus.DEAD_LETTERED),
    "a full window, then a failed call": (
        (FULL, FailureKind.AUTH_ERROR), {}, JobStatus.DEAD_LETTERED,
    ),
    "a full window, then a call that is tried again": (
        (FULL, FailureKind.OVERLOADED, DONE), {}, JobStatus.COMPLETED,
    ),
    "a full window that a human must see": (
        (RIGHT, FULL), {"context_budget": ContextBudget(max_tokens=20_000, on_overflow="escalate")}, JobStatus.PARKED,
    ),
    "a full window that ends the job": (
        (RIGHT, FULL), {"context_budget": ContextBudget(max_tokens=20_000, on_overflow="fail")}, JobStatus.DEAD_LETTERED,
    ),
    "steps used up": ((RIGHT,), {"limits": RunLimits(max_steps=3)}, JobStatus.DEAD_LETTERED),
    "tokens used up": ((RIGHT,), {"limits": RunLimits(max_output_tokens=30)}, JobStatus.DEAD_LETTERED),
    "cut off at the output limit": ((Stop.LENGTH,), {}, JobStatus.DEAD_LETTERED),
    "paused, then completed": ((Stop.PAUSE, DONE), {}, JobStatus.COMPLETED),
    "a call that a human must approve": (
        (RIGHT,), {"escalation": [Escalation(when="tool_approval")]}, JobStatus.PARKED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_ending_has_every_paid_call(case):
    """The job and its trace have the server's own count, each reply once."""
    lines, policies, status = CASES[case]
    bench = Bench(*lines, **policies)
    assert bench.run() is status
    if "output limit" not in case:  # there the answer counts as refused, and not a call
        bench.check_trace()
    assert bench.fleet.store.job(bench.job_id).usage == bench.model.paid


def test_answers_refused_by_a_schema_are_billed():
    """Each of them was paid for, also the last one, after which the job ends."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    bench = Bench("soon", output_schema=schema)
    assert bench.run() is JobStatus.DEAD_LETTERED
    bench.model.refused = bench.model.calls
    assert bench.model.calls >= 3
    bench.check_trace()


class SecondRefused(OpenGate):
    """A gate that defers the second call of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.admitted = 0

    def admit(self, call: Call) -> Defer | Failure | None:
        """See `ports.Gate`."""
        self.admitted += 1
        return Defer(after_ms=1_000, reason="later", counts_as_attempt=False) if self.admitted == 2 else None


def test_a_paid_call_before_a_refusal_by_the_gate_is_billed():
    """The first call found the window full. The second was not admitted, so the step is deferred."""
    bench = Bench(FULL, DONE, gate=SecondRefused())
    assert bench.run() is JobStatus.COMPLETED
    assert bench.model.calls == 2
    bench.check_trace()


def test_a_job_cancelled_during_its_call_is_billed():
    """The reply comes after the cancellation."""
    bench = Bench(RIGHT)
    bench.model.during = lambda number: bench.fleet.operations.cancel(bench.job_id) if number == 2 else None  # type: ignore[assignment]
    assert bench.run() is JobStatus.CANCELLED
    assert bench.model.calls == 2
    bench.check_trace()


@pytest.mark.parametrize("lines", [(DONE,), (RIGHT, DONE), (WRONG, DONE), (REFUSED,), (FULL, DONE)])
def test_a_step_that_lost_its_lease_is_billed_and_so_is_the_next(lines):
    """Two workers called the model for the same step. Both calls were paid for, and the job has both."""
    bench = Bench(*lines)

    def lose(number: int) -> None:
        if number == 1:
            bench.fleet.clock.advance(LEASE_MS + 1_000)
            ref = StepRef(job_id=bench.job_id, session_id="s1", step="1")
            assert isinstance(bench.fleet.store.claim(ref, "another worker"), Claim)
            bench.fleet.published.append(ref)

    bench.model.during = lose
    bench.run()
    bench.fleet.clock.advance(LEASE_MS + 1_000)
    assert bench.model.calls >= 2
    bench.check()


def test_a_commit_that_is_sent_twice_is_billed_once(monkeypatch):
    """The reply to the commit was lost. The worker assumes that its lease is lost, but the usage is recorded."""
    bench = Bench(RIGHT, DONE)
    finish = bench.fleet.store.finish

    def finish_twice(*given: Any) -> bool:
        assert finish(*given)
        return finish(*given)

    monkeypatch.setattr(bench.fleet.store, "finish", finish_twice)
    assert bench.run() is JobStatus.COMPLETED
    bench.check()


def test_a_step_that_breaks_after_its_reply_is_billed(monkeypatch):
    """An unexpected error makes the step a dead letter. Its call was paid for."""
    bench = Bench(RIGHT, DONE)

    def broken(*_: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(model_step, "read_reply", broken)
    assert bench.run() is JobStatus.DEAD_LETTERED
    bench.check_trace()


@pytest.fixture
def summarized() -> Bench:
    """A job whose conversation a model sums up."""
    budget = ContextBudget(max_tokens=3_000, reserve_output=500, summary_model="scripted:s-1")
    return Bench(*[RIGHT] * 20, DONE, context_budget=budget)


def test_summaries_are_billed(summarized):
    """The job pays for the model that writes its memory."""
    assert summarized.run() is JobStatus.COMPLETED
    assert summarized.fleet.operations.counters()["compactions"] >= 1
    assert summarized.model.calls > 21
    summarized.check()


def test_a_summary_that_comes_too_late_is_billed(summarized):
    """Another compaction was faster, so the summary is dropped. It was paid for."""
    dropped: list[int] = []
    store = summarized.fleet.store
    commit = store.commit_compaction

    def too_late(work: Any, compaction: Any) -> bool:
        if compaction.usage.output_tokens and not dropped:
            dropped.append(compaction.usage.output_tokens)
            summarized.fleet.client.hset(store.keys.session("s1"), "compacting", "")
        return commit(work, compaction)

    store.commit_compaction = too_late
    assert summarized.run() is JobStatus.COMPLETED
    assert dropped
    summarized.check()


def test_a_summary_before_a_broken_compaction_is_billed(summarized):
    """The compaction raised after the model had answered."""
    store, broke = summarized.fleet.store, []
    commit = store.commit_compaction

    def broken(work: Any, compaction: Any) -> bool:
        if compaction.usage.output_tokens and not broke:
            broke.append(work.ref.kind)
            raise KeyError("no such thing")
        return commit(work, compaction)

    store.commit_compaction = broken
    summarized.run()
    assert broke == [StepKind.COMPACT]
    summarized.check()
