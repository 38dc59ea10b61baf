"""Recorded conversations over both vendors' wires: what the model said comes back to the byte."""

from __future__ import annotations

import gzip
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from midwatch.workers.simulator import Faults, ModelServer, TranscriptBrain

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
Messages = list[dict[str, Any]]


def recorded(name: str) -> list[Messages]:
    """The conversations of a data file, each from its first user message on, system prompt first."""
    path = DATA / name
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"recorded data is not here: {path}")
    with gzip.open(path, "rt") as lines:
        records = [json.loads(line)["messages"] for line in lines]
    return [[in_chat_form(message) for message in record] for record in records]


def in_chat_form(message: dict[str, Any]) -> dict[str, Any]:
    """τ² writes calls without their `function`, arguments decoded, and the id of a result as its `id`."""
    if message["role"] == "tool":
        return {**message, "tool_call_id": message.get("tool_call_id") or message.get("id")}
    calls = [
        call
        if "function" in call
        else {"id": call["id"], "function": {"name": call["name"], "arguments": compact(call["arguments"])}}
        for call in message.get("tool_calls") or []
    ]
    return {**message, "content": message.get("content"), "tool_calls": calls}


def compact(value: Any) -> str:
    """JSON as the server sends arguments that were recorded decoded."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def opened(messages: Messages) -> Messages:
    """Without a greeting by the assistant: a client begins with what the user said."""
    first = next(number for number, message in enumerate(messages) if message["role"] == "user")
    return messages[first:]


def system_of(messages: Messages) -> str:
    """The system prompt; empty when there is none."""
    return messages[0]["content"] if messages[0]["role"] == "system" else ""


class ChatWalker:
    """Walks a record over Chat Completions: says what the user said, answers calls as the tools did."""

    def __init__(self, server: ModelServer, max_retries: int = 0) -> None:
        self.sdk = openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=max_retries)

    def walk(self, record: Messages) -> Messages:
        """What the model said, in recorded form."""
        history: Any = [{"role": "system", "content": system_of(record)}]
        said: Messages = []
        for message in opened(record):
            if message["role"] != "assistant":
                history.append({key: message[key] for key in ("role", "content", "tool_call_id") if key in message})
                continue
            got = self.sdk.chat.completions.create(model="gpt-4o", messages=history).choices[0].message
            history.append(got.model_dump(exclude_none=True))
            said.append({"content": got.content, "calls": _calls(history[-1])})
        return said

    def expected(self, record: Messages) -> Messages:
        """The record's assistant turns: ids, names and raw arguments."""
        turns = [message for message in opened(record) if message["role"] == "assistant"]
        return [{"content": turn["content"] or None, "calls": _calls(turn)} for turn in turns]


def _calls(message: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls = message.get("tool_calls") or []
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


class ResponsesWalker:
    """Walks a record over Responses."""

    def __init__(self, server: ModelServer, max_retries: int = 0) -> None:
        self.sdk = openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=max_retries)

    def walk(self, record: Messages) -> Messages:
        """What the model said, in recorded form."""
        history: list[Any] = []
        said: Messages = []
        for message in opened(record):
            if message["role"] == "user":
                history.append({"role": "user", "content": message["content"]})
            elif message["role"] == "tool":
                history.append(
                    {"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}
                )
            else:
                # As extra_body: walking the types of `input` costs this SDK 16 ms of CPU for 27 items, each time.
                got = self.sdk.responses.create(
                    model="gpt-4o", instructions=system_of(record) or None, extra_body={"input": history}
                )
                history.extend(item.model_dump(exclude_none=True) for item in got.output)
                calls = [
                    (item.call_id, item.name, item.arguments) for item in got.output if item.type == "function_call"
                ]
                said.append({"content": got.output_text or None, "calls": calls})
        return said

    expected = ChatWalker.expected


class AnthropicWalker:
    """Walks a record over Messages, which carries arguments as objects."""

    def __init__(self, server: ModelServer, max_retries: int = 0) -> None:
        self.sdk = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=max_retries)

    def walk(self, record: Messages) -> Messages:
        """What the model said; arguments as text in the order in which they came."""
        history: list[Any] = []
        said: Messages = []
        for message in opened(record):
            if message["role"] == "user":
                history.append({"role": "user", "content": message["content"]})
            elif message["role"] == "tool":
                block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": message["content"]}
                if history[-1]["role"] == "user":
                    history[-1]["content"].append(block)
                else:
                    history.append({"role": "user", "content": [block]})
            else:
                got = self.sdk.messages.create(
                    model="claude-sonnet-4-6", max_tokens=4096, system=system_of(record), messages=history
                )
                history.append({"role": "assistant", "content": got.content})
                text = "".join(block.text for block in got.content if block.type == "text")
                uses = [block for block in got.content if block.type == "tool_use"]
                calls = [(use.id, use.name, json.dumps(use.input)) for use in uses]
                said.append({"content": text or None, "calls": calls})
        return said

    def expected(self, record: Messages) -> Messages:
        """The record's assistant turns; raw arguments decoded and dumped again, key order kept."""
        turns = [message for message in opened(record) if message["role"] == "assistant"]
        return [
            {
                "content": turn["content"] or None,
                "calls": [(id_, name, json.dumps(_decoded(raw))) for id_, name, raw in _calls(turn)],
            }
            for turn in turns
        ]


def _decoded(raw: str) -> Any:
    try:
        return json.loads(raw or "{}")
    except ValueError:
        return {}


Walker = ChatWalker | ResponsesWalker | AnthropicWalker
WALKERS = [AnthropicWalker, ResponsesWalker, ChatWalker]


def serve(records: list[Messages], faults: Faults | None = None) -> ModelServer:
    """A server that replays the records."""
    return ModelServer(TranscriptBrain(records), faults=faults)


@pytest.fixture(scope="module")
def tickets() -> list[Messages]:
    return recorded("tau_retail/trajectories.jsonl.gz")


@pytest.mark.parametrize("walker", WALKERS, ids=lambda walker: walker.__name__)
def test_fifty_tickets_come_back_as_recorded(walker: type[Walker], tickets: list[Messages]) -> None:
    """Fifty retail tickets, eight at a time in a shuffled order: text, ids and arguments are the record's."""
    shuffled = random.Random(3).sample(tickets, len(tickets))
    with serve(tickets) as server, ThreadPoolExecutor(8) as pool:
        client = walker(server)
        with client.sdk:
            walked = list(pool.map(client.walk, shuffled))
        assert walked == [client.expected(record) for record in shuffled]
        stats = server.stats()
    assert (stats.unexpected, stats.conversations) == (0, 50)
    assert stats.by_status == {200: sum(len(turns) for turns in walked)}


@pytest.mark.parametrize("walker", [AnthropicWalker, ChatWalker], ids=lambda walker: walker.__name__)
def test_faults_do_not_change_what_was_said(walker: type[Walker], tickets: list[Messages]) -> None:
    """With a fifth of all requests refused, reset or cut off, and SDKs that retry, the transcripts are the same."""
    faults = Faults(rate_limited=0.05, overloaded=0.05, reset=0.05, truncated=0.05, retry_after_s=0.01, seed=5)
    few = tickets[:6]
    with serve(few, faults) as server, ThreadPoolExecutor(6) as pool:
        client = walker(server, max_retries=3)
        with client.sdk:
            assert list(pool.map(client.walk, few)) == [client.expected(record) for record in few]
        assert set(server.stats().by_fault) == {"rate_limited", "overloaded", "reset", "truncated"}


@pytest.mark.parametrize("walker", WALKERS, ids=lambda walker: walker.__name__)
@pytest.mark.parametrize("name", ["tau2_airline_repeated_ids.jsonl.gz", "toolathlon_sessions.jsonl.gz"])
def test_odd_records_come_back_as_they_are(walker: type[Walker], name: str) -> None:
    """Repeated ids, greetings, parallel calls, empty and broken arguments: real models' oddities survive the wire."""
    records = [record for record in recorded(name) if len(json.dumps(record)) < 60_000][:8]
    with serve(records) as server:
        client = walker(server)
        with client.sdk:
            for record in records:
                assert client.walk(record) == client.expected(record)
