"""The format of OpenAI's Chat Completions API and of every compatible server: `POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop
from midwatch.workers.simulator.brains.brain import Conversation, ConversationTurn, SimulatedCall, ToolOffer
from midwatch.workers.simulator.vendor_formats import openai_errors
from midwatch.workers.simulator.vendor_formats.request_parsing import (
    extract_text,
    refuse_streaming,
    require_objects,
    split_reminders,
)
from midwatch.workers.simulator.vendor_formats.result_pairing import Result
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, Prompt, RateState, Refusal, Reply

STOPS = {
    Stop.END: "stop",
    Stop.TOOLS: "tool_calls",
    Stop.LENGTH: "length",
    Stop.CONTEXT_FULL: "length",
    Stop.REFUSAL: "content_filter",
    Stop.PAUSE: "stop",
    Stop.UNKNOWN: "simulated_unknown_reason",
}

OVERFLOW = (
    "This model's maximum context length is {limit} tokens. However, your messages resulted in {tokens} tokens. "
    "Please reduce the length of the messages."
)
UNANSWERED = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
    "The following tool_call_ids did not have response messages: {ids}"
)


class OpenAIChat:
    """The Chat Completions format. Arguments are text, and each result is a separate message."""

    name = "openai-chat"
    call_prefix = "call_"

    def parse_request(self, body: JsonObject) -> Prompt:
        """Parse a request. Raises BadRequest if the vendor would not accept it."""
        refuse_streaming(body)
        if not isinstance(body.get("model"), str):
            raise BadRequest("you must provide a model parameter")
        if body.get("n") not in (None, 1):
            raise BadRequest("n: this model server gives one choice")
        system: list[str] = []
        history: list[ConversationTurn | Result] = []
        for number, message in enumerate(require_objects(body.get("messages"), "messages")):
            if message.get("role") in ("system", "developer") and not history:
                system.append(extract_text(message.get("content"), f"messages.{number}"))
            else:
                history.extend(_parse_message(message, f"messages.{number}"))
        choice = body.get("tool_choice")
        schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
        conversation = Conversation(
            vendor_format=self.name,
            model=body["model"],
            system="\n\n".join(system),
            turns=openai_errors.pair_history(history, UNANSWERED),
            tools=tuple(
                _parse_tool(tool) for tool in require_objects(body.get("tools") or [], "tools") if "function" in tool
            ),
            force_tool=choice["function"]["name"] if isinstance(choice, dict) and "function" in choice else None,
            output_schema=schema,
            max_output_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        )
        return Prompt(conversation)

    def write_reply(self, reply: Reply, created_s: int) -> JsonObject:
        """Write the body of a 200."""
        refused = reply.stop is Stop.REFUSAL
        message: JsonObject = {
            "role": "assistant",
            "content": (reply.text or None) if reply.has_content and not refused else None,
            "refusal": reply.text if refused else None,
            "annotations": [],
        }
        if reply.calls:
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in reply.calls
            ]
        finish = STOPS[reply.stop] if reply.stop else None
        body: JsonObject = {
            "id": f"chatcmpl-{reply.id}",
            "object": "chat.completion",
            "created": created_s,
            "model": reply.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }
        if reply.usage:
            used = reply.usage
            body["usage"] = {
                "prompt_tokens": used.input_tokens,
                "completion_tokens": used.output_tokens,
                "total_tokens": used.input_tokens + used.output_tokens,
                "prompt_tokens_details": {"cached_tokens": used.cached_tokens, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
            }
        return body

    def write_refusal(self, refusal: Refusal, request_id: str) -> tuple[int, JsonObject]:
        """Write the status and body of a refusal."""
        return openai_errors.write_refusal(refusal, OVERFLOW, "messages")

    def write_count(self, input_tokens: int) -> JsonObject:
        """Not used: Chat Completions has no token counter."""
        raise NotImplementedError("Chat Completions has no endpoint that counts tokens")

    def write_headers(
        self, request_id: str, rate: RateState | None, now: datetime, tokens: Iterable[RateState] = ()
    ) -> dict[str, str]:
        """Write the request id and the state of the limits."""
        return openai_errors.write_headers(request_id, rate, tokens)


def _parse_message(message: JsonObject, where: str) -> Sequence[ConversationTurn | Result]:
    role, text = message.get("role"), extract_text(message.get("content"), where)
    if role in ("system", "developer"):
        return [ConversationTurn("note", text)]
    if role == "user":
        return split_reminders(text)
    if role == "tool":
        return [openai_errors.make_result(message.get("tool_call_id"), text)]
    if role != "assistant":
        raise BadRequest(f"{where}.role: expected system, developer, user, assistant or tool, got {role!r}")
    calls = require_objects(message.get("tool_calls") or [], f"{where}.tool_calls")
    return [ConversationTurn("assistant", text, tuple(_parse_call(call) for call in calls))]


def _parse_call(call: JsonObject) -> SimulatedCall:
    function = call.get("function") or {}
    return SimulatedCall(str(call.get("id", "")), str(function.get("name", "")), str(function.get("arguments", "")))


def _parse_tool(tool: JsonObject) -> ToolOffer:
    function = tool["function"]
    return ToolOffer(str(function.get("name")), str(function.get("description", "")), function.get("parameters") or {})
