"""Parses and validates a reply in the Chat Completions format. Servers differ in every optional field."""

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
from midwatch.workers.providers.token_usage import UNREPORTED, classify_length_stop, read_usage
from midwatch.workers.providers.vendor_format import ParsedReply

STOPS: dict[str, Stop] = {
    "stop": Stop.END,
    "tool_calls": Stop.TOOLS,
    "function_call": Stop.TOOLS,
    "length": Stop.LENGTH,
    "content_filter": Stop.REFUSAL,
}

ECHOED = ("reasoning_content", "reasoning", "reasoning_details", "extra_content")
"""Fields of a message that the server wants back: reasoning (DeepSeek, vLLM, OpenRouter) and Gemini's signatures."""

STANDARD_FIELDS = frozenset({"id", "type", "function", "index"})
"""The standard fields of a tool call. All other fields are kept in `vendor_extra`."""


def parse_completion(reply: JsonObject, request: ModelRequest, provider: str) -> ParsedReply:
    """Parse a completion object.

    Raises:
        BadReply: the shape is wrong, or the reply is incomplete because it has no finish reason.
        ErrorReply: the reply is an error object.

    """
    if reply.get("error"):
        raise ErrorReply(reply)
    choices = as_list(reply.get("choices"), "choices")
    if not choices:
        raise BadReply(FailureKind.PROVIDER_ERROR, "unusable reply: expected one choice, got none")
    choice = as_object(choices[0], "choices[0]")
    message = as_object(choice.get("message"), "message")
    raw_stop = choice.get("finish_reason")
    if raw_stop is None:
        raise BadReply(FailureKind.CONNECTION, "the reply was cut off: it has no finish_reason")
    raw_stop = as_text(raw_stop, "finish_reason")
    if raw_stop == "error" or "malformed" in raw_stop.lower():
        # Gemini sends MALFORMED_FUNCTION_CALL if it can't parse its model's output. A retry usually succeeds.
        raise BadReply(FailureKind.PROVIDER_ERROR, f"the provider rejected its model's output ({raw_stop[:60]})")
    parts, refused = _parse_parts(message, request, provider)
    usage = _parse_usage(reply.get("usage"))
    stop = Stop.REFUSAL if refused else _parse_stop(raw_stop, parts, usage, request)
    model = reply.get("model")
    return ParsedReply(tuple(parts), stop, raw_stop, usage, model if isinstance(model, str) and model else None)


def _parse_parts(message: JsonObject, request: ModelRequest, provider: str) -> tuple[list[Part], bool]:
    parts: list[Part] = []
    echoed = {key: message[key] for key in ECHOED if message.get(key)}
    if echoed:
        parts.append(Opaque(provider=provider, raw=check_depth(echoed, "message")))
    refusal = message.get("refusal")
    refused = isinstance(refusal, str) and refusal != ""
    text = _parse_content(message.get("content")) or (str(refusal) if refused else "")
    if text:
        parts.append(Text(text=text))
    calls = message.get("tool_calls")
    for ordinal, item in enumerate([] if calls is None else as_list(calls, "tool_calls")):
        parts.append(_parse_call(as_object(item, f"tool_calls[{ordinal}]"), ordinal, request))
    return parts, refused


def _parse_call(call: JsonObject, ordinal: int, request: ModelRequest) -> ToolCall:
    where = f"tool_calls[{ordinal}]"
    function = as_object(call.get("function"), f"{where}.function")
    call_id = call.get("id")
    extra = {key: value for key, value in call.items() if key not in STANDARD_FIELDS and value is not None}
    return ToolCall(
        id=call_id if isinstance(call_id, str) and call_id else make_call_id(request.messages, ordinal),
        name=as_text(function.get("name"), f"{where}.function.name"),
        raw_arguments=as_arguments(function.get("arguments"), f"{where}.function.arguments"),
        vendor_extra=check_depth(extra, where) if extra else None,
    )


def _parse_content(content: object) -> str:
    """Read the text of a message: a string, null in a message with tool calls, or (Mistral) a list of typed pieces."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    pieces = [as_object(piece, f"content[{n}]") for n, piece in enumerate(as_list(content, "content"))]
    return "".join(as_text(piece.get("text"), "content.text") for piece in pieces if piece.get("type") == "text")


def _parse_stop(raw_stop: str, parts: list[Part], usage: Usage, request: ModelRequest) -> Stop:
    called = any(isinstance(part, ToolCall) for part in parts)
    stop = STOPS.get(raw_stop, Stop.UNKNOWN)
    if stop is Stop.LENGTH:
        return classify_length_stop(usage, request.max_output_tokens)
    if stop is Stop.END and called:
        # With OpenAI, a forced call ends with 'stop'; with some servers, every call does. The calls are complete.
        return Stop.TOOLS
    return Stop.UNKNOWN if stop is Stop.TOOLS and not called else stop


def _parse_usage(usage: object) -> Usage:
    if not isinstance(usage, dict):
        return UNREPORTED
    read, written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    prompt, completion, total = (usage.get(f"{name}_tokens") for name in ("prompt", "completion", "total"))
    reasoning = written.get("reasoning_tokens") if isinstance(written, dict) else 0
    if type(prompt) is type(completion) is type(total) is int and total - prompt > completion >= 0:
        # Gemini bills its thoughts as output, but counts them only in the total, not in the completion.
        completion, reasoning = total - prompt, total - prompt - completion
    return read_usage(
        prompt,
        completion,
        cached=read.get("cached_tokens") if isinstance(read, dict) else usage.get("prompt_cache_hit_tokens", 0),
        reasoning=reasoning,
    )
