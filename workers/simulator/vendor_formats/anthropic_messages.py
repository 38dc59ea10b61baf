"""The format of Anthropic's Messages API: `POST /v1/messages` and `/v1/messages/count_tokens`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop
from midwatch.workers.simulator.brains.brain import Conversation, ConversationTurn, SimulatedCall, ToolOffer
from midwatch.workers.simulator.vendor_formats.compact_json import dump_json
from midwatch.workers.simulator.vendor_formats.request_parsing import (
    extract_text,
    refuse_streaming,
    require_objects,
    split_reminders,
)
from midwatch.workers.simulator.vendor_formats.result_pairing import OrphanResult, Result, UnansweredCalls, pair_results
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
        "This request would exceed your organization's rate limit of {limit} {unit} per minute.",
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
    RefusalKind.BAD_REQUEST: (400, "invalid_request_error", "The request is not valid."),
    RefusalKind.INVALID_REQUEST: (400, "invalid_request_error", "{detail}"),
    RefusalKind.NOT_FOUND: (404, "not_found_error", "{detail}"),
    RefusalKind.UNEXPECTED: (500, "api_error", "{detail}"),
}
"""Refusal -> status, type and message, collected from the SDK's source and public issues. Clients classify by them."""


class AnthropicMessages:
    """Anthropic's format. Arguments are objects, results are parts of user messages, and errors have a flag."""

    name = "anthropic-messages"
    call_prefix = "toolu_"

    def parse_request(self, body: JsonObject) -> Prompt:
        """Parse a request. Raises BadRequest if the vendor would not accept it."""
        refuse_streaming(body)
        model = body.get("model")
        if not isinstance(model, str):
            raise BadRequest("model: expected the name of a model")
        history: list[ConversationTurn | Result] = []
        marks: set[int] = set()
        for number, message in enumerate(require_objects(body.get("messages"), "messages")):
            history.extend(_parse_message(message, f"messages.{number}"))
            if _has_breakpoint(message.get("content")):
                marks.add(len(history))
        if not history:
            raise BadRequest("messages: at least one message is required")
        if isinstance(history[-1], ConversationTurn) and history[-1].role == "assistant":
            raise BadRequest("This model does not support assistant message prefill: end with a user message.")
        if _has_breakpoint(body.get("system")) or _has_breakpoint(body.get("tools")):
            marks.add(0)
        if body.get("cache_control"):
            marks.add(len(history))
        choice = body.get("tool_choice") or {}
        conversation = Conversation(
            vendor_format=self.name,
            model=model,
            system=extract_text(body.get("system"), "system"),
            turns=_pair_history(history),
            tools=tuple(
                _parse_tool(tool)
                for tool in require_objects(body.get("tools") or [], "tools")
                if "input_schema" in tool
            ),
            force_tool=choice.get("name") if choice.get("type") == "tool" else None,
            output_schema=((body.get("output_config") or {}).get("format") or {}).get("schema"),
            max_output_tokens=body.get("max_tokens"),
        )
        return Prompt(conversation, frozenset(marks))

    def write_reply(self, reply: Reply, created_s: int) -> JsonObject:
        """Write the body of a 200."""
        blocks: list[JsonObject] = [{"type": "text", "text": reply.text}] if reply.text else []
        for call in reply.calls:
            blocks.append(
                {"type": "tool_use", "id": call.id, "name": call.name, "input": _decode_arguments(call.arguments)}
            )
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

    def write_refusal(self, refusal: Refusal, request_id: str) -> tuple[int, JsonObject]:
        """Write the status and body of a refusal."""
        status, kind, wording = ERRORS[refusal.kind]
        message = wording.format(
            limit=refusal.limit, unit=refusal.unit.replace("-", " "), tokens=refusal.tokens, detail=refusal.detail
        )
        error: JsonObject = {"type": kind, "message": message}
        if refusal.kind is RefusalKind.QUOTA_EXHAUSTED:
            error["details"] = {"error_code": "enforced_spend_limit_reached"}
        return status, {"type": "error", "error": error, "request_id": request_id}

    def write_count(self, input_tokens: int) -> JsonObject:
        """Write the body of a token count."""
        return {"input_tokens": input_tokens}

    def write_headers(
        self, request_id: str, rate: RateState | None, now: datetime, tokens: Iterable[RateState] = ()
    ) -> dict[str, str]:
        """Write the request id and the state of the limits. Anthropic sends reset times in RFC 3339."""
        headers = {"request-id": request_id}
        for state in (*([rate] if rate else []), *tokens):
            reset = (now + timedelta(seconds=state.reset_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
            headers |= {
                f"anthropic-ratelimit-{state.unit}-limit": str(state.limit),
                f"anthropic-ratelimit-{state.unit}-remaining": str(state.remaining),
                f"anthropic-ratelimit-{state.unit}-reset": reset,
            }
        return headers


def _parse_message(message: JsonObject, where: str) -> list[ConversationTurn | Result]:
    """Parse the turns and results in one message."""
    role, content = message.get("role"), message.get("content")
    if role == "system":
        return [ConversationTurn("note", extract_text(content, where))]
    if role not in ("user", "assistant"):
        raise BadRequest(f"{where}.role: expected user, assistant or system, got {role!r}")
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else list(require_objects(content, where))
    if any(block.get("type") == "text" and not block.get("text") for block in blocks):
        raise BadRequest(f"{where}: text content blocks must be non-empty")
    if role == "user":
        return _parse_user_blocks(blocks, where)
    text = "".join(block["text"] for block in blocks if block.get("type") == "text")
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    calls = tuple(
        SimulatedCall(str(use.get("id", "")), str(use.get("name", "")), dump_json(use.get("input", {}))) for use in uses
    )
    return [ConversationTurn("assistant", text, calls)]


def _parse_user_blocks(blocks: list[JsonObject], where: str) -> list[ConversationTurn | Result]:
    """Parse the results, and a turn for each text after them."""
    entries: list[ConversationTurn | Result] = []
    for block in blocks:
        if block.get("type") != "tool_result":
            entries.extend(split_reminders(extract_text([block], where)))
        elif entries and isinstance(entries[-1], ConversationTurn):
            raise BadRequest(f"{where}: `tool_result` blocks must come first in a user message, before any text")
        else:
            text = extract_text(block.get("content"), where)
            entries.append(Result(str(block.get("tool_use_id", "")), text, bool(block.get("is_error"))))
    return entries


def _pair_history(history: list[ConversationTurn | Result]) -> tuple[ConversationTurn, ...]:
    try:
        return pair_results(history)
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


def _parse_tool(tool: JsonObject) -> ToolOffer:
    return ToolOffer(str(tool.get("name")), str(tool.get("description", "")), tool["input_schema"])


def _has_breakpoint(content: object) -> bool:
    return isinstance(content, list) and any(
        isinstance(block, dict) and block.get("cache_control") for block in content
    )


def _decode_arguments(arguments: str) -> object:
    """Decode arguments, because this format sends them as JSON values. Text that is no JSON becomes {}, as at Anthropic."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return {}
