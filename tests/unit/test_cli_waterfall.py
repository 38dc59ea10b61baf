"""The waterfall: what is joined from trace and session, where it is drawn, and the reason it gives."""

from __future__ import annotations

from midwatch.schemas.failure import Failure
from midwatch.schemas.job import Job
from midwatch.schemas.message import AssistantMessage, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.trace import TraceRecord
from midwatch.workers.cli.commands.trace import draw
from midwatch.workers.views.conversation import Said, said
from midwatch.workers.views.waterfall import Timeline, rows, why

T0 = 1_700_000_000_000


def job(output: str | None = None) -> Job:
    """A job that was enqueued at T0."""
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
    """One attempt, times in ms since T0."""
    kind = "tool" if "." in step else "model"
    given = {"attempt": 0, "worker": "w", **more}
    return TraceRecord(step=step, kind=kind, outcome=outcome, started_ms=T0 + start_ms, ended_ms=T0 + end_ms, **given)


def answer(group: int, text: str, *tools: str) -> AssistantMessage:
    """One model turn that says something and calls tools."""
    calls = tuple(ToolCall(id=f"c{n}", name=name, raw_arguments=f'{{"n":{n}}}') for n, name in enumerate(tools))
    return AssistantMessage(group=group, parts=(Text(text=text), *calls), provider="p", model="m")


def test_each_turn_gets_what_was_said_in_it():
    """Texts, calls and results are found by step id."""
    messages = [
        UserMessage(group=1, text="go"),
        answer(2, "I look it up.", "search"),
        ToolMessage(group=2, ordinal=0, call_id="c0", tool="search", content="nothing found", is_error=True),
        answer(3, "Done."),
    ]
    records = [record("1", 0, 5, tools=("search",)), record("1.0", 5, 6, tool="search"), record("2", 6, 9, "complete")]
    found = said(job("Done."), records, messages)
    assert found.texts == {"1": "I look it up.", "2": "Done."}
    assert found.calls["1.0"].raw_arguments == '{"n":0}'
    assert why(records[0], found) == "“I look it up.”"
    assert why(records[1], found) == "nothing found"


def test_a_session_of_many_jobs_gives_each_its_own_part():
    """Recognised by the tools that were called; where those are the same, by the job's output."""
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
    assert said(job("One."), once, messages).texts == {"1": "One."}
    assert said(job("Two."), twice, messages).texts == {"1": "Let me see.", "2": "Two."}
    assert said(job("Three."), once, messages).texts == {"1": "Three."}


def test_what_does_not_fit_together_gives_nothing_instead_of_something_wrong():
    """A session that was compacted, or has nothing in it yet."""
    other = [UserMessage(group=1, text="go"), answer(2, "x", "another_tool")]
    assert said(job(), [record("1", 0, 5, tools=("search",))], other) == Said()
    assert said(job(), [], []) == Said()


def test_a_row_tells_how_long_its_step_lay_aside():
    """From the end of an attempt to the begin of the next one, for a defer; nothing for steps that went on."""
    failure = Failure(kind="overloaded", detail="529")
    records = [
        record("1", 0, 10, "defer", failure=failure, reason="overloaded: 529"),
        record("1", 510, 520, "continue", attempt=1, tools=("a", "a", "b")),
        record("2", 520, 530, "complete"),
    ]
    first, second, third = rows(job(), records, Said())
    assert (first.offset_ms, first.took_ms, first.waited_ms, first.attempt) == (0, 10, 500, 1)
    assert (second.waited_ms, second.attempt, second.why) == (0, 2, "calls a ×2, b")
    assert third.waited_ms == 0
    assert first.why == "overloaded: 529"


def test_refused_calls_and_unknown_effects_are_said():
    """What was wrong with a call, and what nobody knows, stand in the reason."""
    turn = record("1", 0, 5, tools=("refund",), invalid=("refund: schema",))
    assert why(turn, Said()) == "calls refund; refused: refund: schema"
    assert why(record("1.0", 5, 6, tool="refund", effect="unknown"), Said()).startswith("effect unknown")


def test_work_is_to_scale_and_a_long_wait_is_not():
    """Two hours between two steps of a second take no more room than a step."""
    line = Timeline([(0, 1_000), (7_200_000, 7_201_000)], 30)
    assert [round(line.at(moment)) for moment in (0, 1_000, 7_200_000, 7_201_000)] == [0, 10, 20, 30]
    assert line.at(-5) == 0
    assert round(line.at(9_999_999)) == 30


def test_every_row_has_a_bar_even_where_nothing_took_time():
    """Steps of 0 ms, overlapping steps, a job of one step: a bar of the drawing's width, with a mark in it."""
    records = [record("1", 0, 0), record("1.0", 0, 0, tool="t"), record("1.1", 0, 3, tool="t"), record("2", 3, 3)]
    found = rows(job(), records, Said())
    line = Timeline([(row.offset_ms, row.offset_ms + row.took_ms) for row in found], 20)
    bars = [line.bar(row, 20, work="#", wait=".") for row in found]
    assert all(len(bar) == 20 and "#" in bar for bar in bars)
    assert draw([], 80) == []


def test_the_drawing_fits_the_terminal():
    """At any width, no line is longer; where there is no room beside it, the reason has the line below."""
    failure = Failure(kind="overloaded", detail="the service said that it is overloaded " * 3)
    records = [record("1", 0, 10, "defer", failure=failure), record("1", 700, 1_700, "complete", attempt=1, model="m")]
    for width in (60, 80, 100, 160):
        lines = draw(rows(job(), records, Said()), width)
        assert all(line.cell_len <= width for line in lines)
        assert any("overloaded: the service" in line.plain for line in lines)
    assert len(draw(rows(job(), records, Said()), 160)) == 3
    assert len(draw(rows(job(), records, Said()), 80)) == 4
