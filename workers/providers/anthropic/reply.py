"""Parses and validates a reply in Anthropic's Messages format."""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import Opaque, Part, Text, ToolCall
from midwatch.schemas.model import ModelRequest, Stop, Usage
from midwatch.workers.providers.read_json import as_any_text, as_arguments, as_list, check_depth
from midwatch.workers.providers.replies.refusals import read_refusal
from midwatch.workers.providers.replies.stop_words import find_stop, show_stop
from midwatch.workers.providers.request_turns import make_call_id
from midwatch.workers.providers.token_usage import UNREPORTED, add_counts, read_usage
from midwatch.workers.providers.vendor_format import ParsedReply


def parse_message(reply: JsonObject, request: ModelRequest, provider: str) -> ParsedReply:
    """Parse a message object.

    Raises:
        BadReply: the message has no answer.

    """
    parts: list[Part] = []
    for number, block in enumerate(_list_blocks(reply)):
        if part := _parse_part(
            block, f"content[{number}]", request, provider, sum(isinstance(p, ToolCall) for p in parts)
        ):
            parts.append(part)
    usage = _parse_usage(reply.get("usage"))
    word = reply.get("stop_reason")
    refused = any(read_refusal(block) is not None for block in _list_blocks(reply))
    stop = Stop.REFUSAL if refused else find_stop(word, parts, usage, request)
    return ParsedReply(tuple(parts), stop, show_stop(word), usage, _parse_name(reply.get("model")))


def _list_blocks(reply: JsonObject) -> list[JsonObject]:
    """List the content blocks. Some servers of this format send the text of a message as a string."""
    content = reply.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    blocks = as_list([content] if isinstance(content, dict) and content else content, "content")
    return [block if isinstance(block, dict) else {"type": "text", "text": as_any_text(block)} for block in blocks]


def _parse_part(block: JsonObject, where: str, request: ModelRequest, provider: str, ordinal: int) -> Part | None:
    kind = block.get("type")
    if kind == "text" or (not isinstance(kind, str) and "text" in block):
        text = as_any_text(block.get("text"))
        return Text(text=text) if text else None
    if (refusal := read_refusal(block)) is not None:
        return Text(text=refusal) if refusal else None
    if kind == "tool_use":
        call_id = block.get("id")
        return ToolCall(
            id=call_id if isinstance(call_id, str) and call_id else make_call_id(request.messages, ordinal),
            name=as_any_text(block.get("name")),
            raw_arguments=as_arguments(block.get("input")),
        )
    # A block without a type can't be sent back, because every block of a request needs one.
    return Opaque(provider=provider, raw=check_depth(block, where)) if isinstance(kind, str) else None


def _parse_usage(usage: object) -> Usage:
    """Read the usage. Anthropic's `input_tokens` leaves out tokens read from or written to its cache. Ours includes them."""
    if not isinstance(usage, dict):
        return UNREPORTED
    details = usage.get("output_tokens_details")
    fresh, cached = usage.get("input_tokens"), usage.get("cache_read_input_tokens") or 0
    written = usage.get("cache_creation_input_tokens") or 0
    return read_usage(
        add_counts(fresh, cached, written),
        usage.get("output_tokens"),
        cached=cached,
        cache_write=written,
        reasoning=details.get("thinking_tokens") if isinstance(details, dict) else 0,
    )


def _parse_name(model: object) -> str | None:
    return model if isinstance(model, str) and model else None
