"""Parses and validates a reply in OpenAI's Responses format."""

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
from midwatch.workers.providers.responses.request import PHASE
from midwatch.workers.providers.token_usage import UNREPORTED, classify_length_stop, read_usage
from midwatch.workers.providers.vendor_format import ParsedReply

CUT_OFF = ("queued", "in_progress")
"""Statuses of an unfinished response. We never request background responses, so an unfinished one was cut off."""


def parse_response(reply: JsonObject, request: ModelRequest, provider: str) -> ParsedReply:
    """Parse a response object.

    Raises:
        BadReply: the shape is wrong, or the response is incomplete.
        ErrorReply: the status is `failed` or `cancelled`, or the reply is an error object.

    """
    status = reply.get("status")
    if isinstance(reply.get("error"), dict):
        raise ErrorReply(reply)
    if status in ("failed", "cancelled"):
        raise ErrorReply({"error": {"code": status, "message": f"the response has status {status} and no reason"}})
    if status is None or status in CUT_OFF:
        raise BadReply(FailureKind.CONNECTION, f"the reply was cut off: its status is {status or 'missing'}")
    status = as_text(status, "status")
    reader = _Reader(request, provider)
    for number, item in enumerate(as_list(reply.get("output"), "output")):
        reader.add(as_object(item, f"output[{number}]"), f"output[{number}]")
    details = reply.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    usage = _parse_usage(reply.get("usage"))
    stop = _parse_stop(status, reason, reader, usage, request)
    model = reply.get("model")
    raw_stop = f"{status}/{reason}" if isinstance(reason, str) else status
    return ParsedReply(tuple(reader.parts), stop, raw_stop, usage, model if isinstance(model, str) and model else None)


class _Reader:
    """Collects the parts of a reply's output items."""

    def __init__(self, request: ModelRequest, provider: str) -> None:
        self._request = request
        self._provider = provider
        self.parts: list[Part] = []
        self.calls = 0
        self.refused = False

    def add(self, item: JsonObject, where: str) -> None:
        kind = as_text(item.get("type"), f"{where}.type")
        if kind == "message":
            self._add_message(item, where)
        elif kind == "function_call":
            call_id = item.get("call_id")
            usable = isinstance(call_id, str) and call_id != ""
            self.parts.append(
                ToolCall(
                    id=str(call_id) if usable else make_call_id(self._request.messages, self.calls),
                    name=as_text(item.get("name"), f"{where}.name"),
                    raw_arguments=as_arguments(item.get("arguments"), f"{where}.arguments"),
                )
            )
            self.calls += 1
        else:
            self.parts.append(Opaque(provider=self._provider, raw=check_depth(item, where)))

    def _add_message(self, item: JsonObject, where: str) -> None:
        text = ""
        for number, entry in enumerate(as_list(item.get("content"), f"{where}.content")):
            piece = as_object(entry, f"{where}.content[{number}]")
            if piece.get("type") == "refusal":
                self.refused = True
                text += as_text(piece.get("refusal"), f"{where}.content[{number}].refusal")
            else:
                text += as_text(piece.get("text"), f"{where}.content[{number}].text")
        if text and isinstance(phase := item.get("phase"), str):
            self.parts.append(Opaque(provider=self._provider, raw={"type": PHASE, "phase": phase}))
        if text:
            self.parts.append(Text(text=text))


def _parse_stop(status: str, reason: object, reader: _Reader, usage: Usage, request: ModelRequest) -> Stop:
    if reader.refused or reason == "content_filter":
        return Stop.REFUSAL
    if status == "incomplete":
        return classify_length_stop(usage, request.max_output_tokens) if reason == "max_output_tokens" else Stop.UNKNOWN
    if status != "completed":
        return Stop.UNKNOWN
    return Stop.TOOLS if reader.calls else Stop.END


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
