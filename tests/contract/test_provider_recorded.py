"""Recorded conversations of real models, written for every vendor. They have repeated ids and broken arguments."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import AssistantMessage, Message, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.anthropic.request import write_messages_request
from midwatch.workers.providers.chat_completions.gemini_schema import KEPT, convert_to_gemini
from midwatch.workers.providers.chat_completions.request import write_chat_request
from midwatch.workers.providers.responses.request import write_responses_request
from tests.contract.provider_replies import VENDOR_REPLIES
from tests.contract.provider_requests import SEARCH

SESSIONS = ("tau2_airline_repeated_ids", "toolathlon_sessions")

WRITERS: dict[str, Callable[[ModelRequest], JsonObject]] = {
    "anthropic": lambda request: write_messages_request(request, "anthropic"),
    "openai": lambda request: write_responses_request(request, "openai"),
    "gemini": lambda request: write_chat_request(request, "gemini", gemini=True),
    "openai-compatible": lambda request: write_chat_request(request, "openai-compatible", gemini=False),
}


def recorded(folder: Path, name: str) -> Iterator[list[Message]]:
    """Yield the recorded sessions of one file as messages."""
    with gzip.open(folder / f"{name}.jsonl.gz", "rt") as lines:
        for line in lines:
            yield neutral(json.loads(line)["messages"])


def neutral(rows: Sequence[Any]) -> list[Message]:
    """Convert one recorded conversation into messages. A turn with a call that has no result is left out."""
    messages: list[Message] = []
    calls: tuple[ToolCall, ...] = ()
    owner, answered = 0, 0
    for row in rows:
        group = len(messages)
        if row["role"] == "user":
            messages.append(UserMessage(group=group, text=row["content"]))
        elif row["role"] == "assistant":
            calls, owner, answered = tuple(_call(call) for call in row.get("tool_calls") or ()), group, 0
            texts = [Text(text=row["content"])] if row.get("content") else []
            messages.append(AssistantMessage(group=group, parts=(*texts, *calls), provider="recorded", model="m"))
        elif row["role"] == "tool" and answered < len(calls):
            content = row["content"] if isinstance(row["content"], str) else json.dumps(row["content"])
            call = calls[answered]
            messages.append(
                ToolMessage(group=owner, ordinal=answered, call_id=call.id, tool=call.name, content=content)
            )
            answered += 1
    whole = {m.group: len(m.tool_calls) for m in messages if isinstance(m, AssistantMessage)}
    for message in messages:
        if isinstance(message, ToolMessage):
            whole[message.group] -= 1
    return [message for message in messages if whole.get(message.group, 0) == 0]


def _call(call: Any) -> ToolCall:
    function = call.get("function", call)
    arguments = function["arguments"]
    raw = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall(id=call["id"], name=function["name"], raw_arguments=raw)


def request_of(messages: Sequence[Message]) -> ModelRequest:
    return ModelRequest(model="gemini-3-pro", system="Help.", messages=tuple(messages), tools=(SEARCH,))


@pytest.mark.parametrize("provider", WRITERS)
@pytest.mark.parametrize("name", SESSIONS)
def test_every_result_stays_with_its_call(data_dir: Path, name: str, provider: str) -> None:
    """In 36 real sessions, each sent id is unique and the n-th result has the id of the n-th call."""
    repeated = calls = 0
    for messages in recorded(data_dir, name):
        body = WRITERS[provider](request_of(messages))
        ids = VENDOR_REPLIES[provider].call_ids(body)
        results = VENDOR_REPLIES[provider].results(body)
        assert len(ids) == len(set(ids))
        assert [call_id for call_id, _ in results] == ids
        assert [content for _, content in results] == [m.content for m in messages if isinstance(m, ToolMessage)]
        own = [call.id for m in messages if isinstance(m, AssistantMessage) for call in m.tool_calls]
        calls += len(own)
        repeated += len(own) - len(set(own))
    assert calls > 100
    if name == "tau2_airline_repeated_ids":
        assert repeated > 30


@pytest.mark.parametrize("provider", WRITERS)
def test_the_prefix_is_stable(data_dir: Path, provider: str) -> None:
    """A later request of a session begins with all messages of an earlier one, so prompt caches work."""
    for messages in recorded(data_dir, "tau2_airline_repeated_ids"):
        ends = [n for n, m in enumerate(messages) if isinstance(m, AssistantMessage)]
        whole = _items(WRITERS[provider](request_of(messages)))
        for end in ends[1::3]:
            part = _items(WRITERS[provider](request_of(messages[:end])))
            assert whole[: len(part) - 1] == part[:-1]


def _items(body: JsonObject) -> list[str]:
    """Return the messages of a body as text. Cache breakpoints are removed, because they move from request to request."""
    items: list[Any] = json.loads(json.dumps(body.get("messages") or body["input"]))
    for item in items:
        for block in item["content"] if isinstance(item.get("content"), list) else ():
            block.pop("cache_control", None)
    return [json.dumps(item) for item in items]


def test_arguments_are_sent_back_unchanged(data_dir: Path) -> None:
    """Arguments of real calls are sent back byte for byte if the vendor wants text. Broken ones become {}."""
    for messages in recorded(data_dir, "toolathlon_sessions"):
        raw = [call.raw_arguments for m in messages if isinstance(m, AssistantMessage) for call in m.tool_calls]
        items = WRITERS["openai"](request_of(messages))["input"]
        chat = WRITERS["openai-compatible"](request_of(messages))["messages"]
        in_items = [item["arguments"] for item in items if item.get("type") == "function_call"]
        in_chat = [call["function"]["arguments"] for m in chat for call in m.get("tool_calls", ())]
        for original, *sent in zip(raw, in_items, in_chat, strict=True):
            expected = original if isinstance(_decode(original), dict) else "{}"
            assert sent == [expected, expected]


def _decode(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def test_real_tool_schemas_for_gemini(data_dir: Path) -> None:
    """Schemas of real tools, converted for Gemini, keep all parameters and use accepted keywords only."""
    with gzip.open(data_dir / "mcp_server_tools.json.gz", "rt") as text:
        schemas = list(_schemas([json.load(text), json.loads((data_dir / "agentdojo_tools.json").read_text())]))
    assert len(schemas) > 100
    for schema in schemas:
        sent = convert_to_gemini(schema)
        assert sent["type"] == "object"
        assert sent.get("properties", {}).keys() == schema.get("properties", {}).keys()
        assert _keywords(sent) <= {*KEPT, "type", "properties", "required", "items", "enum", "anyOf"}


def _keywords(schema: JsonObject) -> set[str]:
    """Return every keyword of a schema and of the schemas inside it."""
    inner = [*schema.get("anyOf", ()), *schema.get("properties", {}).values(), schema.get("items", {})]
    return set(schema).union(*map(_keywords, (part for part in inner if part)))


def _schemas(value: object) -> Iterator[JsonObject]:
    """Yield every input schema inside a value."""
    if isinstance(value, dict):
        found = value.get("inputSchema") or value.get("parameters")
        if isinstance(found, dict) and found.get("type", "object") == "object":
            yield found
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _schemas(inner)
