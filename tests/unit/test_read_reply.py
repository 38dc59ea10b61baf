"""Reading a model's reply: every unusual reply has one meaning, and none raises an exception."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from midwatch import Agent, Escalation, RunLimits, tool
from midwatch.orchestration.drift import ladder
from midwatch.orchestration.steps.read_reply import needs_approval, read_reply
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import NoteMessage, ToolMessage, UserMessage
from midwatch.schemas.model import Stop
from tests.unit.claims import claim_of, note, reply_of, result, said, tool_call


@tool(idempotent=True)
def look_up(order: str) -> str:
    """Find an order."""
    return order


@tool(inline=True)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(requires_approval=lambda arguments: arguments["amount"] > 100)
def refund(amount: int) -> str:
    """Pay money back."""
    return "paid"


@tool(inline=True, requires_approval=lambda arguments: True)
def wipe() -> str:
    """Delete everything."""
    return "gone"


def agent(**fields):
    return Agent("clerk", "scripted:m-1", "You help.", tools=[look_up, add, refund, wipe], **fields)


AGENT = agent()
LOOK = tool_call("look_up", '{"order": "A-17"}')


def read(*parts, to=AGENT, log=(), stop=None, step="1", **fields):
    return read_reply(to, claim_of(step, log=log, **fields), reply_of(*parts, stop=stop))


def test_a_text_is_the_final_answer():
    """No call runs, and the model is not called again."""
    found = read("On its way.")
    assert (found.output, found.calls, found.answers, found.failure) == ("On its way.", [], [], None)


def test_a_valid_call_runs_and_the_text_with_it_is_kept():
    """The assistant message has all parts of the reply in order. The call gets its place as ordinal."""
    found = read("Let me look.", LOOK, LOOK)
    assert [(row.ordinal, row.started) for row in found.calls] == [(0, False), (1, False)]
    assert found.assistant.text == "Let me look."
    assert found.assistant.tool_calls == (LOOK, LOOK)
    assert (found.output, found.assistant.group) == (None, 2)


def test_an_inline_call_is_started_at_once_unless_a_human_must_decide():
    """A call that needs an approval is not inline, because no model step waits for a human."""
    found = read(tool_call("add", '{"a": 1, "b": 2}'), tool_call("wipe"))
    assert [(row.call.name, row.started) for row in found.calls] == [("add", True), ("wipe", False)]
    assert [(tool.name, arguments) for _, tool, arguments in found.inline] == [("add", {"a": 1, "b": 2})]


def test_tool_and_agent_decide_which_calls_need_approval():
    """A tool can require approval always, or by a function of the arguments. The agent can require it by an escalation."""
    assert needs_approval(AGENT, refund, {"amount": 101})
    assert not needs_approval(AGENT, refund, {"amount": 100})
    assert needs_approval(AGENT, wipe, {})
    careful = agent(escalation=[Escalation(when="tool_approval", tools=("look_up",))])
    assert needs_approval(careful, look_up, {})
    assert not needs_approval(careful, add, {})


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (tool_call("look_upp", '{"order": "A"}'), "unknown_tool"),
        (tool_call("look_up", '{"order": '), "cut_off"),
        (tool_call("look_up", "{'order': 'A'}"), "bad_json"),
        (tool_call("look_up", '{"ordr": "A"}'), "schema"),
        (tool_call("look_up", ""), "bad_json"),
    ],
)
def test_an_invalid_call_is_answered_and_never_runs(call, kind):
    """An invalid call gets one result, and a valid call in the same reply still runs."""
    found = read(call, LOOK)
    assert [row.ordinal for row in found.calls] == [1]
    (answer,) = found.answers
    assert (answer.ordinal, answer.call_id, answer.is_error) == (0, call.id, True)
    assert found.invalid == [f"{call.name}: {kind}"]


@pytest.mark.parametrize("stop", [Stop.LENGTH, Stop.END, Stop.PAUSE, Stop.UNKNOWN])
def test_calls_of_a_reply_that_was_cut_off_never_run(stop):
    """A reply that was cut off may have half a call that happens to be valid JSON."""
    found = read(LOOK, LOOK, stop=stop)
    assert (found.calls, found.inline, found.output) == ([], [], None)
    assert [answer.ordinal for answer in found.answers] == [0, 1]
    assert "Make it again" in found.answers[0].content


@pytest.mark.parametrize(
    ("stop", "kind"),
    [
        (Stop.REFUSAL, FailureKind.REFUSED),
        (Stop.CONTEXT_FULL, FailureKind.CONTEXT_OVERFLOW),
        (Stop.UNKNOWN, FailureKind.PROVIDER_ERROR),
        (Stop.TOOLS, FailureKind.PROVIDER_ERROR),
    ],
)
def test_a_stop_that_ends_the_turn_is_a_failure_of_its_kind(stop, kind):
    """This includes a reply that stops for tools but has no call."""
    assert read("hm", stop=stop).failure.kind is kind


def test_a_paused_turn_continues_with_what_was_said():
    """Some providers pause a long turn. The next model call continues it."""
    found = read("So far so good", stop=Stop.PAUSE)
    assert (found.output, found.failure, found.answers) == (None, None, [])


@pytest.mark.parametrize(("words", "stop"), [("", None), ("  \n", None), ("cut o", Stop.LENGTH)])
def test_an_invalid_answer_is_sent_back_twice_and_then_fails(words, stop):
    """The limit ends an endless loop."""
    log = [UserMessage(group=1, text="hi")]
    for repairs in range(ladder.MAX_IDENTICAL - 1):
        found = read(words, stop=stop, log=tuple(log))
        assert found.failure is None
        assert isinstance(found.answers[0], NoteMessage)
        log += [said(2 + repairs, words), note(2 + repairs)]
    assert read(words, stop=stop, log=tuple(log)).failure.kind is FailureKind.OUTPUT_INVALID


def test_a_tool_call_resets_the_count_of_repairs():
    """Two bad answers, a tool call and a bad answer count as one bad answer in a row."""
    log = (UserMessage(group=1, text="hi"), said(2, ""), note(2), said(3, ""), note(3), said(4, LOOK), result(4, 0))
    assert read("", log=log).failure is None


class Answer(BaseModel):
    order: str
    days: int


@pytest.mark.parametrize("words", ["soon", '{"order": "A-17"}', '{"order": "A-17", "days": "two"}', "[]", "[" * 5_000])
def test_a_final_answer_must_satisfy_the_output_schema(words):
    """An answer that violates the schema is sent back with the problems."""
    found = read(words, to=agent(output_schema=Answer))
    assert found.output is None
    assert "JSON" in found.answers[0].text


def test_a_final_answer_that_satisfies_the_schema_is_unchanged():
    """A valid answer is passed on byte for byte."""
    assert (
        read('{ "order":"A-17", "days": 2 }', to=agent(output_schema=Answer)).output == '{ "order":"A-17", "days": 2 }'
    )


# --- ceilings


def test_the_ceiling_of_tool_calls_counts_the_whole_job():
    """Earlier calls of the job count, and calls of this turn. Calls above the ceiling are answered without running."""
    limited = agent(limits=RunLimits(max_tool_calls=3))
    found = read(LOOK, LOOK, to=limited, job_tool_calls=2)
    assert len(found.calls) == 1
    assert "3 tool calls" in found.answers[0].content


def test_the_ceiling_of_one_tool_counts_this_job_only():
    """Calls of an earlier job of the session do not count."""
    limited = agent(limits=RunLimits(max_tool_calls={"look_up": 2}))
    earlier = (
        UserMessage(group=1, text="hi"),
        said(2, LOOK, LOOK, LOOK),
        *(result(2, n) for n in range(3)),
        said(3, "ok"),
    )
    now = (*earlier, UserMessage(group=4, text="and now?"))
    assert len(read(LOOK, LOOK, LOOK, to=limited, log=now).calls) == 2
    then = (*now, said(5, LOOK), result(5, 0))
    found = read(LOOK, LOOK, tool_call("add", '{"a": 1, "b": 1}'), to=limited, log=then)
    assert [row.call.name for row in found.calls] == ["look_up", "add"]


def test_more_than_64_calls_of_a_turn_are_refused():
    """64 calls of one turn run, and the others are answered without running."""
    found = read(*[LOOK] * 70)
    assert (len(found.calls), len(found.answers)) == (64, 6)


def test_children_are_limited_in_number_and_in_depth():
    """The number is counted in the job, the depth in the lineage."""
    child = Agent("scout", "scripted:m-1", "You scout.")
    parent = Agent(
        "chief", "scripted:m-1", "You lead.", children=[child], limits=RunLimits(max_children=2, max_depth=1)
    )
    ask = tool_call("scout", '{"input": "go"}')
    found = read_reply(parent, claim_of(job_children=1), reply_of(ask, ask))
    assert (found.children, len(found.calls), len(found.answers)) == (1, 1, 1)
    assert read_reply(parent, claim_of(job_depth=1), reply_of(ask)).calls == []


def test_read_result_is_answered_from_the_store():
    """`read_result` is no tool of the agent, and exists only if there is a kept result."""
    page = tool_call("read_result", '{"handle": "h", "offset": 0}')
    assert read(page, flags=frozenset({"results"})).pages == [page]
    assert isinstance(read(page).answers[0], ToolMessage)
