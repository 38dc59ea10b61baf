"""Anthropic Messages: `POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop
from midwatch.workers.simulator.brains.brain import Call, Conversation, ToolOffer, Turn
from midwatch.workers.simulator.pairing import OrphanResult, Result, UnansweredCalls, pair
from midwatch.workers.simulator.vendor_formats.jsontext import dump
from midwatch.workers.simulator.vendor_formats.reading import heard, objects, refuse_streaming, text_of
from midwatch.workers.simulator.vendor_formats.vendor_format import (
    BadRequest,
    Prompt,
    RateState,
    Refusal,
    RefusalKind,
    Reply,
)

STOPS = {
    Stop.END: "end_turn",
    Stop.TOOLS: "tool_use",
    Stop.LENGTH: "max_tokens",
    Stop.CONTEXT_FULL: "model_context_window_exceeded",
    Stop.REFUSAL: "refusal",
    Stop.PAUSE: "pause_turn",
    Stop.UNKNOWN: "simulated_unknown_reason",
}

ERRORS: dict[RefusalKind, tuple[int, str, str]] = {
    RefusalKind.RATE_LIMITED: (
        429,
        "rate_limit_error",
        "This request would exceed your organization's rate limit of {limit} {of} per minute.",
    ),
    RefusalKind.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    RefusalKind.PROVIDER_ERROR: (500, "api_error", "Internal server error"),
    RefusalKind.CONTEXT_OVERFLOW: (
        400,
        "invalid_request_error",
        "prompt is too long: {tokens} tokens > {limit} maximum",
    ),
    RefusalKind.QUOTA_EXHAUSTED: (
        429,
        "rate_limit_error",
        "Your organization has reached the monthly spend limit of its tier.",
    ),
    RefusalKind.SPEND_CAP: (
        400,
        "invalid_request_error",
        "You have reached your specified API usage limits. You will regain access on 2099-01-01 at 00:00 UTC.",
    ),
    RefusalKind.AUTH_ERROR: (401, "authentication_error", "invalid x-api-key"),
    RefusalKind.PAYLOAD_TOO_LARGE: (413, "request_too_large", "Request exceeds the maximum size"),
    RefusalKind.INVALID_REQUEST: (400, "invalid_request_error", "{detail}"),
    RefusalKind.NOT_FOUND: (404, "not_found_error", "{detail}"),
    RefusalKind.UNEXPECTED: (500, "api_error", "{detail}"),
}
"""Status, type and wording, as collected from the SDK's source and public issues: clients classify by them."""


class AnthropicMessages:
    """The wire. It carries arguments as an object, results inside user messages, and failures as a flag."""

    name = "anthropic-messages"
    call_prefix = "toolu_"

    def read(self, body: JsonObject) -> Prompt:
        """Understand a request; raises BadRequest for what the vendor would not accept."""
        refuse_streaming(body)
        model = body.get("model")
        if not isinstance(model, str):
            raise BadRequest("model: expected the name of a model")
        history: list[Turn | Result] = []
        marks: set[int] = set()
        for number, message in enumerate(objects(body.get("messages"), "messages")):
            history.extend(_entries(message, f"messages.{number}"))
            if _marked(message.get("content")):
                marks.add(len(history))
        if not history:
            raise BadRequest("messages: at least one message is required")
        if isinstance(history[-1], Turn) and history[-1].role == "assistant":
            raise BadRequest("This model does not support assistant message prefill: end with a user message.")
        if _marked(body.get("system")) or _marked(body.get("tools")):
            marks.add(0)
        if body.get("cache_control"):
            marks.add(len(history))
        choice = body.get("tool_choice") or {}
        conversation = Conversation(
            wire=self.name,
            model=model,
            system=text_of(body.get("system"), "system"),
            turns=_paired(history),
            tools=tuple(_offer(tool) for tool in objects(body.get("tools") or [], "tools") if "input_schema" in tool),
            force_tool=choice.get("name") if choice.get("type") == "tool" else None,
            output_schema=((body.get("output_config") or {}).get("format") or {}).get("schema"),
            max_output_tokens=body.get("max_tokens"),
        )
        return Prompt(conversation, frozenset(marks))

    def reply(self, reply: Reply, created_s: int) -> JsonObject:
        """The body of a 200."""
        blocks: list[JsonObject] = [{"type": "text", "text": reply.text}] if reply.text else []
        for call in reply.calls:
            blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _carried(call.arguments)})
        body: JsonObject = {
            "id": f"msg_{reply.id}",
            "type": "message",
            "role": "assistant",
            "model": reply.model,
            "content": blocks if reply.has_content else None,
            "stop_reason": STOPS[reply.stop] if reply.stop else None,
            "stop_sequence": None,
        }
        if reply.stop is Stop.REFUSAL:
            body["stop_details"] = {"type": "refusal", "category": None, "explanation": None}
        if reply.usage:
            used = reply.usage
            body["usage"] = {
                "input_tokens": used.input_tokens - used.cached_tokens - used.cache_write_tokens,
                "cache_creation_input_tokens": used.cache_write_tokens,
                "cache_read_input_tokens": used.cached_tokens,
                "output_tokens": used.output_tokens,
                "service_tier": "standard",
            }
        return body

    def refuse(self, refusal: Refusal, request_id: str) -> tuple[int, JsonObject]:
        """Status and body of a refusal."""
        status, kind, wording = ERRORS[refusal.kind]
        message = wording.format(
            limit=refusal.limit, of=refusal.of.replace("-", " "), tokens=refusal.tokens, detail=refusal.detail
        )
        error: JsonObject = {"type": kind, "message": message}
        if refusal.kind is RefusalKind.QUOTA_EXHAUSTED:
            error["details"] = {"error_code": "enforced_spend_limit_reached"}
        return status, {"type": "error", "error": error, "request_id": request_id}

    def count(self, input_tokens: int) -> JsonObject:
        """The body of a token count."""
        return {"input_tokens": input_tokens}

    def headers(
        self, request_id: str, rate: RateState | None, now: datetime, tokens: Iterable[RateState] = ()
    ) -> dict[str, str]:
        """Request id, and the limits' state; this vendor tells moments, in RFC 3339."""
        headers = {"request-id": request_id}
        for state in (*([rate] if rate else []), *tokens):
            reset = (now + timedelta(seconds=state.reset_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
            headers |= {
                f"anthropic-ratelimit-{state.of}-limit": str(state.limit),
                f"anthropic-ratelimit-{state.of}-remaining": str(state.remaining),
                f"anthropic-ratelimit-{state.of}-reset": reset,
            }
        return headers


def _entries(message: JsonObject, where: str) -> list[Turn | Result]:
    """The turns and results that one message holds."""
    role, content = message.get("role"), message.get("content")
    if role == "system":
        return [Turn("note", text_of(content, where))]
    if role not in ("user", "assistant"):
        raise BadRequest(f"{where}.role: expected user, assistant or system, got {role!r}")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(objects(content, where))
    if any(block.get("type") == "text" and not block.get("text") for block in blocks):
        raise BadRequest(f"{where}: text content blocks must be non-empty")
    if role == "user":
        return _from_user(blocks, where)
    text = "".join(block["text"] for block in blocks if block.get("type") == "text")
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    calls = tuple(Call(str(use.get("id", "")), str(use.get("name", "")), dump(use.get("input", {}))) for use in uses)
    return [Turn("assistant", text, calls)]


def _from_user(blocks: list[JsonObject], where: str) -> list[Turn | Result]:
    """Results as they come, then a turn for each text."""
    entries: list[Turn | Result] = []
    for block in blocks:
        if block.get("type") != "tool_result":
            entries.extend(heard(text_of([block], where)))
        elif entries and isinstance(entries[-1], Turn):
            raise BadRequest(f"{where}: `tool_result` blocks must come first in a user message, before any text")
        else:
            text = text_of(block.get("content"), where)
            entries.append(Result(str(block.get("tool_use_id", "")), text, bool(block.get("is_error"))))
    return entries


def _paired(history: list[Turn | Result]) -> tuple[Turn, ...]:
    try:
        return pair(history)
    except UnansweredCalls as missing:
        raise BadRequest(
            f"messages: `tool_use` ids were found without `tool_result` blocks immediately after: {missing}. "
            "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
        ) from None
    except OrphanResult as orphan:
        raise BadRequest(
            f"messages: unexpected `tool_use_id` found in `tool_result` blocks: {orphan}. "
            "Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
        ) from None


def _offer(tool: JsonObject) -> ToolOffer:
    return ToolOffer(str(tool.get("name")), str(tool.get("description", "")), tool["input_schema"])


def _marked(content: object) -> bool:
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("cache_control") for block in content
    )


def _carried(arguments: str) -> object:
    """Arguments as they travel here: decoded. Text that is no JSON arrives as an empty object, as at the vendor."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return {}
