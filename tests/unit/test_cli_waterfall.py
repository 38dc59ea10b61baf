"""The waterfall: joining trace and session, drawing bars, and explaining rows."""

from __future__ import annotations

from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import Usage
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.cli.commands.trace import draw
from midwatch.workers.views.conversation import JobConversation, find_conversation
from midwatch.workers.views.waterfall import Timeline, explain, make_rows

T0 = 1_700_000_000_000


def job(output: str | None = None) -> Job:
    """Return a job that was enqueued at T0."""
    return Job(
        job_id="j",
        agent="a",
        agent_version="v",
        session_id="s",
        root_id="j",
        status="completed",
        max_steps=9,
        created_ms=T0,
        output=output,
    )


def record(step: str, start_ms: int, end_ms: int, outcome: str = "continue", **more: object) -> TraceRecord:
    """Return one attempt. Times are in ms since T0."""
    kind = "tool" if "." in step else "model"
    given = {"attempt": 0, "worker": "w", **more}
    return TraceRecord(step=step, kind=kind, outcome=outcome, started_ms=T0 + start_ms, ended_ms=T0 + end_ms, **given)


def answer(group: int, text: str, *tools: str) -> AssistantMessage:
    """Return one model turn with a text and tool calls."""
    calls = tuple(ToolCall(id=f"c{n}", name=name, raw_arguments=f'{{"n":{n}}}') for n, name in enumerate(tools))
    return AssistantMessage(group=group, parts=(Text(text=text), *calls), provider="p", model="m")


def test_each_turn_gets_its_messages():
    """Texts, calls and results are found by step id."""
    messages = [
        UserMessage(group=1, text="go"),
        answer(2, "I look it up.", "search"),
        ToolMessage(group=2, ordinal=0, call_id="c0", tool="search", content="nothing found", is_error=True),
        answer(3, "Done."),
    ]
    records = [record("1", 0, 5, tools=("search",)), record("1.0", 5, 6, tool="search"), record("2", 6, 9, "complete")]
    found = find_conversation(job("Done."), records, messages)
    assert found.texts == {"1": "I look it up.", "2": "Done."}
    assert found.calls["1.0"].raw_arguments == '{"n":0}'
    assert explain(records[0], found) == "“I look it up.”"
    assert explain(records[1], found) == "nothing found"


def test_a_session_of_many_jobs_gives_each_job_its_part():
    """A part is recognised by the tools that were called. If they are the same, the job's output decides."""
    messages = [
        UserMessage(group=1, text="first"),
        answer(2, "One."),
        UserMessage(group=3, text="second"),
        answer(4, "Let me see.", "search"),
        answer(5, "Two."),
        UserMessage(group=6, text="third"),
        answer(7, "Three."),
    ]
    once = [record("1", 0, 5, "complete")]
    twice = [record("1", 0, 5, tools=("search",)), record("2", 6, 9, "complete")]
    assert find_conversation(job("One."), once, messages).texts == {"1": "One."}
    assert find_conversation(job("Two."), twice, messages).texts == {"1": "Let me see.", "2": "Two."}
    assert find_conversation(job("Three."), once, messages).texts == {"1": "Three."}


def test_a_session_without_a_matching_part_gives_nothing():
    """The session may be compacted, or still empty."""
    other = [UserMessage(group=1, text="go"), answer(2, "x", "another_tool")]
    assert find_conversation(job(), [record("1", 0, 5, tools=("search",))], other) == JobConversation()
    assert find_conversation(job(), [], []) == JobConversation()


def test_a_row_shows_how_long_its_step_waited():
    """A deferred step waits from the end of an attempt to the start of the next. Other steps do not wait."""
    failure = Failure(kind="overloaded", detail="529")
    records = [
        record("1", 0, 10, "defer", failure=failure, reason="overloaded: 529"),
        record("1", 510, 520, "continue", attempt=1, tools=("a", "a", "b")),
        record("2", 520, 530, "complete"),
    ]
    first, second, third = make_rows(job(), records, JobConversation())
    assert (first.offset_ms, first.took_ms, first.waited_ms, first.attempt) == (0, 10, 500, 1)
    assert (second.waited_ms, second.attempt, second.reason) == (0, 2, "calls a ×2, b")
    assert third.waited_ms == 0
    assert first.reason == "overloaded: 529"


def test_a_reason_names_refused_calls_and_unknown_effects():
    """The reason says why a call was refused, and that an effect is unknown."""
    turn = record("1", 0, 5, tools=("refund",), invalid=("refund: schema",))
    assert explain(turn, JobConversation()) == "calls refund; refused: refund: schema"
    unknown = record("1.0", 5, 6, tool="refund", effect="unknown")
    assert explain(unknown, JobConversation()).startswith("effect unknown")


def test_work_is_to_scale_and_a_long_wait_is_shortened():
    """Two hours between two steps of one second are drawn as wide as one step."""
    line = Timeline([(0, 1_000), (7_200_000, 7_201_000)], 30)
    assert [round(line.column_at(time_ms)) for time_ms in (0, 1_000, 7_200_000, 7_201_000)] == [0, 10, 20, 30]
    assert line.column_at(-5) == 0
    assert round(line.column_at(9_999_999)) == 30


def test_every_row_has_a_bar_even_for_steps_of_0_ms():
    """Steps of 0 ms and overlapping steps get a bar with at least one mark."""
    records = [record("1", 0, 0), record("1.0", 0, 0, tool="t"), record("1.1", 0, 3, tool="t"), record("2", 3, 3)]
    found = make_rows(job(), records, JobConversation())
    line = Timeline([(row.offset_ms, row.offset_ms + row.took_ms) for row in found], 20)
    bars = [line.bar(row, 20, work="#", wait=".") for row in found]
    assert all(len(bar) == 20 and "#" in bar for bar in bars)
    assert draw([], 80) == []


def test_the_drawing_fits_the_terminal():
    """No line is longer than the terminal. On a narrow terminal the reason is on the next line."""
    failure = Failure(kind="overloaded", detail="the service said that it is overloaded " * 3)
    records = [record("1", 0, 10, "defer", failure=failure), record("1", 700, 1_700, "complete", attempt=1, model="m")]
    for width in (60, 80, 100, 160):
        lines = draw(make_rows(job(), records, JobConversation()), width)
        assert all(line.cell_len <= width for line in lines)
        assert any("overloaded: the service" in line.plain for line in lines)
    assert len(draw(make_rows(job(), records, JobConversation()), 160)) == 3
    assert len(draw(make_rows(job(), records, JobConversation()), 80)) == 4


def test_usage_that_was_not_believed_is_not_shown_as_zero():
    """Its counts are unknown."""
    usage = Usage(reported=False, impossible="input_tokens")
    lines = draw(make_rows(job(), [record("1", 0, 10, "complete", model="m", usage=usage)], JobConversation()), 160)
    assert any("? / ?" in line.plain for line in lines)
    assert not any("0 / 0" in line.plain for line in lines)
