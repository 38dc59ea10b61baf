"""The format of OpenAI's Responses API: `POST /v1/responses` and `/v1/responses/input_tokens`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop
from midwatch.workers.simulator.brains.brain import Conversation, ConversationTurn, SimulatedCall, ToolOffer
from midwatch.workers.simulator.vendor_formats import openai_errors
from midwatch.workers.simulator.vendor_formats.request_parsing import extract_text, refuse_streaming, require_objects
from midwatch.workers.simulator.vendor_formats.result_pairing import Result
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, Prompt, RateState, Refusal, Reply

INCOMPLETE = {Stop.LENGTH: "max_output_tokens", Stop.CONTEXT_FULL: "max_output_tokens", Stop.PAUSE: "steered"}
"""Stop -> the reason, for stops that this API reports as an incomplete response."""

OVERFLOW = "Your input exceeds the context window of this model. Please adjust your input and try again."
UNANSWERED = "No tool output found for function call {ids}."


class OpenAIResponses:
    """The Responses format. A turn has several items, so consecutive items of the assistant form one turn."""

    name = "openai-responses"
    call_prefix = "call_"

    def parse_request(self, body: JsonObject) -> Prompt:
        """Parse a request. Raises BadRequest if the vendor would not accept it."""
        refuse_streaming(body)
        if not isinstance(body.get("model"), str):
            raise BadRequest("Missing required parameter: 'model'.")
        for kept in ("previous_response_id", "conversation", "background"):
            if body.get(kept):
                raise BadRequest(f"{kept}: this model server keeps no state; send the whole conversation in `input`")
        given = body.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        system = [body["instructions"]] if body.get("instructions") else []
        history = _parse_items(items, system)
        choice = body.get("tool_choice")
        functions = [
            tool for tool in require_objects(body.get("tools") or [], "tools") if tool.get("type") == "function"
        ]
        conversation = Conversation(
            vendor_format=self.name,
            model=body["model"],
            system="\n\n".join(system),
            turns=openai_errors.pair_history(history, UNANSWERED),
            tools=tuple(_parse_tool(tool) for tool in functions),
            force_tool=choice.get("name") if isinstance(choice, dict) else None,
            output_schema=((body.get("text") or {}).get("format") or {}).get("schema"),
            max_output_tokens=body.get("max_output_tokens"),
        )
        return Prompt(conversation)

    def write_reply(self, reply: Reply, created_s: int) -> JsonObject:
        """Write the body of a 200."""
        reason = INCOMPLETE.get(reply.stop) if reply.stop else None
        status = "incomplete" if reason else "completed"
        body: JsonObject = {
            "id": f"resp_{reply.id}",
            "object": "response",
            "created_at": created_s,
            "status": status if reply.stop else None,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": reply.model,
            "output": _write_output(reply, status) if reply.has_content else None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "metadata": {},
        }
        if reply.usage:
            used = reply.usage
            body["usage"] = {
                "input_tokens": used.input_tokens,
                "input_tokens_details": {
                    "cached_tokens": used.cached_tokens,
                    "cache_write_tokens": used.cache_write_tokens,
                },
                "output_tokens": used.output_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": used.input_tokens + used.output_tokens,
            }
        return body

    def write_refusal(self, refusal: Refusal, request_id: str) -> tuple[int, JsonObject]:
        """Write the status and body of a refusal."""
        return openai_errors.write_refusal(refusal, OVERFLOW, "input")

    def write_count(self, input_tokens: int) -> JsonObject:
        """Write the body of a token count."""
        return {"object": "response.input_tokens", "input_tokens": input_tokens}

    def write_headers(
        self, request_id: str, rate: RateState | None, now: datetime, tokens: Iterable[RateState] = ()
    ) -> dict[str, str]:
        """Write the request id and the state of the limits."""
        return openai_errors.write_headers(request_id, rate, tokens)


def _parse_items(items: object, system: list[str]) -> list[ConversationTurn | Result]:
    """Parse the turns and results. Instructions before the first of them are added to `system`."""
    history: list[ConversationTurn | Result] = []
    open_turn = False
    for number, item in enumerate(require_objects(items, "input")):
        where, kind, role = f"input.{number}", item.get("type", "message"), item.get("role")
        if kind == "function_call_output":
            text = extract_text(item.get("output"), where)
            history.append(openai_errors.make_result(item.get("call_id"), text))
        elif kind == "function_call" or (kind == "message" and role == "assistant"):
            turn = _parse_assistant(item, where)
            last = history[-1] if open_turn else None
            if isinstance(last, ConversationTurn):
                history[-1] = ConversationTurn("assistant", last.text + turn.text, last.calls + turn.calls)
            else:
                history.append(turn)
            open_turn = True
            continue
        elif kind == "message" and role in ("system", "developer"):
            if history:
                history.append(ConversationTurn("note", extract_text(item.get("content"), where)))
            else:
                system.append(extract_text(item.get("content"), where))
        elif kind == "message" and role == "user":
            history.append(ConversationTurn("user", extract_text(item.get("content"), where)))
        elif kind == "message":
            raise BadRequest(f"{where}.role: expected user, assistant, system or developer, got {role!r}")
        else:
            continue  # reasoning, compaction and similar items belong to the turn around them
        open_turn = False
    return history


def _parse_assistant(item: JsonObject, where: str) -> ConversationTurn:
    if item.get("type") != "function_call":
        return ConversationTurn("assistant", extract_text(item.get("content"), where))
    call = SimulatedCall(str(item.get("call_id") or ""), str(item.get("name", "")), str(item.get("arguments", "")))
    return ConversationTurn("assistant", "", (call,))


def _write_output(reply: Reply, status: str) -> list[JsonObject]:
    items: list[JsonObject] = []
    if reply.text:
        content: JsonObject = {"type": "output_text", "text": reply.text, "annotations": []}
        if reply.stop is Stop.REFUSAL:
            content = {"type": "refusal", "refusal": reply.text}
        message_id = f"msg_{reply.id}"
        items.append({"type": "message", "id": message_id, "status": status, "role": "assistant", "content": [content]})
    for ordinal, call in enumerate(reply.calls):
        items.append(
            {
                "type": "function_call",
                "id": f"fc_{reply.id}_{ordinal}",
                "call_id": call.id,
                "name": call.name,
                "arguments": call.arguments,
                "status": status,
            }
        )
    return items


def _parse_tool(tool: JsonObject) -> ToolOffer:
    return ToolOffer(str(tool.get("name")), str(tool.get("description", "")), tool.get("parameters") or {})
