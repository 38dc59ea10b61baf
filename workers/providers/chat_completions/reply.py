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

ARGUMENTS = ("arguments", "parameters", "input")
"""The field of a call's arguments, and its names at servers that pass on what their model wrote."""

TEXTS = ("text", "output_text")
"""Types of a piece of text. The second one is the Responses format's."""

STANDARD_FIELDS = frozenset({"id", "type", "function", "index"})
"""The standard fields of a tool call. All other fields are kept in `vendor_extra`."""


def parse_completion(reply: JsonObject, request: ModelRequest, provider: str) -> ParsedReply:
    """Parse a completion object.

    Raises:
        BadReply: the completion has no answer.

    """
    choices = reply.get("choices") or []
    choices = [choices] if isinstance(choices, dict) and "message" in choices else as_list(choices, "choices")
    if not choices and was_filtered(reply):
        choices = [{"finish_reason": "content_filter"}]  # the prompt was blocked, so there is no answer
    if not choices:
        raise BadReply(FailureKind.PROVIDER_ERROR, "unusable reply: expected one choice, got none")
    choice = _merge_choices([as_object(one, f"choices[{number}]") for number, one in enumerate(choices)])
    word = choice.get("finish_reason") or choice.get("native_finish_reason")
    filtered = was_filtered(choice) or look_up(word) is Stop.REFUSAL
    message = _find_message(choice, may_lack=filtered or read_refusal(choice) is not None)
    parts, refused = _parse_parts(choice, message, request, provider)
    refused = refused or filtered
    usage = _parse_usage(reply.get("usage"))
    stop = Stop.REFUSAL if refused else find_stop(word, parts, usage, request)
    model = reply.get("model")
    return ParsedReply(tuple(parts), stop, show_stop(word), usage, model if isinstance(model, str) and model else None)


def _merge_choices(choices: list[JsonObject]) -> JsonObject:
    """Return the first choice. If it lacks the text or the calls, take them from the next choices.

    No request asks for several answers. GitHub Copilot sends Claude's text and its calls in two choices
    (HKUDS/nanobot#1481).
    """
    first = choices[0]
    messages = [message for choice in choices if isinstance(message := choice.get("message"), dict)]
    if len(messages) < 2 or first.get("message") is not messages[0]:
        return first
    lacking = [name for name in ("content", "tool_calls", "function_call") if not messages[0].get(name)]
    found = {name: value for name in lacking for one in reversed(messages[1:]) if (value := one.get(name))}
    word = next((one.get("finish_reason") for one in choices if one.get("finish_reason") != "stop"), "stop")
    return {**first, "message": {**messages[0], **found}, "finish_reason": word} if found else first


def _find_message(choice: JsonObject, *, may_lack: bool) -> JsonObject:
    """Find the message of a choice. Some servers put it into `delta`, or send its text alone, as for older models.

    `may_lack` means that a refused choice may have none.
    """
    text = choice.get("text")
    found = choice.get("message") or choice.get("delta") or ({"content": text} if isinstance(text, str) else None)
    if isinstance(found, str):
        found = {"content": found}
    return as_object({} if found is None and may_lack else found, "message")


def _parse_parts(
    choice: JsonObject, message: JsonObject, request: ModelRequest, provider: str
) -> tuple[list[Part], bool]:
    parts: list[Part] = []
    echoed = {key: message[key] for key in ECHOED if message.get(key)}
    if echoed:
        parts.append(Opaque(provider=provider, raw=check_depth(echoed, "message")))
    content = message.get("content")
    pieces = [choice, message, *(content if isinstance(content, list) else [content])]
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
    function = function if isinstance(function, dict) else call
    call_id = call.get("id")
    fields = STANDARD_FIELDS if function is not call else STANDARD_FIELDS | {"name", *ARGUMENTS}
    extra = {key: value for key, value in call.items() if key not in fields and value is not None}
    return ToolCall(
        id=call_id if isinstance(call_id, str) and call_id else make_call_id(request.messages, ordinal),
        name=as_any_text(function.get("name")),
        raw_arguments=as_arguments(next((function[name] for name in ARGUMENTS if name in function), None)),
        vendor_extra=check_depth(extra, where) if extra else None,
    )


def _parse_content(content: object) -> str:
    """Read the text of a message: a string, or (Mistral) typed pieces. Another value is written as JSON."""
    if isinstance(content, dict) and "text" in content:
        content = [content]
    if not isinstance(content, list):
        return as_any_text(content)
    return "".join(_parse_piece(piece) for piece in content)


def _parse_piece(piece: object) -> str:
    if not isinstance(piece, dict):
        return as_any_text(piece)
    if piece.get("type", "text") not in TEXTS:
        return ""
    text = piece.get("text")
    return as_any_text(text["value"] if isinstance(text, dict) and "value" in text else text)


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
