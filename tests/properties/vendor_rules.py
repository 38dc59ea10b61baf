"""The vendors' published rules for the history of a request, as checkers. Each returns the rules that a body breaks.

Sources: the API references of Anthropic (Messages), OpenAI (Responses, Chat Completions), Google (OpenAI compatibility, thought
signatures) and Mistral (`mistral-common`'s request validator), and the error messages in the public issues that
`docs/decisions/0024` names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
ANTHROPIC_ID = re.compile(r"[a-zA-Z0-9_-]+")
MISTRAL_ID = re.compile(r"[a-zA-Z0-9]{9}")
THINKING = ("thinking", "redacted_thinking")


def texts_of(value: object) -> Iterator[str]:
    """Every text in a JSON value, also the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from texts_of(one)
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from texts_of(key)
            yield from texts_of(one)


def check_texts(body: object) -> Iterator[str]:
    """No vendor takes half of a surrogate pair, and several refuse NUL."""
    for text in texts_of(body):
        if re.search("[\x00\ud800-\udfff]", text):
            yield f"not sendable: {text[:40]!r}"


def is_call(name: str, arguments: str) -> bool:
    """Is this a name that every vendor takes, with arguments that are a JSON object and can be stored as text?"""
    value = json.loads(arguments)
    return NAME.fullmatch(name) is not None and isinstance(value, dict) and not list(check_texts(value))


def check_anthropic(body: dict[str, Any]) -> Iterator[str]:
    """Check a body of `POST /v1/messages`."""
    messages, seen = body["messages"], set[str]()
    roles = [message["role"] for message in messages]
    if roles != ["user" if place % 2 == 0 else "assistant" for place in range(len(roles))]:
        yield f"roles: {roles}"
    paused = messages[-1]["content"] if roles[-1] != "user" else []
    if roles[-1] != "user" and not open_server_calls(paused):
        yield "the last message is not the user's"
    if "tools" not in body and any(b["type"] == "tool_use" for m in messages for b in m["content"]):
        yield "tool calls without tools"
    open_ids: list[str] = []
    for message in messages:
        blocks = message["content"]
        if not blocks:
            yield "no content"
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            yield "blank text"
        results = [block for block in blocks if block["type"] == "tool_result"]
        if message["role"] == "user":
            if [block["tool_use_id"] for block in results] != open_ids:
                yield "results do not answer the calls before"
            if blocks[: len(results)] != results:
                yield "a result after a text"
            if any(block.get("is_error") and not block["content"].strip() for block in results):
                yield "an error without text"
            continue
        if results or blocks[-1]["type"] in THINKING:
            yield "a model message ends with thinking, or holds a result"
        if blocks[-1]["type"] == "text" and blocks[-1]["text"] != blocks[-1]["text"].rstrip():
            yield "blanks at the end"
        calls = [block for block in blocks if block["type"] == "tool_use"]
        open_ids = [block["id"] for block in calls]
        for block in calls:
            if not ANTHROPIC_ID.fullmatch(block["id"]) or block["id"] in seen:
                yield f"call id {block['id']!r}"
            seen.add(block["id"])
            if not NAME.fullmatch(block["name"]) or not isinstance(block["input"], dict):
                yield f"call {block['name']!r}"
        if blocks is not paused and open_server_calls(blocks):
            yield "a server's call without its result"


def open_server_calls(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls of the vendor's own tools that have no result. The vendor goes on with them if they are the last turn."""
    served = {block.get("tool_use_id") for block in blocks}
    return [block for block in blocks if block["type"] == "server_tool_use" and block["id"] not in served]


def check_responses(body: dict[str, Any]) -> Iterator[str]:
    """Check a body of `POST /responses` with `store: false`."""
    items, open_ids, seen = body["input"], list[str](), set[str]()
    for place, item in enumerate(items):
        kind = item.get("type", "message")
        after = items[place + 1] if place + 1 < len(items) else {}
        if kind == "message":
            if item["role"] not in ("user", "assistant", "developer") or not isinstance(item["content"], str):
                yield f"message {item}"
            if item["role"] == "assistant" and not item["content"]:
                yield "an empty model message"
        elif kind == "function_call":
            if not 0 < len(item["call_id"]) <= 64 or item["call_id"] in seen:
                yield f"call id {item['call_id']!r}"
            seen.add(item["call_id"])
            open_ids.append(item["call_id"])
            if not is_call(item["name"], item["arguments"]):
                yield f"call {item['name']!r}"
        elif kind == "function_call_output":
            if item["call_id"] not in open_ids:
                yield "an output without a call"
            else:
                open_ids.remove(item["call_id"])
        elif kind == "reasoning":
            if not item.get("encrypted_content") and not item.get("content"):
                yield "a reasoning item with its id alone"
            if after.get("type", "message") not in ("reasoning", "function_call", "message") or (
                after.get("type", "message") == "message" and after.get("role") != "assistant"
            ):
                yield "a reasoning item without the item after it"
        else:
            yield f"an item of type {kind}"
    if open_ids:
        yield "a call without an output"


def check_chat(body: dict[str, Any], *, own_ids: bool = True) -> Iterator[str]:
    """Check a body of `POST /chat/completions`, with the rules of the strictest servers: those of Mistral."""
    messages = [message for message in body["messages"] if message["role"] != "system"]
    if len(body["messages"]) - len(messages) > 1 or body["messages"][0]["role"] == "assistant":
        yield "a second system message"
    if messages[0]["role"] != "user" or messages[-1]["role"] not in ("user", "tool"):
        yield "the first or last message"
    open_ids, seen, before = list[str](), set[str](), ""
    for message in messages:
        role, content = message["role"], message.get("content")
        if open_ids and role != "tool":
            yield "a call without a result"
        if role == before and role != "tool":
            yield f"two messages of {role}"
        if role == "user" and before == "tool":
            yield "a user message after a result"
        if role in ("user", "tool") and not content.strip():
            yield f"a blank message of {role}"
        if role == "tool" and (not open_ids or message["tool_call_id"] != open_ids.pop(0)):
            yield "a result without a call"
        if role == "assistant":
            calls = message.get("tool_calls", [])
            if not calls and not (content and content.strip()):
                yield "an empty model message"
            if content is not None and content != content.rstrip():
                yield "blanks at the end"
            for call in calls:
                if not 0 < len(call["id"]) <= 64 or call["id"] in seen:
                    yield f"call id {call['id']!r}"
                if not own_ids and not MISTRAL_ID.fullmatch(call["id"]):
                    yield f"call id {call['id']!r} at Mistral"
                seen.add(call["id"])
                open_ids.append(call["id"])
                function = call["function"]
                if not is_call(function["name"], function["arguments"]):
                    yield f"call {function['name']!r}"
        before = role
    if open_ids:
        yield "a call without a result"


def check_gemini(body: dict[str, Any]) -> Iterator[str]:
    """Check a body for Gemini 3 and later: the first call of each turn has a thought signature."""
    yield from check_chat(body)
    for message in body["messages"]:
        for call in message.get("tool_calls", [])[:1]:
            if not call.get("extra_content", {}).get("google", {}).get("thought_signature"):
                yield "a call without a signature"
