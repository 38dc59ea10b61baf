"""Request bodies match the types of the installed SDKs. We write the bodies, so the SDKs do not check them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Required, get_args, get_origin, get_type_hints

import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from openai.types.chat import completion_create_params
from openai.types.responses import input_token_count_params, response_create_params
from pydantic import TypeAdapter, ValidationError
from typing_extensions import is_typeddict

from midwatch.schemas.message import AssistantMessage, NoteMessage, Opaque, Text, UserMessage
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.anthropic.request import write_count_request as anthropic_count
from midwatch.workers.providers.anthropic.request import write_messages_request
from midwatch.workers.providers.chat_completions.request import write_chat_request
from midwatch.workers.providers.responses.request import write_count_request as responses_count
from midwatch.workers.providers.responses.request import write_responses_request
from tests.contract.provider_requests import call, make_request, result

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def conversation(provider: str, *opaque: Opaque) -> ModelRequest:
    message = AssistantMessage(
        group=2, parts=(*opaque, Text(text="Looking."), call(), call(call_id="call_b")), provider=provider, model="m"
    )
    return make_request(
        UserMessage(group=1, text="hello"), message, result(2, 0, "found"), result(2, 1, "no", is_error=True),
        NoteMessage(group=3, text="stay on the goal"), UserMessage(group=3, text="go on"),
        model="gpt-5", output_schema=SCHEMA, cache_key="session-1",
    )  # fmt: skip


def unknown_keys(value: object, kind: Any) -> list[str]:
    """Return the top-level keys of a body that its TypedDict does not have."""
    assert is_typeddict(kind)
    assert isinstance(value, Mapping)
    return sorted(set(value) - set(get_type_hints(kind)))


def required_keys(kind: Any) -> set[str]:
    hints = get_type_hints(kind, include_extras=True)
    return {name for name, hint in hints.items() if get_origin(hint) is Required or Required in get_args(hint)}


def check(kind: Any, name: str, value: object) -> None:
    """Validate one field of a body. The result is read completely, because pydantic validates an Iterable lazily."""
    adapter: TypeAdapter[Any] = TypeAdapter(get_type_hints(kind)[name])
    _read(adapter.validate_python(value))


def _read(value: object) -> None:
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            _read(item)


THINKING = Opaque(provider="anthropic", raw={"type": "thinking", "thinking": "hm", "signature": "sig"})
REASONING = Opaque(
    provider="openai", raw={"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"}
)
PHASE = Opaque(provider="openai", raw={"type": "message_phase", "phase": "commentary"})


@pytest.mark.parametrize(
    ("body", "kind", "fields"),
    [
        pytest.param(
            write_messages_request(conversation("anthropic", THINKING), "anthropic"),
            message_create_params.MessageCreateParamsNonStreaming,
            ("messages", "tools", "system", "output_config"),
            id="anthropic",
        ),
        pytest.param(
            anthropic_count(conversation("anthropic", THINKING), "anthropic"),
            message_count_tokens_params.MessageCountTokensParams,
            ("messages", "tools", "system", "output_config"),
            id="anthropic count",
        ),
        pytest.param(
            write_responses_request(conversation("openai", REASONING, PHASE), "openai"),
            response_create_params.ResponseCreateParamsNonStreaming,
            ("input", "tools", "text", "include"),
            id="openai",
        ),
        pytest.param(
            responses_count(conversation("openai", REASONING, PHASE), "openai"),
            input_token_count_params.InputTokenCountParams,
            ("input", "tools", "text"),
            id="openai count",
        ),
        pytest.param(
            write_chat_request(conversation("openai-compatible"), "openai-compatible", gemini=False),
            completion_create_params.CompletionCreateParamsNonStreaming,
            ("messages", "tools", "response_format"),
            id="chat",
        ),
    ],
)
def test_bodies_conform(body: dict[str, Any], kind: Any, fields: tuple[str, ...]) -> None:
    """A body has only keys that the SDK knows and all required keys, and its structured fields are valid."""
    assert unknown_keys(body, kind) == []
    assert required_keys(kind) <= body.keys()
    for name in fields:
        check(kind, name, body[name])


def test_invalid_bodies_do_not_conform() -> None:
    """A misspelt key and a block of the wrong shape are found."""
    kind = message_create_params.MessageCreateParamsNonStreaming
    assert unknown_keys({"model": "m", "temperatur": 1}, kind) == ["temperatur"]
    with pytest.raises(ValidationError):
        check(kind, "messages", [{"role": "user", "content": [{"type": "tool_result"}]}])
