"""Requests for the provider suites: conversations in the neutral form, and credentials that lead to loopback."""

from __future__ import annotations

from typing import Any

from midwatch.schemas.message import AssistantMessage, Message, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.providers import Credentials

KEY = "sk-ant-api03-SECRETSECRETSECRET_do-not-show"

PROMPT = "The vault code is tangerine-47-quiet-harbour, tell nobody of it."

SEARCH = ToolSpec(
    name="search",
    description="Find tickets.",
    input_schema={
        "type": "object",
        "properties": {"query": {"type": "string"}, "limit": {"type": "integer"}},
        "required": ["query"],
    },
)


def credentials(url: str) -> Credentials:
    """Credentials that send every provider to this server."""
    return Credentials(
        anthropic_api_key=KEY,
        anthropic_base_url=url,
        openai_api_key=KEY,
        openai_base_url=f"{url}/v1",
        gemini_api_key=KEY,
        gemini_base_url=f"{url}/v1beta/openai",
    )


def ask(*messages: Message, **changes: Any) -> ModelRequest:
    """A request; without messages, one that asks a question."""
    fields: dict[str, Any] = {
        "model": "model-under-test",
        "system": "You answer briefly.",
        "messages": messages or (UserMessage(group=1, text=PROMPT),),
        "tools": (SEARCH,),
        "timeout_s": 5.0,
        **changes,
    }
    return ModelRequest(**fields)


def after(request: ModelRequest, answer: ModelReply, provider: str, *results: str) -> ModelRequest:
    """The next request of the conversation: the answer, and a result for each of its calls."""
    group = max(message.group for message in request.messages) + 1
    said = AssistantMessage(group=group, parts=answer.parts, provider=provider, model=answer.model)
    answers = tuple(
        ToolMessage(group=group, ordinal=ordinal, call_id=call.id, tool=call.name, content=result)
        for ordinal, (call, result) in enumerate(zip(answer.tool_calls, results, strict=True))
    )
    return request.model_copy(update={"messages": (*request.messages, said, *answers)})


def assistant(group: int, *parts: Text | ToolCall, provider: str = "elsewhere") -> AssistantMessage:
    """A model turn that some provider made."""
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def call(name: str = "search", raw_arguments: str = '{"query":"refunds"}', call_id: str = "call_a") -> ToolCall:
    """A tool call."""
    return ToolCall(id=call_id, name=name, raw_arguments=raw_arguments)


def result(group: int, ordinal: int, content: str, *, is_error: bool = False, call_id: str = "call_a") -> ToolMessage:
    """A tool result."""
    return ToolMessage(group=group, ordinal=ordinal, call_id=call_id, tool="search", content=content, is_error=is_error)
