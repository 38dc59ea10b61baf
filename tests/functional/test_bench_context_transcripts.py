"""Transcripts of three vendors are read and written back. Nothing is lost or invented, and unusual entries are kept."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.message import AssistantMessage, NoteMessage, Opaque, ToolMessage, UserMessage
from midwatch.workers.bench.context.recorded_jobs import BRIDGE, OPENING, split_jobs
from midwatch.workers.bench.context.transcripts import ORPHAN, load, read_transcript, to_chat_messages

CHAT = [
    {"role": "system", "content": "You look things up."},
    {"role": "user", "content": "Where are A-17 and B-2?"},
    {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"order": "A-17"}'}},
            {"id": "c2", "type": "function", "function": {"name": "find", "arguments": '{"order": "B-2"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "on its way"},
    {"role": "tool", "tool_call_id": "c2", "content": "delivered"},
    {"role": "assistant", "content": "One is on its way, one is there."},
]
RESPONSES = {
    "instructions": "You look things up.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Where are A-17 and B-2?"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "find", "arguments": '{"order": "A-17"}'},
        {"type": "function_call", "call_id": "c2", "name": "find", "arguments": '{"order": "B-2"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "on its way"},
        {"type": "function_call_output", "call_id": "c2", "output": "delivered"},
    ],
    "output": [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "One is on its way, one is there."}],
        }
    ],
}
ANTHROPIC = {
    "system": [{"type": "text", "text": "You look things up."}],
    "messages": [
        {"role": "user", "content": "Where are A-17 and B-2?"},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "c1", "name": "find", "input": {"order": "A-17"}},
                {"type": "tool_use", "id": "c2", "name": "find", "input": {"order": "B-2"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "on its way"},
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "delivered"}]},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "One is on its way, one is there."}]},
    ],
    "tools": [{"name": "find", "description": "Find an order.", "input_schema": {"type": "object"}}],
}


def plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Normalize a Chat transcript for a comparison: developer is system, null is no text, parts become their text."""
    rows = []
    for message in messages:
        content = message.get("content")
        text = content if isinstance(content, str) else "".join(part["text"] for part in content or ())
        role = "system" if message["role"] == "developer" else message["role"]
        calls = [
            (call.get("id", ""), one["name"], one["arguments"])
            for call in message.get("tool_calls") or ()
            for one in [call.get("function", call)]
        ]
        rows.append({"role": role, "text": text, "calls": calls, "of": message.get("tool_call_id")})
    return rows


def test_three_vendor_formats_of_a_conversation_read_the_same():
    """Chat, Responses and Anthropic give the same system prompt, the same groups, the same calls and results."""
    chat, responses, anthropic = read_transcript(CHAT), read_transcript(RESPONSES), read_transcript(ANTHROPIC)
    assert chat.system == responses.system == anthropic.system == "You look things up."
    assert chat.messages == responses.messages == anthropic.messages
    assert [message.group for message in chat.messages] == [1, 2, 2, 2, 3]
    assert [tool.name for tool in anthropic.tools] == ["find"]


@pytest.mark.parametrize(
    "file", ["toolathlon_sessions.jsonl.gz", "tau_retail/trajectories.jsonl.gz", "tau_airline/trajectories.jsonl.gz"]
)
def test_recorded_conversations_are_written_back_unchanged(data_dir, file):
    """Every message, call, id and argument of every record is there, in order."""
    rows = [json.loads(line) for line in gzip.decompress((data_dir / file).read_bytes()).splitlines()]
    records = load(data_dir / file)
    assert len(records) == len(rows)
    for row, record in zip(rows, records, strict=True):
        assert plain(to_chat_messages(record)) == plain(row["messages"])


def test_repeated_ids_stay_and_each_result_finds_its_own_call(data_dir):
    """Two calls with one id, in one turn or in two, each have their own result, and no result is left over."""
    for record in load(data_dir / "tau2_airline_repeated_ids.jsonl.gz"):
        results = [message for message in record.messages if isinstance(message, ToolMessage)]
        assert all(result.ordinal != ORPHAN for result in results)
        assert len({(result.group, result.ordinal) for result in results}) == len(results)
    call = {"id": "same", "function": {"name": "f", "arguments": ""}}
    told = [{"role": "tool", "tool_call_id": "same", "content": text} for text in ("first", "second")]
    record = read_transcript(
        [{"role": "user", "content": "go"}, {"role": "assistant", "tool_calls": [call, call]}, *told]
    )
    assert [(one.ordinal, one.content) for one in record.messages[2:]] == [(0, "first"), (1, "second")]


def test_unusual_entries_are_kept():
    """Calls without results, results without calls, `""` as arguments, content lists, late system messages, developer, errors."""
    record = read_transcript(
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
                {"role": "user", "content": [{"type": "text", "text": "go"}]},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]},
                {"role": "system", "content": "Mind the time."},
                {"role": "tool", "tool_call_id": "b", "content": "stray"},
                {"role": "tool", "tool_call_id": "a", "content": "late", "error": True},
                {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"broken'}}]},
            ],
            "reward": 1,
        }
    )  # fmt: skip
    assert record.system == "Be kind."
    user, asked, note, stray, late, open_call = record.messages
    assert (user, note) == (UserMessage(group=1, text="go"), NoteMessage(group=3, text="Mind the time."))
    assert isinstance(asked, AssistantMessage)
    assert asked.tool_calls[0].raw_arguments == ""
    assert isinstance(stray, ToolMessage)
    assert isinstance(late, ToolMessage)
    assert (stray.ordinal, stray.content) == (ORPHAN, "stray")
    assert (late.group, late.ordinal, late.is_error) == (asked.group, 0, True)
    assert isinstance(open_call, AssistantMessage)
    assert open_call.tool_calls[0].raw_arguments == '{"broken'


def test_a_vendors_own_blocks_stay_in_their_turn():
    """Thinking and reasoning are parts of the model's turn, in their order."""
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    record = read_transcript([{"role": "assistant", "content": [thinking, {"type": "text", "text": "Yes."}]}])
    assert record.messages[0].parts[0] == Opaque(provider="anthropic", raw=thinking)
    reasoning = {"type": "reasoning", "id": "r", "encrypted_content": "x"}
    record = read_transcript(
        {"input": [reasoning, {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}
    )
    assert [part.type for part in record.messages[0].parts] == ["opaque", "tool_call"]


@pytest.mark.parametrize("shape", ["one record", "list of records", "records by line", "messages by line", "messages"])
def test_a_file_may_hold_records_in_any_usual_shape(tmp_path: Path, shape: str):
    """One or several records, one on each line or not, or a message on each line, with or without gzip, under any name."""
    text = {
        "one record": json.dumps({"messages": CHAT}),
        "list of records": json.dumps([{"id": "x", "messages": CHAT}, RESPONSES]),
        "records by line": json.dumps({"messages": CHAT}) + "\n\n" + json.dumps(ANTHROPIC) + "\n",
        "messages by line": "\n".join(map(json.dumps, CHAT)),
        "messages": json.dumps(CHAT, indent=2),
    }[shape]
    for body in (text.encode(), gzip.compress(text.encode())):
        (tmp_path / "file").write_bytes(body)
        records = load(tmp_path / "file")
        assert len(records) == (2 if "records" in shape else 1)
        assert {record.messages for record in records} == {read_transcript(CHAT).messages}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"messages": []}\n{"messages": [', "line 2: expected JSON"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "message 1, block 1: expected text"),
        ('{"messages": [{"role": "human", "content": "x"}]}', "message 1: expected a role"),
        (
            '{"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}',
            "message 1, tool call 1: expected a tool",
        ),
        ('{"messages": [{"role": "user", "content": "a\\ud800"}]}', "message 1: expected text that is Unicode"),
        ('{"chat": []}', "expected `messages` or `input`"),
        ('{"messages": [], "tools": [{"type": "web_search"}]}', "tool 1: expected a tool with a `name`"),
        ("", "empty"),
    ],
)
def test_an_unreadable_record_is_reported_with_its_place(tmp_path: Path, text: str, place: str):
    """The message names file, line or record, message and block."""
    path = tmp_path / "odd.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=place.replace("(", r"\(")) as raised:
        load(path)
    assert str(path) in str(raised.value)
    with pytest.raises(ConfigError, match="can't be read"):
        load(tmp_path / "absent.json")


TEXT, IDS = st.text(max_size=8), st.sampled_from(["a", "b", ""])
ARGUMENTS = st.sampled_from(["", "{}", '{"x": 1}', "{broken"])
FUNCTION = st.fixed_dictionaries({"name": st.sampled_from(["f", "g.h", "1st"]), "arguments": ARGUMENTS})
CALL = st.fixed_dictionaries({"id": IDS, "type": st.just("function"), "function": FUNCTION})
MESSAGE = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "developer"]), "content": TEXT}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": TEXT, "tool_calls": st.lists(CALL, max_size=3)}),
    st.fixed_dictionaries({"role": st.just("tool"), "tool_call_id": st.sampled_from(["a", "b", "z"]), "content": TEXT}),
)


@given(st.lists(MESSAGE, max_size=12))
def test_any_conversation_is_written_back_as_it_was_read(messages: list[dict[str, Any]]):
    """Any order, any ids and any gaps survive reading and writing. Each result belongs to exactly one call."""
    record = read_transcript(messages)
    first = messages[:1] if messages and messages[0]["role"] in ("system", "developer") else []
    empty_prompt = first and not record.system
    assert plain(to_chat_messages(record)) == plain(messages[1:] if empty_prompt else messages)
    places = [(m.group, m.ordinal) for m in record.messages if isinstance(m, ToolMessage)]
    assert len(set(places)) == len(places)


def test_each_user_message_begins_a_job():
    """Each job has its input and turns. Text marks the places where a session can't hold what was recorded."""
    jobs = split_jobs(read_transcript(CHAT))
    assert [(job.input, len(job.turns)) for job in jobs] == [("Where are A-17 and B-2?", 2)]
    assert [turn.stop for turn in jobs[0].turns] == ["tools", "end"]
    assert [result.content for result in jobs[0].turns[0].results.values()] == ["on its way", "delivered"]
    greeted = split_jobs(
        read_transcript([{"role": "assistant", "content": "Hello."}, *CHAT[1:4], {"role": "user", "content": "?"}])
    )
    assert [job.input for job in greeted] == [OPENING, "Where are A-17 and B-2?"]
    assert greeted[1].turn(2).parts[0].text == BRIDGE
    twice = split_jobs(read_transcript([CHAT[1], CHAT[5], CHAT[5]]))
    assert [turn.stop for turn in twice[0].turns] == ["pause", "end"]
