"""OpenAI Responses: `POST /v1/responses` and `/v1/responses/input_tokens`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.model import Stop
from midwatch.workers.simulator.brains.brain import Call, Conversation, ToolOffer, Turn
from midwatch.workers.simulator.pairing import Result
from midwatch.workers.simulator.vendor_formats import openai_errors
from midwatch.workers.simulator.vendor_formats.reading import objects, refuse_streaming, text_of
from midwatch.workers.simulator.vendor_formats.vendor_format import BadRequest, Prompt, RateState, Refusal, Reply

INCOMPLETE = {Stop.LENGTH: "max_output_tokens", Stop.CONTEXT_FULL: "max_output_tokens", Stop.PAUSE: "steered"}
"""Stops that this endpoint reports as an incomplete response, and the reason it gives."""

OVERFLOW = "Your input exceeds the context window of this model. Please adjust your input and try again."
UNANSWERED = "No tool output found for function call {ids}."


class OpenAIResponses:
    """The wire. A turn is several items, so items of the assistant that follow each other are one turn."""

    name = "openai-responses"
    call_prefix = "call_"

    def read(self, body: JsonObject) -> Prompt:
        """Understand a request; raises BadRequest for what the vendor would not accept."""
        refuse_streaming(body)
        if not isinstance(body.get("model"), str):
            raise BadRequest("Missing required parameter: 'model'.")
        for kept in ("previous_response_id", "conversation", "background"):
            if body.get(kept):
                raise BadRequest(f"{kept}: this model server keeps no state; send the whole conversation in `input`")
        given = body.get("input")
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        system = [body["instructions"]] if body.get("instructions") else []
        history = _history(items, system)
        choice = body.get("tool_choice")
        functions = [tool for tool in objects(body.get("tools") or [], "tools") if tool.get("type") == "function"]
        conversation = Conversation(
            wire=self.name,
            model=body["model"],
            system="\n\n".join(system),
            turns=openai_errors.paired(history, UNANSWERED),
            tools=tuple(_offer(tool) for tool in functions),
            force_tool=choice.get("name") if isinstance(choice, dict) else None,
            output_schema=((body.get("text") or {}).get("format") or {}).get("schema"),
            max_output_tokens=body.get("max_output_tokens"),
        )
        return Prompt(conversation)

    def reply(self, reply: Reply, created_s: int) -> JsonObject:
        """The body of a 200."""
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
            "output": _output(reply, status) if reply.has_content else None,
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

    def refuse(self, refusal: Refusal, request_id: str) -> tuple[int, JsonObject]:
        """Status and body of a refusal."""
        return openai_errors.refuse(refusal, OVERFLOW, "input")

    def count(self, input_tokens: int) -> JsonObject:
        """The body of a token count."""
        return {"object": "response.input_tokens", "input_tokens": input_tokens}

    def headers(
        self, request_id: str, rate: RateState | None, now: datetime, tokens: Iterable[RateState] = ()
    ) -> dict[str, str]:
        """Request id, and the limits' state."""
        return openai_errors.headers(request_id, rate, tokens)


def _history(items: object, system: list[str]) -> list[Turn | Result]:
    """Turns and results; instructions before the first of them go to `system`."""
    history: list[Turn | Result] = []
    open_turn = False
    for number, item in enumerate(objects(items, "input")):
        where, kind, role = f"input.{number}", item.get("type", "message"), item.get("role")
        if kind == "function_call_output":
            text = text_of(item.get("output"), where)
            history.append(openai_errors.result(item.get("call_id"), text))
        elif kind == "function_call" or (kind == "message" and role == "assistant"):
            mine = _assistant(item, where)
            last = history[-1] if open_turn else None
            if isinstance(last, Turn):
                history[-1] = Turn("assistant", last.text + mine.text, last.calls + mine.calls)
            else:
                history.append(mine)
            open_turn = True
            continue
        elif kind == "message" and role in ("system", "developer"):
            if history:
                history.append(Turn("note", text_of(item.get("content"), where)))
            else:
                system.append(text_of(item.get("content"), where))
        elif kind == "message" and role == "user":
            history.append(Turn("user", text_of(item.get("content"), where)))
        elif kind == "message":
            raise BadRequest(f"{where}.role: expected user, assistant, system or developer, got {role!r}")
        else:
            continue  # reasoning, compaction and the like belong to the turn they stand in
        open_turn = False
    return history


def _assistant(item: JsonObject, where: str) -> Turn:
    if item.get("type") != "function_call":
        return Turn("assistant", text_of(item.get("content"), where))
    call = Call(str(item.get("call_id") or ""), str(item.get("name", "")), str(item.get("arguments", "")))
    return Turn("assistant", "", (call,))


def _output(reply: Reply, status: str) -> list[JsonObject]:
    items: list[JsonObject] = []
    if reply.text:
        said: JsonObject = {"type": "output_text", "text": reply.text, "annotations": []}
        if reply.stop is Stop.REFUSAL:
            said = {"type": "refusal", "refusal": reply.text}
        message_id = f"msg_{reply.id}"
        items.append({"type": "message", "id": message_id, "status": status, "role": "assistant", "content": [said]})
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


def _offer(tool: JsonObject) -> ToolOffer:
    return ToolOffer(str(tool.get("name")), str(tool.get("description", "")), tool.get("parameters") or {})
