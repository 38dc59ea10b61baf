"""Parses and validates a reply in the Chat Completions format. Servers differ in every optional field."""

from __future__ import annotations

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import Opaque, Part, Text, ToolCall
from midwatch.schemas.model import ModelRequest, Stop, Usage
from midwatch.workers.providers.read_json import (
    BadReply,
    as_any_text,
    as_arguments,
    as_list,
    as_object,
    check_depth,
)
from midwatch.workers.providers.replies.refusals import read_refusal, was_filtered
from midwatch.workers.providers.replies.stop_words import find_stop, look_up, show_stop
from midwatch.workers.providers.request_turns import make_call_id
from midwatch.workers.providers.token_usage import UNREPORTED, read_usage
from midwatch.workers.providers.vendor_format import ParsedReply

ECHOED = (
    "reasoning_content", "reasoning", "reasoning_details", "thinking", "thinking_blocks", "reasoning_text", "reasoning_opaque",
    "extra_content",
)  # fmt: skip
"""Fields of a message that the server may want back: reasoning (DeepSeek, vLLM, OpenRouter, Ollama, LiteLLM, Copilot) and
Gemini's signatures."""

STANDARD_FIELDS = frozenset({"id", "type", "function", "index"})
"""The standard fields of a tool call. All other fields are kept in `vendor_extra`."""


def parse_completion(reply: JsonObject, request: ModelRequest, provider: str) -> ParsedReply:
    """Parse a completion object.

    Raises:
        BadReply: the completion has no answer.

    """
    choices = as_list(reply.get("choices") or [], "choices")
    if not choices and was_filtered(reply):
        choices = [{"finish_reason": "content_filter"}]  # the prompt was blocked, so there is no answer
    if not choices:
        raise BadReply(FailureKind.PROVIDER_ERROR, "unusable reply: expected one choice, got none")
    choice = as_object(choices[0], "choices[0]")
    word = choice.get("finish_reason") or choice.get("native_finish_reason")
    filtered = was_filtered(choice) or look_up(word) is Stop.REFUSAL
    parts, refused = _parse_parts(_find_message(choice, may_lack=filtered), request, provider)
    refused = refused or filtered
    usage = _parse_usage(reply.get("usage"))
    stop = Stop.REFUSAL if refused else find_stop(word, parts, usage, request)
    model = reply.get("model")
    return ParsedReply(tuple(parts), stop, show_stop(word), usage, model if isinstance(model, str) and model else None)


def _find_message(choice: JsonObject, *, may_lack: bool) -> JsonObject:
    """Find the message of a choice. Some servers put it into `delta`, or send its text alone, as for older models.

    `may_lack` means that a refused choice may have none.
    """
    text = choice.get("text")
    found = choice.get("message") or choice.get("delta") or ({"content": text} if isinstance(text, str) else None)
    return as_object({} if found is None and may_lack else found, "message")


def _parse_parts(message: JsonObject, request: ModelRequest, provider: str) -> tuple[list[Part], bool]:
    parts: list[Part] = []
    echoed = {key: message[key] for key in ECHOED if message.get(key)}
    if echoed:
        parts.append(Opaque(provider=provider, raw=check_depth(echoed, "message")))
    content = message.get("content")
    pieces = [message, *(content if isinstance(content, list) else [content])]
    refusals = [text for text in map(read_refusal, pieces) if text is not None]
    refused = bool(refusals)
    text = _parse_content(content) or "".join(refusals)
    if text:
        parts.append(Text(text=text))
    for ordinal, call in enumerate(_list_calls(message)):
        parts.append(_parse_call(call, ordinal, request))
    return parts, refused


def _list_calls(message: JsonObject) -> list[JsonObject]:
    """List the tool calls. `function_call` is the field's older name, for a single call."""
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        calls = [calls]
    if isinstance(calls, list):
        return [call if isinstance(call, dict) else {} for call in calls]
    older = message.get("function_call")
    return [{"function": older}] if isinstance(older, dict) else []


def _parse_call(call: JsonObject, ordinal: int, request: ModelRequest) -> ToolCall:
    where = f"tool_calls[{ordinal}]"
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    call_id = call.get("id")
    extra = {key: value for key, value in call.items() if key not in STANDARD_FIELDS and value is not None}
    return ToolCall(
        id=call_id if isinstance(call_id, str) and call_id else make_call_id(request.messages, ordinal),
        name=as_any_text(function.get("name")),
        raw_arguments=as_arguments(function.get("arguments")),
        vendor_extra=check_depth(extra, where) if extra else None,
    )


def _parse_content(content: object) -> str:
    """Read the text of a message: a string, or (Mistral) a list of typed pieces. Another value is written as JSON."""
    if not isinstance(content, list):
        return as_any_text(content)
    return "".join(_parse_piece(piece) for piece in content)


def _parse_piece(piece: object) -> str:
    if not isinstance(piece, dict):
        return as_any_text(piece)
    return as_any_text(piece.get("text")) if piece.get("type") == "text" else ""


def _parse_usage(usage: object) -> Usage:
    if not isinstance(usage, dict):
        return UNREPORTED
    read, written = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    # Some servers use the names of the Responses API.
    prompt, completion = usage.get("prompt_tokens", usage.get("input_tokens")), usage.get("completion_tokens")
    completion, total = usage.get("output_tokens") if completion is None else completion, usage.get("total_tokens")
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
