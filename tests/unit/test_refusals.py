"""A refusal is a refusal, in whichever place a vendor puts it. It is never a completed answer or a format error."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch import Agent, ModelPolicy
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.model import ModelRequest, Stop
from midwatch.testing import InlineFleet
from tests.unit.strict_vendor import USAGE, StrictVendor

REQUEST = ModelRequest(model="m", system="", messages=())


def chat(
    content: object = None, finish: str | None = "stop", choice: dict[str, Any] | None = None, **fields: Any
) -> Any:
    one = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **fields}}
    return {"choices": [{**one, **(choice or {})}], "usage": USAGE, "model": "m"}


def without_message(finish: str | None, **fields: Any) -> Any:
    return {"choices": [{"index": 0, "finish_reason": finish, **fields}], "usage": USAGE, "model": "m"}


def response(*content: Any, **fields: Any) -> Any:
    return {"status": "completed", "output": [{"type": "message", "content": list(content)}], "model": "m", **fields}


def message(*content: Any, stop: str | None = "end_turn", **fields: Any) -> Any:
    return {
        "type": "message",
        "role": "assistant",
        "content": list(content),
        "stop_reason": stop,
        "model": "m",
        **fields,
    }


FILTERED = {"hate": {"filtered": False, "severity": "safe"}, "violence": {"filtered": True, "severity": "high"}}
NOT_FILTERED = {"hate": {"filtered": False}, "protected_material_text": {"filtered": False, "detected": True}}
NO = {"type": "refusal", "refusal": "I can't help with that."}

REFUSED = [
    ("openai-compatible", chat([NO])),
    ("openai-compatible", chat([{"type": "text", "text": "Well. "}, NO])),
    ("openai-compatible", chat(NO)),
    ("openai-compatible", chat([{"type": "refusal", "text": "No."}])),
    ("openai-compatible", chat([{"type": "refusal"}])),
    ("openai-compatible", chat(refusal="I can't help with that.")),
    ("openai-compatible", chat("Here is", finish="content_filter")),
    ("openai-compatible", without_message("content_filter", content_filter_results=FILTERED)),
    ("openai-compatible", without_message(None, content_filter_results=FILTERED)),
    ("openai-compatible", chat("Here is", choice={"content_filter_results": FILTERED})),
    (
        "openai-compatible",
        {"choices": [], "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}]},
    ),
    ("gemini", chat("Here is", finish="content_filter: SAFETY")),
    ("gemini", chat("Here is", finish="SAFETY")),
    ("gemini", chat("Here is", finish="content_filter: RECITATION")),
    ("gemini", without_message("content_filter: PROHIBITED_CONTENT")),
    ("gemini", {"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}),
    ("gemini", {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 4}}),
    ("openai", response(NO)),
    ("openai", response({"type": "output_text", "text": "Well. "}, NO)),
    ("openai", {"status": "completed", "output": [NO], "model": "m"}),
    ("openai", response(status="incomplete", incomplete_details={"reason": "content_filter"})),
    (
        "openai",
        response(
            {"type": "output_text", "text": "Here"}, content_filters=[{"blocked": True, "source_type": "completion"}]
        ),
    ),
    ("anthropic", message(stop="refusal")),
    ("anthropic", message({"type": "text", "text": "Well."}, stop="refusal", stop_details={"type": "refusal"})),
    ("anthropic", message(NO)),
]
"""Refusals of each format and vendor."""


@pytest.mark.parametrize(("provider", "body"), REFUSED)
def test_a_refusal_is_a_refusal(provider: str, body: Any) -> None:
    """The stop reason is `refusal`, and the job ends as `refused`, without a second call."""
    vendor = StrictVendor(provider, lambda _: (200, body))
    assert vendor.model.complete(REQUEST).stop is Stop.REFUSAL
    fleet = InlineFleet(model=vendor.model)
    agent = Agent("clerk", f"{provider}:m", "You help.", model_policy=ModelPolicy(allow_alias=True))
    result = fleet.run(fleet.enqueue(agent, "Do it."))
    assert result.failure is not None
    assert result.failure.kind is FailureKind.REFUSED
    assert len(vendor.bodies) == 2


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("openai-compatible", chat("Four.", refusal=None)),
        ("openai-compatible", chat("Four.", refusal="")),
        ("openai-compatible", chat("Four.", choice={"content_filter_results": NOT_FILTERED})),
        ("openai-compatible", chat([{"type": "text", "text": "Four."}])),
        ("openai", response({"type": "output_text", "text": "Four."}, content_filters=[{"blocked": False}])),
        ("anthropic", message({"type": "text", "text": "Four."})),
    ],
)
def test_an_answer_with_empty_filter_fields_is_an_answer(provider: str, body: Any) -> None:
    """A filter that only reports, or an empty refusal, does not spoil an answer."""
    reply = StrictVendor(provider, lambda _: (200, body)).model.complete(REQUEST)
    assert (reply.stop, reply.text) == (Stop.END, "Four.")


def test_the_words_of_a_refusal_are_kept() -> None:
    """The refusal's text is the text of the reply, for people who look at the session."""
    for provider, body in (("openai-compatible", chat([NO])), ("openai", response(NO)), ("anthropic", message(NO))):
        assert StrictVendor(provider, lambda _, body=body: (200, body)).model.complete(REQUEST).text == NO["refusal"]
