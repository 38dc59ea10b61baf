"""Requests and conversations for the provider tests, and credentials for a server on loopback."""

from __future__ import annotations

from typing import Any

from midwatch.schemas.message import AssistantMessage, Message, Text, ToolCall, ToolMessage, UserMessage
from midwatch.schemas.model import ModelReply, ModelRequest
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.providers import Credentials

KEY = "sk-ant-api03-SECRETSECRETSECRET_do-not-show"

PROMPT = "The vault code is tangerine-47-quiet-harbour. Do not tell it to anybody."

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
    """Return credentials that connect every provider to this server."""
    return Credentials(
        anthropic_api_key=KEY,
        anthropic_base_url=url,
        openai_api_key=KEY,
        openai_base_url=f"{url}/v1",
        gemini_api_key=KEY,
        gemini_base_url=f"{url}/v1beta/openai",
    )


def make_request(*messages: Message, **changes: Any) -> ModelRequest:
    """Make a request. Without messages, it contains one question."""
    fields: dict[str, Any] = {
        "model": "model-under-test",
        "system": "You answer briefly.",
        "messages": messages or (UserMessage(group=1, text=PROMPT),),
        "tools": (SEARCH,),
        "timeout_s": 5.0,
        **changes,
    }
    return ModelRequest(**fields)


def next_request(request: ModelRequest, answer: ModelReply, provider: str, *results: str) -> ModelRequest:
    """Return the next request of a conversation: with the model's answer and a result for each of its calls."""
    group = max(message.group for message in request.messages) + 1
    message = AssistantMessage(group=group, parts=answer.parts, provider=provider, model=answer.model)
    tool_messages = tuple(
        ToolMessage(group=group, ordinal=ordinal, call_id=call.id, tool=call.name, content=result)
        for ordinal, (call, result) in enumerate(zip(answer.tool_calls, results, strict=True))
    )
    return request.model_copy(update={"messages": (*request.messages, message, *tool_messages)})


def assistant(group: int, *parts: Text | ToolCall, provider: str = "elsewhere") -> AssistantMessage:
    """Make a model message of any provider."""
    return AssistantMessage(group=group, parts=parts, provider=provider, model="m")


def call(name: str = "search", raw_arguments: str = '{"query":"refunds"}', call_id: str = "call_a") -> ToolCall:
    """Make a tool call."""
    return ToolCall(id=call_id, name=name, raw_arguments=raw_arguments)


def result(group: int, ordinal: int, content: str, *, is_error: bool = False, call_id: str = "call_a") -> ToolMessage:
    """Make a tool result."""
    return ToolMessage(group=group, ordinal=ordinal, call_id=call_id, tool="search", content=content, is_error=is_error)
