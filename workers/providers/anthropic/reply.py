"""Parses and validates a reply in Anthropic's Messages format."""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import Opaque, Part, Text, ToolCall
from midwatch.schemas.model import ModelRequest, Stop, Usage
from midwatch.workers.providers.read_json import (
    BadReply,
    ErrorReply,
    as_arguments,
    as_list,
    as_object,
    as_text,
    check_depth,
)
from midwatch.workers.providers.request_turns import make_call_id
from midwatch.workers.providers.token_usage import UNREPORTED, add_counts, classify_length_stop, read_usage
from midwatch.workers.providers.vendor_format import ParsedReply

STOPS: dict[str, Stop] = {
    "end_turn": Stop.END,
    "stop_sequence": Stop.END,
    "tool_use": Stop.TOOLS,
    "max_tokens": Stop.LENGTH,
    "model_context_window_exceeded": Stop.CONTEXT_FULL,
    "refusal": Stop.REFUSAL,
    "pause_turn": Stop.PAUSE,
    "compaction": Stop.PAUSE,
}


def parse_message(reply: JsonObject, request: ModelRequest, provider: str) -> ParsedReply:
    """Parse a message object.

    Raises:
        BadReply: the shape is wrong, or the message is incomplete because it has no stop reason.
        ErrorReply: the reply is an error object.

    """
    if isinstance(reply.get("error"), dict):
        raise ErrorReply(reply)
    parts: list[Part] = []
    for number, item in enumerate(as_list(reply.get("content"), "content")):
        block = as_object(item, f"content[{number}]")
        if part := _parse_part(
            block, f"content[{number}]", request, provider, sum(isinstance(p, ToolCall) for p in parts)
        ):
            parts.append(part)
    usage = _parse_usage(reply.get("usage"))
    raw_stop = reply.get("stop_reason")
    if raw_stop is None:
        raise BadReply(FailureKind.CONNECTION, "the reply was cut off: it has no stop_reason")
    raw_stop = as_text(raw_stop, "stop_reason")
    stop = _parse_stop(raw_stop, parts, usage, request)
    return ParsedReply(tuple(parts), stop, raw_stop, usage, _parse_name(reply.get("model")))


def _parse_part(block: JsonObject, where: str, request: ModelRequest, provider: str, ordinal: int) -> Part | None:
    kind = block.get("type")
    if kind == "text":
        text = as_text(block.get("text"), f"{where}.text")
        return Text(text=text) if text else None
    if kind == "tool_use":
        call_id = block.get("id")
        return ToolCall(
            id=call_id if isinstance(call_id, str) and call_id else make_call_id(request.messages, ordinal),
            name=as_text(block.get("name"), f"{where}.name"),
            raw_arguments=as_arguments(block.get("input"), f"{where}.input"),
        )
    as_text(kind, f"{where}.type")
    return Opaque(provider=provider, raw=check_depth(block, where))


def _parse_stop(raw_stop: str, parts: list[Part], usage: Usage, request: ModelRequest) -> Stop:
    stop = STOPS.get(raw_stop, Stop.UNKNOWN)
    if stop is Stop.LENGTH:
        return classify_length_stop(usage, request.max_output_tokens)
    if stop is Stop.TOOLS and not any(isinstance(part, ToolCall) for part in parts):
        return Stop.UNKNOWN
    return stop


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
