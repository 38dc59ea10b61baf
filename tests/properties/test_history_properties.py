"""For any session's log, legal or not, each vendor gets a request that obeys its published rules."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.schemas.message import (
    AssistantMessage,
    Message,
    NoteMessage,
    Opaque,
    Text,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from midwatch.schemas.model import ModelRequest
from tests.properties.vendor_rules import check_anthropic, check_chat, check_gemini, check_responses, check_texts
from tests.unit.strict_vendor import StrictVendor

MODELS = {
    "anthropic": "claude-sonnet-4-6",
    "openai": "gpt-5",
    "gemini": "gemini-3-pro",
    "openai-compatible": "mistral-large",
}
CHECKS: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "anthropic": check_anthropic,
    "openai": check_responses,
    "gemini": check_gemini,
    "openai-compatible": check_chat,
}

odd = st.sampled_from(["", " ", "\n", "hi", "hi \n", "\x00", "\ud800x", "é" * 3, "x" * 70, "\\u0000"]) | st.text(
    max_size=8
)
ids = st.sampled_from(["", "same", "call_2_0", "functions.f:0", "a b", "toolu_01", "x" * 80, "AbC123xyz", "ü", "\x00"])
names = st.sampled_from(["f", "look_up", "", "functions.look up", "2fa", "-x", "f" * 90, "ü", "a\x00b", "\udfff"])
arguments = st.sampled_from(
    [
        "{}", '{"a":1}', "", "[1]", "null", '"x"', '{"a": ', '{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', '{"a":"\\u0000"}',
        "{" + '"a":{' * 80 + "}" * 81, '{"a":' + "9" * 5_000 + "}", '{"a":"\ud800"}', "{'a': 1}", '{"a":-Infinity}',
    ]
)  # fmt: skip
raws = st.sampled_from(
    [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "abc"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": None},
        {"type": "computer_call", "id": "cu_1", "call_id": "c"},
        {"type": "message_phase", "phase": "commentary"},
        {"reasoning_content": "hm"},
        {"extra_content": {"google": {"thought_signature": "s"}}},
        {"type": "thinking_in_text", "thinking": "hm\ud800"},
    ]
)
OWN_TYPES = {
    "anthropic": ("thinking", "redacted_thinking", "server_tool_use", "web_search_tool_result"),
    "openai": ("reasoning", "computer_call", "message_phase"),
    "gemini": (None,),
    "openai-compatible": (None,),
    "": ("thinking_in_text",),
}
"""The types of blocks that each provider's own parts have."""

makers = st.sampled_from([*MODELS, ""])
signature = st.sampled_from([None, {"extra_content": {"google": {"thought_signature": "s"}}}])


@st.composite
def histories(draw: st.DrawFn, asked: str) -> tuple[Message, ...]:
    """A log with any messages in any order: repeated groups, results without calls, turns without content.

    The provider that is asked wrote about half of its model turns.
    """
    messages: list[Message] = []
    for _ in range(draw(st.integers(0, 8))):
        group = draw(st.integers(1, 4))
        match draw(st.integers(0, 5)):
            case 0:
                messages.append(UserMessage.model_construct(group=group, text=draw(odd)))
            case 1:
                messages.append(NoteMessage.model_construct(group=group, text=draw(odd)))
            case 2:
                messages.append(
                    ToolMessage.model_construct(
                        group=group,
                        ordinal=draw(st.integers(-1, 3)),
                        call_id=draw(ids),
                        tool=draw(names),
                        content=draw(odd),
                        is_error=draw(st.booleans()),
                    )
                )
            case _:
                messages.append(draw(turns(group, asked)))
    return tuple(messages)


@st.composite
def turns(draw: st.DrawFn, group: int, asked: str) -> AssistantMessage:
    """A model turn of any vendor, with parts in any order."""
    provider = draw(st.one_of(st.just(asked), makers))
    parts: list[Any] = []
    for _ in range(draw(st.integers(0, 4))):
        match draw(st.integers(0, 2)):
            case 0:
                parts.append(Text.model_construct(text=draw(odd)))
            case 1:
                extra = draw(signature) if provider == "gemini" else None
                parts.append(
                    ToolCall.model_construct(
                        id=draw(ids), name=draw(names), raw_arguments=draw(arguments), vendor_extra=extra
                    )
                )
            case _:
                raw = draw(raws.filter(lambda one: one.get("type") in OWN_TYPES[provider]))
                parts.append(Opaque.model_construct(provider=provider, raw=raw))
    own = MODELS.get(provider, "m")
    model = draw(st.sampled_from([own, own, "other"]))
    server = draw(st.sampled_from([None, "vendor.test/v1", "vendor.test/v1", "other.test"]))
    return AssistantMessage.model_construct(
        group=group, parts=tuple(parts), provider=provider, model=model, requested=model, server=server
    )


def sent(provider: str, messages: tuple[Message, ...], **fields: Any) -> dict[str, Any]:
    """The body that the provider sends for this history."""
    vendor = StrictVendor(provider, lambda body: (500, {}))
    request = ModelRequest.model_construct(model=MODELS[provider], system="You help.", messages=messages, **fields)
    with pytest.raises(Exception, match=r"provider_error: .* 500"):
        vendor.model.complete(request)
    (body,) = vendor.bodies
    return body


@pytest.mark.parametrize("provider", MODELS)
@given(data=st.data(), refused=st.sampled_from([False, False, True]))
@settings(max_examples=100, deadline=None)
def test_any_history_obeys_the_vendors_rules(provider: str, data: st.DataObject, refused: bool) -> None:
    """No log ends a session. Everything that a vendor refuses is replaced, completed or left out, with opaque parts or
    without."""
    messages = data.draw(histories(provider))
    fields: dict[str, Any] = {"opaque_refused_by": frozenset({"vendor.test/v1"})} if refused else {}
    body = sent(provider, messages, **fields)
    found = [*check_texts(body), *CHECKS[provider](body)]
    assert found == [], json.dumps(body)[:3_000]
    assert sent(provider, messages, **fields) == body


@given(messages=histories("openai-compatible"))
@settings(max_examples=50, deadline=None)
def test_a_server_of_mistral_can_take_over_any_session(messages: tuple[Message, ...]) -> None:
    """Ids of calls that others made become nine letters and digits. Mistral refuses every other form."""
    foreign = tuple(
        one.model_copy(update={"server": "other.test"}) if isinstance(one, AssistantMessage) else one
        for one in messages
    )
    assert list(check_chat(sent("openai-compatible", foreign), own_ids=False)) == []
