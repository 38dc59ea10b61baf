"""Parses and validates a reply in OpenAI's Responses format."""

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
    check_depth,
)
from midwatch.workers.providers.replies.refusals import read_refusal, was_filtered
from midwatch.workers.providers.replies.stop_words import FAILED, STOPS, find_stop, normalize, show_stop
from midwatch.workers.providers.request_turns import make_call_id
from midwatch.workers.providers.responses.request import PHASE
from midwatch.workers.providers.token_usage import UNREPORTED, read_usage
from midwatch.workers.providers.vendor_format import ParsedReply

UNFINISHED = ("queued", "in_progress")
"""Statuses of a response that its server has not finished, although we never ask for one in the background."""


def parse_response(reply: JsonObject, request: ModelRequest, provider: str) -> ParsedReply:
    """Parse a response object.

    Raises:
        BadReply: the response has no answer, or the server has not finished it.

    """
    status = reply.get("status")
    if normalize(status) in UNFINISHED:
        raise BadReply(FailureKind.PROVIDER_ERROR, f"unusable reply: expected a finished one, its status is {status}")
    reader = _Reader(request, provider)
    for number, item in enumerate(_list_items(reply)):
        reader.add(item, f"output[{number}]")
    details = reply.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    usage = _parse_usage(reply.get("usage"))
    refused = reader.refused or was_filtered(reply)
    stop = Stop.REFUSAL if refused else _find_stop(status, reason, reader.parts, usage, request)
    model = reply.get("model")
    raw_stop = f"{show_stop(status)}/{reason}" if isinstance(reason, str) else show_stop(status)
    return ParsedReply(tuple(reader.parts), stop, raw_stop, usage, model if isinstance(model, str) and model else None)


def _list_items(reply: JsonObject) -> list[JsonObject]:
    """List the output items. A server that sends the answer as a string, or one item without a list, means one message."""
    output = reply.get("output") or reply.get("output_text")
    if isinstance(output, str):
        return [{"type": "message", "content": output}]
    items = [output] if isinstance(output, dict) else as_list(reply.get("output"), "output")
    return [item if isinstance(item, dict) else {"type": "message", "content": item} for item in items]


class _Reader:
    """Collects the parts of a reply's output items."""

    def __init__(self, request: ModelRequest, provider: str) -> None:
        self._request = request
        self._provider = provider
        self.parts: list[Part] = []
        self.calls = 0
        self.refused = False

    def add(self, item: JsonObject, where: str) -> None:
        kind = item.get("type") or "message"
        if kind in ("message", "refusal"):
            self._add_message(item if kind == "message" else {"content": item})
        elif kind == "function_call":
            call_id = item.get("call_id")
            usable = isinstance(call_id, str) and call_id != ""
            self.parts.append(
                ToolCall(
                    id=str(call_id) if usable else make_call_id(self._request.messages, self.calls),
                    name=as_any_text(item.get("name")),
                    raw_arguments=as_arguments(item.get("arguments")),
                )
            )
            self.calls += 1
        else:
            self.parts.append(Opaque(provider=self._provider, raw=check_depth(item, where)))

    def _add_message(self, item: JsonObject) -> None:
        text = read_refusal({"refusal": item.get("refusal")}) or ""
        self.refused = self.refused or bool(item.get("refusal"))
        content = item.get("content")
        for piece in content if isinstance(content, list) else [content]:
            if not isinstance(piece, dict):
                text += as_any_text(piece)
            elif (refusal := read_refusal(piece)) is not None:
                self.refused = True
                text += refusal
            else:
                text += as_any_text(piece.get("text"))
        if text and isinstance(phase := item.get("phase"), str):
            self.parts.append(Opaque(provider=self._provider, raw={"type": PHASE, "phase": phase}))
        if text:
            self.parts.append(Text(text=text))


def _find_stop(status: object, reason: object, parts: list[Part], usage: Usage, request: ModelRequest) -> Stop:
    """Say why the model stopped. An incomplete reply with an unknown reason is handled like one at the output limit."""
    if normalize(status) != "incomplete":
        return find_stop(status, parts, usage, request)
    named = STOPS.get(normalize(reason))
    is_known = named in (Stop.REFUSAL, Stop.LENGTH, Stop.CONTEXT_FULL) or normalize(reason) in FAILED
    return find_stop(reason, parts, usage, request) if is_known else Stop.LENGTH


def _parse_usage(usage: object) -> Usage:
    if not isinstance(usage, dict):
        return UNREPORTED
    read, written = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    return read_usage(
        usage.get("input_tokens"),
        usage.get("output_tokens"),
        cached=read.get("cached_tokens") if isinstance(read, dict) else 0,
        cache_write=read.get("cache_write_tokens") if isinstance(read, dict) else 0,
        reasoning=written.get("reasoning_tokens") if isinstance(written, dict) else 0,
    )
