"""The prompt of the running job stays whole as long as it fits into a call. Older and newer messages are cut first."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from midwatch.orchestration.context.restore import decompress_text
from midwatch.orchestration.drift.counts import cut_rows, drift_rows
from midwatch.orchestration.testing.inline_fleet import InlineFleet
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.job import JobStatus
from midwatch.schemas.message import Part, ToolCall, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest, Stop, Usage
from midwatch.schemas.policy import ContextBudget
from midwatch.schemas.step import StepRef
from midwatch.workers.bench.context.counting import token_counter
from tests.unit.longtalk import Talk, Talker, budget, clerk, prompts, wordy

CHANCE = random.Random(11)

WRITERS = {
    "prose": lambda number: f"Sentence {number} of the report says that all is well with the order. ",
    "json": lambda number: json.dumps({"id": f"W-{number:06d}", "total": number * 1.25, "tags": ["a", "b"]}) + "\n",
    "csv": lambda number: f"{number},{number * 37},2026-01-{number % 28 + 1:02d},{number / 7:.4f},open\n",
    "chinese": lambda number: f"第{number}份订单已经按时交付给客户。",
    "base64": lambda number: base64.b64encode(CHANCE.randbytes(48)).decode(),
}


COUNTER = token_counter()


def tokens_of(request: ModelRequest) -> int:
    """The size of a request by a real tokenizer. Tables and base64 have twice as many tokens as prose of that length."""
    return COUNTER.request(request)


class Reader(Talker):
    """A talker that reports the tokens of a real tokenizer."""

    def reply(self, request: ModelRequest, parts: list[Part], stop: Stop | None = None) -> ModelReply:
        """See `Talker.reply`."""
        usage = Usage(input_tokens=tokens_of(request), output_tokens=20)
        return super().reply(request, parts, stop).model_copy(update={"usage": usage})


def most_tokens(talk: Talk) -> int:
    """The largest size of all calls, with the output reserve."""
    return max(map(tokens_of, talk.model.requests)) + talk.agent.context_budget.reserve_output


def document(kind: str, tokens: int) -> str:
    """Write a prompt with a document of so many tokens."""
    rows: list[str] = []
    size = 0
    while size < tokens:
        rows.append("".join(WRITERS[kind](number) for number in range(len(rows) * 20, len(rows) * 20 + 20)))
        size += COUNTER.text(rows[-1])
    return f"Read this document.\n{''.join(rows)}\nWhich orders are late?"


def are_whole(requests: Sequence[ModelRequest], prompt: str) -> bool:
    """Does each request contain the prompt verbatim?"""
    return all(prompts(request)[-1] == prompt for request in requests)


def test_a_prompt_of_23000_tokens_stays_whole_in_120000():
    """As reported: its middle was missing from call 33 on, in a call of 43,830 tokens."""
    agent = clerk(tools=[wordy(14_000)], context_budget=ContextBudget(max_tokens=120_000))
    talk, prompt = Talk(agent, Reader(45)), document("prose", 23_000)
    assert talk.run(prompt).output == "All done."
    assert talk.compactions >= 2
    assert are_whole(talk.model.requests, prompt)
    assert most_tokens(talk) <= 120_000


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("share", [0.3, 0.85])
def test_a_pasted_document_stays_whole(kind, share):
    """Prose, tables, other scripts and encoded bytes, up to 85 % of the room. No call is over its budget."""
    talk = Talk(clerk(tools=[wordy(9_000)], context_budget=budget(24_000, 2_000)), Reader(12))
    prompt = document(kind, int(22_000 * share))
    assert talk.run(prompt).output == "All done."
    assert talk.compactions >= 1
    assert are_whole(talk.model.requests, prompt)
    assert most_tokens(talk) <= 24_000


@pytest.mark.parametrize("max_tokens", [8_000, 32_000, 200_000])
@pytest.mark.parametrize("in_background", [True, False])
def test_at_every_budget_a_prompt_of_half_the_room_stays_whole(max_tokens, in_background):
    """A compaction may run in a separate task or inside a turn."""
    agent = clerk(tools=[wordy(max_tokens // 4)], context_budget=budget(max_tokens, max_tokens // 12))
    turns = 20 if max_tokens < 100_000 else 40
    talk, prompt = Talk(agent, Reader(turns), in_background=in_background), document("prose", max_tokens // 2)
    assert talk.run(prompt).output == "All done."
    assert talk.compactions >= 1
    assert are_whole(talk.model.requests, prompt)
    assert most_tokens(talk) <= max_tokens


def test_a_long_prompt_does_not_cause_a_compaction_at_each_turn():
    """What a compaction can't shrink does not count against its target."""
    talk = Talk(clerk(tools=[wordy(600)], context_budget=budget(24_000, 2_000)), Reader(40))
    assert talk.run(document("prose", 14_000)).output == "All done."
    assert 1 <= talk.compactions <= 12


def test_results_of_the_newest_group_are_cut_before_the_prompt():
    """Three results that do not fit beside the prompt are cut. The prompt is not."""

    def three(number: int, request: ModelRequest) -> list[Any] | None:
        numbers = range(number * 10, number * 10 + 3)
        calls = [ToolCall(id=f"c{n}", name="look_up", raw_arguments=json.dumps({"number": n})) for n in numbers]
        return calls if number <= 4 else None

    talk = Talk(clerk(tools=[wordy(12_000)], context_budget=budget(24_000, 2_000)), Reader(0, says=three))
    prompt = document("prose", 15_000)
    assert talk.run(prompt).output == "All done."
    assert are_whole(talk.model.requests, prompt)
    assert most_tokens(talk) <= 24_000


def test_the_next_jobs_prompt_stays_whole_when_the_session_is_full():
    """The last turn of the job before fills the session above `act_at`. The old prompt may leave the window, the new
    one may not."""
    for in_background in (True, False):
        agent = clerk(tools=[wordy(1_500)], context_budget=budget(24_000, 2_000))
        talk = Talk(agent, Reader(10), in_background=in_background)
        first, second = document("prose", 10_000), document("csv", 11_000)
        assert talk.run(first).output == "All done."
        before = len(talk.model.requests)
        talk.model.turns = 22
        assert talk.run(second).output == "All done."
        assert are_whole(talk.model.requests[:before], first)
        assert are_whole(talk.model.requests[before:], second)
        assert most_tokens(talk) <= 24_000


def test_an_operators_compaction_keeps_the_prompt_whole():
    """The session's newest prompt also stays after its job has ended."""
    talk, prompt = Talk(clerk(context_budget=budget(24_000, 2_000)), Reader(6)), document("json", 9_000)
    assert talk.run(prompt).output == "All done."
    talk.fleet.runner.run(StepRef(job_id=talk.job_id, session_id="s1", step="0c"))
    assert talk.compactions == 1
    assert prompt in [one.text for one in talk.fleet.operations.messages("s1") if isinstance(one, UserMessage)]


@pytest.mark.parametrize("how", [FailureKind.CONTEXT_OVERFLOW, Stop.CONTEXT_FULL])
def test_after_a_refusal_as_too_long_older_messages_go_before_the_prompt(how):
    """The prompt is half of the refused request. It stays whole, and the rest shrinks."""
    talk = Talk(clerk(context_budget=budget(60_000, 2_000)), model := Reader(8))
    model.fail = lambda number, request: how if number == 7 else None
    prompt = document("prose", 3_500)
    assert talk.run(prompt).output == "All done."
    assert are_whole(model.requests, prompt)
    assert tokens_of(model.requests[7]) < 0.85 * tokens_of(model.requests[6])


def test_a_replayed_letter_still_has_its_whole_prompt():
    """The job died of an overflow. After the replay the prompt is sent verbatim."""
    talk = Talk(clerk(context_budget=budget(60_000, 2_000)), model := Reader(8))
    model.fail = lambda number, request: FailureKind.CONTEXT_OVERFLOW if number in (7, 8) else None
    prompt = document("prose", 3_500)
    assert talk.run(prompt).status is JobStatus.DEAD_LETTERED
    talk.fleet.operations.replay(talk.job_id)
    assert talk.fleet.run(talk.job_id).output == "All done."
    assert are_whole(model.requests, prompt)


def test_a_prompt_that_fits_by_the_providers_count_is_not_cut():
    """The estimate of a model that has not reported is too high by half. The provider's counter knows better."""
    talk = Talk(clerk(context_budget=budget(24_000, 2_000)), model := Reader(2))
    model.counts = tokens_of
    prompt = document("chinese", 19_500)
    assert talk.run(prompt).output == "All done."
    assert are_whole(model.requests, prompt)


# --- a prompt that can't fit


def run_too_long() -> tuple[Talk, str]:
    """Run a job whose prompt is larger than its budget."""
    talk = Talk(clerk(), Reader(3))
    prompt = document("prose", 9_000)
    with capture_logs() as logged:
        assert talk.run(prompt).output == "All done."
    assert [line["log_level"] for line in logged if line["event"] == "context.prompt_cut"] == ["warning"]
    return talk, prompt


def test_a_cut_of_the_prompt_is_in_log_trace_and_findings():
    """Each call that was made with the cut prompt says so, and names the handle of the whole."""
    talk, prompt = run_too_long()
    turns = [record for record in talk.fleet.trace(talk.job_id) if "." not in record.step]
    handles = {record.prompt_cut for record in turns}
    assert len(handles) == 1
    (handle,) = handles
    assert handle is not None
    whole = talk.fleet.store.get_result("s1", handle)
    assert whole is not None
    assert decompress_text(whole) == prompt
    (row,) = findings_of(talk.fleet)
    assert (row.agent, row.model, row.calls) == ("clerk", "scripted:m-1", 4)
    assert not are_whole(talk.model.requests, prompt)
    assert most_tokens(talk) <= 6_000


def test_a_cut_prompt_keeps_as_much_as_the_work_allows():
    """Half of a call is for the prompt, the other half for the work on it."""
    talk, _ = run_too_long()
    assert tokens_of(talk.model.requests[0]) > 2_000


def test_a_prompt_that_fits_is_no_finding():
    """No turn of the trace has a handle."""
    talk = Talk(clerk(), Reader(12))
    assert talk.run().output == "All done."
    assert findings_of(talk.fleet) == []
    assert {record.prompt_cut for record in talk.fleet.trace(talk.job_id)} == {None}


def findings_of(fleet: InlineFleet) -> Any:
    """The findings of cut prompts."""
    counters = [(name, count) for (_, name), count in fleet.store.drift_counters(2).items()]
    assert all(row.tool != "clerk" for row in drift_rows(counters))
    return cut_rows(counters)
