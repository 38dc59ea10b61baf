"""Recorded conversations in all vendor formats: the model's answers are returned byte for byte."""

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


def read_records(name: str) -> list[Messages]:
    """Read the conversations of a data file, each with its system prompt first."""
    path = DATA / name
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"recorded data is not here: {path}")
    with gzip.open(path, "rt") as lines:
        records = [json.loads(line)["messages"] for line in lines]
    return [[to_chat_form(message) for message in record] for record in records]


def to_chat_form(message: dict[str, Any]) -> dict[str, Any]:
    """Convert a message to Chat form. τ² records have no `function`, parsed arguments, and the call id in `id`."""
    if message["role"] == "tool":
        return {**message, "tool_call_id": message.get("tool_call_id") or message.get("id")}
    calls = [
        call
        if "function" in call
        else {"id": call["id"], "function": {"name": call["name"], "arguments": compact_json(call["arguments"])}}
        for call in message.get("tool_calls") or []
    ]
    return {**message, "content": message.get("content"), "tool_calls": calls}


def compact_json(value: Any) -> str:
    """Write parsed arguments as the compact JSON that the server sends."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def without_greeting(messages: Messages) -> Messages:
    """Remove everything before the first user message."""
    first = next(number for number, message in enumerate(messages) if message["role"] == "user")
    return messages[first:]


def system_prompt(messages: Messages) -> str:
    """Return the system prompt, or an empty text."""
    return messages[0]["content"] if messages[0]["role"] == "system" else ""


class ChatWalker:
    """Plays a record over Chat Completions: it sends the recorded user messages and tool results."""

    def __init__(self, server: ModelServer, max_retries: int = 0) -> None:
        self.sdk = openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=max_retries)

    def walk(self, record: Messages) -> Messages:
        """Play the record and return the model's turns in recorded form."""
        history: Any = [{"role": "system", "content": system_prompt(record)}]
        turns: Messages = []
        for message in without_greeting(record):
            if message["role"] != "assistant":
                history.append({key: message[key] for key in ("role", "content", "tool_call_id") if key in message})
                continue
            got = self.sdk.chat.completions.create(model="gpt-4o", messages=history).choices[0].message
            history.append(got.model_dump(exclude_none=True))
            turns.append({"content": got.content, "calls": _calls(history[-1])})
        return turns

    def expected(self, record: Messages) -> Messages:
        """Return the record's assistant turns with ids, names and raw arguments."""
        turns = [message for message in without_greeting(record) if message["role"] == "assistant"]
        return [{"content": turn["content"] or None, "calls": _calls(turn)} for turn in turns]


def _calls(message: dict[str, Any]) -> list[tuple[str, str, str]]:
    calls = message.get("tool_calls") or []
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


class ResponsesWalker:
    """Plays a record over the Responses API."""

    def __init__(self, server: ModelServer, max_retries: int = 0) -> None:
        self.sdk = openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=max_retries)

    def walk(self, record: Messages) -> Messages:
        """Play the record and return the model's turns in recorded form."""
        history: list[Any] = []
        turns: Messages = []
        for message in without_greeting(record):
            if message["role"] == "user":
                history.append({"role": "user", "content": message["content"]})
            elif message["role"] == "tool":
                history.append(
                    {"type": "function_call_output", "call_id": message["tool_call_id"], "output": message["content"]}
                )
            else:
                # Sent as extra_body, because this SDK needs 16 ms of CPU per call to check the types of 27 items.
                got = self.sdk.responses.create(
                    model="gpt-4o", instructions=system_prompt(record) or None, extra_body={"input": history}
                )
                history.extend(item.model_dump(exclude_none=True) for item in got.output)
                calls = [
                    (item.call_id, item.name, item.arguments) for item in got.output if item.type == "function_call"
                ]
                turns.append({"content": got.output_text or None, "calls": calls})
        return turns

    expected = ChatWalker.expected


class AnthropicWalker:
    """Plays a record over the Messages API, which sends arguments as objects."""

    def __init__(self, server: ModelServer, max_retries: int = 0) -> None:
        self.sdk = anthropic.Anthropic(base_url=server.url, api_key="any", max_retries=max_retries)

    def walk(self, record: Messages) -> Messages:
        """Play the record and return the model's turns, with arguments as JSON text in their key order."""
        history: list[Any] = []
        turns: Messages = []
        for message in without_greeting(record):
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
                    model="claude-sonnet-4-6", max_tokens=4096, system=system_prompt(record), messages=history
                )
                history.append({"role": "assistant", "content": got.content})
                text = "".join(block.text for block in got.content if block.type == "text")
                uses = [block for block in got.content if block.type == "tool_use"]
                calls = [(use.id, use.name, json.dumps(use.input)) for use in uses]
                turns.append({"content": text or None, "calls": calls})
        return turns

    def expected(self, record: Messages) -> Messages:
        """Return the record's assistant turns. Arguments are parsed and written again, with the same key order."""
        turns = [message for message in without_greeting(record) if message["role"] == "assistant"]
        return [
            {
                "content": turn["content"] or None,
                "calls": [(id_, name, json.dumps(_decode(raw))) for id_, name, raw in _calls(turn)],
            }
            for turn in turns
        ]


def _decode(raw: str) -> Any:
    try:
        return json.loads(raw or "{}")
    except ValueError:
        return {}


Walker = ChatWalker | ResponsesWalker | AnthropicWalker
WALKERS = [AnthropicWalker, ResponsesWalker, ChatWalker]


def serve(records: list[Messages], faults: Faults | None = None) -> ModelServer:
    """Make a server that replays the records."""
    return ModelServer(TranscriptBrain(records), faults=faults)


@pytest.fixture(scope="module")
def tickets() -> list[Messages]:
    return read_records("tau_retail/trajectories.jsonl.gz")


@pytest.mark.parametrize("walker", WALKERS, ids=lambda walker: walker.__name__)
def test_fifty_tickets_are_answered_as_recorded(walker: type[Walker], tickets: list[Messages]) -> None:
    """Fifty retail tickets, eight at a time and in random order, get the recorded texts, ids and arguments."""
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
def test_faults_do_not_change_the_answers(walker: type[Walker], tickets: list[Messages]) -> None:
    """If a fifth of all requests fail and the SDKs retry them, the conversations are still the recorded ones."""
    faults = Faults(rate_limited=0.05, overloaded=0.05, reset=0.05, truncated=0.05, retry_after_s=0.01, seed=5)
    few = tickets[:6]
    with serve(few, faults) as server, ThreadPoolExecutor(6) as pool:
        client = walker(server, max_retries=3)
        with client.sdk:
            assert list(pool.map(client.walk, few)) == [client.expected(record) for record in few]
        assert set(server.stats().by_fault) == {"rate_limited", "overloaded", "reset", "truncated"}


@pytest.mark.parametrize("walker", WALKERS, ids=lambda walker: walker.__name__)
@pytest.mark.parametrize("name", ["tau2_airline_repeated_ids.jsonl.gz", "toolathlon_sessions.jsonl.gz"])
def test_unusual_records_are_replayed_unchanged(walker: type[Walker], name: str) -> None:
    """Repeated ids, greetings, parallel calls, and empty or broken arguments of real models are replayed unchanged."""
    records = [record for record in read_records(name) if len(json.dumps(record)) < 60_000][:8]
    with serve(records) as server:
        client = walker(server)
        with client.sdk:
            for record in records:
                assert client.walk(record) == client.expected(record)
