"""The 50 recorded tau-retail tickets as data: messages, calls and results (see `../shared/data/README.md`)."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from midwatch.schemas.contract import canonical_json
from midwatch.schemas.message import AssistantMessage, Message, ToolMessage, UserMessage

END_OF_RECORD = "(The record ends here.)"
"""Five tickets end with a tool result. The model server uses this as the answer that was not recorded."""


def data_dir() -> Path:
    """Return `../shared/data`, relative to the checkout, or the folder in MIDWATCH_TEST_DATA."""
    return Path(os.environ.get("MIDWATCH_TEST_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@dataclass(frozen=True)
class Ticket:
    """One recorded conversation."""

    number: int
    messages: tuple[dict[str, Any], ...]
    """The messages in OpenAI Chat form, without the system message."""
    writes: tuple[tuple[str, str], ...]
    """(tool, canonical arguments) of every call that changes data."""

    @property
    def user_turns(self) -> tuple[str, ...]:
        """Return the user's messages that the agent answered. Each is one job."""
        pairs = zip(self.messages, self.messages[1:], strict=False)
        return tuple(m["content"] for m, after in pairs if m["role"] == "user" and after["role"] == "assistant")

    @property
    def spoken(self) -> tuple[dict[str, Any], ...]:
        """Return the messages that jobs produce, which are all except a last user message without an answer."""
        return self.messages[:-1] if self.messages[-1]["role"] == "user" else self.messages

    @property
    def for_server(self) -> dict[str, Any]:
        """Return the transcript as the model server plays it."""
        closing = [{"role": "assistant", "content": END_OF_RECORD}] if self.messages[-1]["role"] == "tool" else []
        return {"messages": [*self.messages, *closing]}


@cache
def tickets() -> tuple[Ticket, ...]:
    """Return all fifty tickets."""
    with gzip.open(data_dir() / "tau_retail" / "trajectories.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return tuple(
        Ticket(
            number=number,
            messages=tuple(row["messages"][1:]),
            writes=tuple((tool, canonical_json(json.loads(arguments))) for tool, arguments in row["write_calls"]),
        )
        for number, row in enumerate(rows)
    )


@cache
def policy() -> str:
    """Return the system prompt of all tickets."""
    with gzip.open(data_dir() / "tau_retail" / "trajectories.jsonl.gz", "rt") as lines:
        return str(json.loads(next(lines))["messages"][0]["content"])


@cache
def tool_schemas() -> tuple[dict[str, Any], ...]:
    """Return name, description and parameters of the sixteen tools."""
    return tuple(tool["function"] for tool in json.loads((data_dir() / "tau_retail" / "tools.json").read_text()))


@cache
def results(number: int) -> dict[tuple[str, str], list[str]]:
    """Return the results of each (tool, canonical arguments), by occurrence."""
    found: dict[tuple[str, str], list[str]] = {}
    calls: dict[str, tuple[str, str]] = {}
    for message in tickets()[number].messages:
        for call in message.get("tool_calls") or ():
            arguments = canonical_json(json.loads(call["function"]["arguments"]))
            calls[call["id"]] = (call["function"]["name"], arguments)
        if message["role"] == "tool":
            found.setdefault(calls[message["tool_call_id"]], []).append(message["content"])
    return found


def as_record(messages: tuple[Message, ...], *, exact_arguments: bool) -> list[dict[str, Any]]:
    """Convert a session to the record's form. Arguments are text, or canonical JSON for a vendor format with objects."""
    out: list[dict[str, Any]] = []
    for message in messages:
        match message:
            case UserMessage():
                out.append({"role": "user", "content": message.text})
            case AssistantMessage():
                calls = [
                    [call.id, call.name, _arguments(call.raw_arguments, exact_arguments)] for call in message.tool_calls
                ]
                out.append({"role": "assistant", "content": message.text or None, "calls": calls})
            case ToolMessage():
                out.append({"role": "tool", "content": message.content, "id": message.call_id, "name": message.tool})
            case _:
                out.append({"role": message.role, "content": message.text})
    if out and out[-1].get("content") == END_OF_RECORD:
        out.pop()
    return out


def expected(ticket: Ticket, *, exact_arguments: bool) -> list[dict[str, Any]]:
    """Return the record in the same form."""
    out: list[dict[str, Any]] = []
    for message in ticket.spoken:
        match message["role"]:
            case "assistant":
                calls = [
                    [c["id"], c["function"]["name"], _arguments(c["function"]["arguments"], exact_arguments)]
                    for c in message.get("tool_calls") or ()
                ]
                out.append({"role": "assistant", "content": message.get("content") or None, "calls": calls})
            case "tool":
                out.append(
                    {
                        "role": "tool",
                        "content": message["content"],
                        "id": message["tool_call_id"],
                        "name": message["name"],
                    }
                )
            case role:
                out.append({"role": role, "content": message["content"]})
    return out


def _arguments(raw: str, exact: bool) -> str:
    return raw if exact else canonical_json(json.loads(raw))
