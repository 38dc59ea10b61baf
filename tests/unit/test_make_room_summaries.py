"""A model that writes the summary: what it adds, what it costs, and that a job does not depend on it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.orchestration.admission.open_gate import OpenGate
from midwatch.orchestration.errors import ModelError
from midwatch.orchestration.protocol.calls import Call, Report
from midwatch.schemas.failure import Failure, FailureKind
from midwatch.schemas.memory import Memory
from midwatch.schemas.message import Text
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.step import Defer
from tests.unit.longtalk import Talk, Talker, budget, clerk, prompts, tokens_of


def answer(*sentences: str, tool: bool = False) -> str:
    """Make a summarizer's valid answer."""
    return json.dumps({"happened": [{"text": text, "from_tool": tool} for text in sentences], "open": []})


def summary(text: str, *, stop: Stop = Stop.END) -> ModelReply:
    """Make a summarizer's reply."""
    usage = Usage(input_tokens=1_000, output_tokens=max(100, len(text) // 5))
    return ModelReply(parts=(Text(text=text),), stop=stop, usage=usage, model="s-1")


def with_summaries(summarize: Any, **options: Any) -> Talk:
    """Run a long conversation with a model as summarizer."""
    talk = Talk(clerk(context_budget=budget(summary_model="scripted:s-1")), model := Talker(20), **options)
    model.summarize = summarize
    return talk


def test_a_summary_is_in_the_memory_and_in_the_usage():
    """The summary's text is in the note together with the facts, and the job's usage contains all its calls."""
    talk = with_summaries(lambda request: summary(answer("The clerk went through the orders one by one.")))
    result = talk.run()
    assert result.output == "All done."
    assert any("The clerk went through the orders one by one." in note.text for note in talk.model.notes())
    assert talk.memory.facts
    own = sum(tokens_of(request) for request in talk.model.requests)
    assert len(talk.model.summaries) >= 1
    assert result.usage.input_tokens == own + 1_000 * len(talk.model.summaries)
    assert talk.most_tokens() <= 6_000


def failing(request: ModelRequest) -> ModelReply:
    """Make a provider that fails."""
    raise ModelError(Failure(kind=FailureKind.OVERLOADED, detail="529"))


def breaking(request: ModelRequest) -> ModelReply:
    """Make a provider that raises an unexpected exception."""
    raise KeyError("choices")


@pytest.mark.parametrize(
    "summarize",
    [
        lambda request: summary("qrk " * 400),
        lambda request: summary('{"happened": "all of it"}'),
        lambda request: summary(answer("Order X-99999 was paid with DE-00000-1.")),
        lambda request: summary("I can't help with that.", stop=Stop.REFUSAL),
        lambda request: summary(answer("cut o"), stop=Stop.LENGTH),
        lambda request: summary(answer(*[f"and then, and then, number {n} " * 20 for n in range(60)])),
        failing,
        breaking,
    ],
    ids=["garbage", "other-schema", "invented", "refusal", "cut-off", "longer-than-before", "raises", "breaks"],
)
def test_after_a_bad_summary_the_extractive_memory_is_used(summarize):
    """The job ends within its budget, and its usage has the summarizer's tokens."""
    talk = with_summaries(summarize)
    result = talk.run()
    assert result.output == "All done."
    assert talk.compactions >= 1
    assert talk.memory.facts
    assert "X-99999" not in talk.memory.summary
    assert talk.most_tokens() <= 6_000
    own = sum(tokens_of(request) for request in talk.model.requests)
    spent = 0 if summarize in (failing, breaking) else 1_000 * len(talk.model.summaries)
    assert result.usage.input_tokens == own + spent


class Watched(OpenGate):
    """A gate that can refuse summaries, and stores the calls."""

    def __init__(self, refuse: Defer | Failure | None = None) -> None:
        self.refuse = refuse
        self.admitted: list[Call] = []
        self.settled: list[tuple[Call, Report]] = []

    def admit(self, call: Call) -> Defer | Failure | None:
        """See `ports.Gate`."""
        if self.refuse and call.downstream == "scripted:s-1":
            return self.refuse
        self.admitted.append(call)
        return super().admit(call)

    def settle(self, call: Call, report: Report) -> Any:
        """See `ports.Gate`."""
        self.settled.append((call, report))
        return super().settle(call, report)


def test_a_summarizers_call_goes_through_the_gate():
    """A summarizer's call has its own downstream, an estimate, and the job's lineage. It is settled with its real usage."""
    gate = Watched()
    talk = with_summaries(lambda request: summary(answer("All went well.")), gate=gate)
    assert talk.run().output == "All done."
    calls = [call for call in gate.admitted if call.downstream == "scripted:s-1"]
    assert len(calls) == len(talk.model.summaries) >= 1
    assert all(call.claim.job.job_id == talk.job_id for call in calls)
    assert all(call.input_tokens > 500 and call.output_tokens > 0 for call in calls)
    settled = [report for call, report in gate.settled if call.downstream == "scripted:s-1"]
    assert [report.usage.input_tokens for report in settled if report.usage] == [1_000] * len(calls)
    assert len(gate.admitted) == len(gate.settled)


@pytest.mark.parametrize(
    "refusal",
    [
        Defer(after_ms=60_000, reason="no tokens", counts_as_attempt=False),
        Failure(kind=FailureKind.BUDGET_EXCEEDED, detail="the lineage has spent its tokens"),
    ],
)
def test_without_admission_the_extractive_memory_is_used(refusal):
    """The compaction does not wait for admission, because a turn waits for the compaction."""
    talk = with_summaries(lambda request: summary(answer("never")), gate=Watched(refusal))
    assert talk.run().output == "All done."
    assert talk.model.summaries == []
    assert talk.compactions >= 1
    assert talk.most_tokens() <= 6_000


def test_a_summary_never_loses_the_users_words():
    """The next job has its own prompt whole, and the model can read the earlier prompts."""
    talk = Talk(clerk(), Talker(14))
    assert talk.run("First: look at the orders of C-77.").output == "All done."
    talk.model.answered = 0
    assert talk.run("Second: and those of C-78?").output == "All done."
    assert "Second: and those of C-78?" in prompts(talk.model.requests[-1])
    assert talk.most_tokens() <= 6_000
    memory = talk.memory
    assert talk.fleet.store.get_archived("s1", 1) is not None
    assert isinstance(memory, Memory)
    assert "C-77" in memory.model_dump_json()
