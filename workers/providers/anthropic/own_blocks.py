"""Anthropic's rules for the blocks of an earlier model turn: thinking, calls of its own tools, and tools that are gone."""

from __future__ import annotations

from collections.abc import Sequence

from midwatch.schemas.contract import JsonObject

THINKING = frozenset({"thinking", "redacted_thinking"})

MAX_PAST_TOOLS = 64
"""The largest number of earlier turns' tools that are declared."""


def finish_assistant_blocks(blocks: list[JsonObject], *, is_paused: bool) -> list[JsonObject]:
    """Return the blocks of a turn as Anthropic accepts them in a history.

    The last block may not be thinking, and the last text may not end with blanks. A call of Anthropic's own tool and its
    result are sent only together, unless the turn was paused in that call and is the last one.
    """
    blocks = blocks if is_paused else _pair_server_calls(blocks)
    while blocks and blocks[-1]["type"] in THINKING:
        blocks = blocks[:-1]
    if blocks and blocks[-1]["type"] == "text":
        blocks = [*blocks[:-1], {**blocks[-1], "text": str(blocks[-1]["text"]).rstrip()}]
    return blocks


def declare_past_tools(messages: Sequence[JsonObject]) -> JsonObject:
    """Declare the tools of earlier calls in a request that offers no tools. They can't be called.

    Anthropic's models on Bedrock refuse a history with tool calls if no tool is declared.
    """
    names = {block["name"] for message in messages for block in message["content"] if block["type"] == "tool_use"}
    if not names:
        return {}
    about = {"description": "Not available any more.", "input_schema": {"type": "object"}}
    return {
        "tools": [{"name": name, **about} for name in sorted(names)[:MAX_PAST_TOOLS]],
        "tool_choice": {"type": "none"},
    }


def _pair_server_calls(blocks: list[JsonObject]) -> list[JsonObject]:
    called = {block.get("id") for block in blocks if block["type"] == "server_tool_use"}
    answered = {block.get("tool_use_id") for block in blocks if _is_server_result(block)}
    return [
        block
        for block in blocks
        if (block["type"] != "server_tool_use" or block.get("id") in answered)
        and (not _is_server_result(block) or block.get("tool_use_id") in called)
    ]


def _is_server_result(block: JsonObject) -> bool:
    return str(block["type"]).endswith("_tool_result") and block["type"] != "tool_result"
