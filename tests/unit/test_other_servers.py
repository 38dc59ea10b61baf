"""What servers other than the vendors' own send: whole jobs run through the code of the providers, without a network."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from midwatch import Agent, tool
from midwatch.orchestration.client.job_result import JobResult
from midwatch.schemas.failure import FailureKind, RetryAdvice
from midwatch.schemas.job import JobStatus
from midwatch.testing import InlineFleet
from midwatch.workers.providers.provider_model import Connection, ProviderModel
from tests.unit.strict_vendor import FORMATS, StatusError, chat_call, chat_text

CHAT, ANTHROPIC, RESPONSES = "openai-compatible", "anthropic", "openai"
MODELS = {CHAT: f"{CHAT}:m", ANTHROPIC: "anthropic:claude-sonnet-4-6", RESPONSES: "openai:gpt-4.1-2025-04-14"}
USAGE = {"input_tokens": 120, "output_tokens": 20}
ANSWERS: dict[str, Any] = {
    CHAT: chat_text("Found."),
    ANTHROPIC: {"content": [{"type": "text", "text": "Found."}], "stop_reason": "end_turn", "usage": USAGE},
    RESPONSES: {
        "status": "completed",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "Found."}]}],
        "usage": USAGE,
    },
}
"""A usual answer of each format."""


@tool
def look_up(order: str) -> str:
    """Look up an order."""
    return f"{order} is on its way"


class Server:
    """Sends its replies one after the other, then usual answers."""

    def __init__(self, provider: str, *replies: tuple[int, Any]) -> None:
        self.provider, self.replies = provider, list(replies)
        self.bodies: list[dict[str, Any]] = []
        connection = Connection(self._post, lambda: None, (), "https://vendor.test/v1")
        fleet = InlineFleet(model=ProviderModel(provider, FORMATS[provider](), connection))
        self.agent = Agent("clerk", MODELS[provider], "You help.", [look_up])
        self.fleet = fleet

    def run(self) -> JobResult:
        """Run one more job of the session."""
        return self.fleet.run(self.fleet.enqueue(self.agent, "Where is A?", session_id="s-1"))

    def _post(self, path: str, body: bytes, timeout_s: float) -> httpx2.Response:
        self.bodies.append(json.loads(body))
        status, answer = self.replies.pop(0) if self.replies else (200, ANSWERS[self.provider])
        text = answer if isinstance(answer, str) else json.dumps(answer)
        kind = "application/json" if not isinstance(answer, str) else "text/html" if "<" in answer else "text/plain"
        response = httpx2.Response(status, content=text.encode(), headers={"content-type": kind})
        if status >= 300:
            raise StatusError(response)
        return response


MESSAGE = {"role": "assistant", "content": "On its way."}


@pytest.mark.parametrize(
    "body",
    [
        {"code": 0, "msg": "success", "data": chat_text("On its way.")},
        {"output": chat_text("On its way."), "request_id": "r"},
        {"success": True, "errors": [], "result": chat_text("On its way.")},
        [chat_text("On its way.")],
        {"choices": {"message": MESSAGE, "finish_reason": "stop"}},
        {"choices": [{"message": "On its way.", "finish_reason": "stop"}]},
        chat_text([{"type": "output_text", "text": "On its way."}]),  # type: ignore[arg-type]
        chat_text([{"text": "On its way."}]),  # type: ignore[arg-type]
        chat_text([{"type": "text", "text": {"value": "On its way."}}]),  # type: ignore[arg-type]
        chat_text({"type": "text", "text": "On its way."}),  # type: ignore[arg-type]
        {"choices": [{"message": {"content": ""}}, {"message": MESSAGE, "finish_reason": "stop"}]},
        f"data: {json.dumps(chat_text('On its way.'))}\n\ndata: [DONE]\n\n",
    ],
)
def test_an_answer_in_another_place_is_read(body: Any) -> None:
    """It was paid for. No second call is made."""
    server = Server(CHAT, (200, body))
    assert server.run().output == "On its way."
    assert len(server.bodies) == 1


ARGUMENTS = '{"order": "A"}'
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": ARGUMENTS}}


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "c1", "type": "function", "name": "look_up", "arguments": ARGUMENTS}]},
        {"tool_calls": [{"id": "c1", "name": "look_up", "input": {"order": "A"}}]},
        {"tool_calls": [{"id": "c1", "function": {"name": "look_up", "parameters": {"order": "A"}}}]},
    ],
)
def test_a_call_in_another_form_runs(message: dict[str, Any]) -> None:
    """Its name and its arguments are plain. It needs no correction by the model."""
    server = Server(CHAT, (200, {"choices": [{"message": message, "finish_reason": "tool_calls"}]}))
    assert server.run().output == "Found."
    assert "A is on its way" in server.bodies[1]["messages"][-1]["content"]


def test_text_and_call_in_two_choices_are_one_turn() -> None:
    """GitHub Copilot sends them so. The text alone was delivered as the answer, and the call was lost."""
    text = {"message": {"content": "I look."}, "finish_reason": "tool_calls"}
    call = {"message": {"content": None, "tool_calls": [CALL]}, "finish_reason": "tool_calls"}
    server = Server(CHAT, (200, {"choices": [text, call]}))
    assert server.run().output == "Found."
    assert [one["role"] for one in server.bodies[1]["messages"]] == ["system", "user", "assistant", "tool"]
    assert server.bodies[1]["messages"][2]["content"] == "I look."


@pytest.mark.parametrize("block", [{"text": "On its way."}, {"type": None, "text": "On its way."}, {"note": 1}])
def test_a_block_without_a_type_does_not_spoil_the_session(block: dict[str, Any]) -> None:
    """Such a block was kept, and each later request of the session ended with an internal error."""
    answer = {"content": [block, {"type": "text", "text": " Yes."}], "stop_reason": "end_turn", "usage": USAGE}
    server = Server(ANTHROPIC, (200, answer))
    assert "Yes." in (server.run().output or "")
    assert server.run().output == "Found."


@pytest.mark.parametrize(
    ("provider", "status", "body"),
    [
        (
            CHAT,
            403,
            {"error": {"code": 403, "message": 'openai/x requires moderation. Your input was flagged for "x"'}},
        ),
        (CHAT, 403, {"message": "Input content was flagged", "type": "invalid_request_prompt", "code": "3051"}),
        (CHAT, 403, {"code": "no permission", "error": "Content violates usage guidelines. Failed check: BIO"}),
        (CHAT, 200, {"choices": [{"finish_reason": "stop", "refusal": "I can't.", "message": {"content": None}}]}),
        (CHAT, 200, chat_text("", refusal=True)),
        (
            RESPONSES,
            200,
            {"status": "completed", "output": [{"type": "message", "refusal": "I can't.", "content": []}]},
        ),
    ],
)
def test_a_refusal_in_another_place_is_a_refusal(provider: str, status: int, body: Any) -> None:
    """It is neither a wrong key nor an empty answer that the model is asked to correct."""
    server = Server(provider, (status, body))
    result = server.run()
    assert result.failure is not None
    assert (result.failure.kind, len(server.bodies)) == (FailureKind.REFUSED, 1)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", ["<html><head><title>400 Bad Request</title></head></html>", "", "Bad Request"])
def test_a_page_with_status_400_ends_no_job(status: int, body: str) -> None:
    """It is no verdict of the API, as with any other status below 500."""
    server = Server(CHAT, (status, body))
    assert server.run().status is JobStatus.COMPLETED
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("provider", "body", "kind", "says"),
    [
        (CHAT, {"errors": ["invalid api key"]}, FailureKind.AUTH_ERROR, "invalid api key"),
        (CHAT, {"Response": {"Error": {"Code": "X", "Message": "no more"}}}, FailureKind.PROVIDER_ERROR, "no more"),
        (CHAT, {"ret": -1, "errmsg": "no more"}, FailureKind.PROVIDER_ERROR, "no more"),
        (CHAT, {"exception": "java.lang.X", "timestamp": 1}, FailureKind.PROVIDER_ERROR, "java.lang.X"),
        (
            CHAT,
            {"choices": [{"message": {"content": ""}}, {"error": {"code": 429, "message": "slow"}}]},
            FailureKind.RATE_LIMITED,
            "429 slow",
        ),
        (
            RESPONSES,
            {"status": "failed", "output": [], "last_error": {"code": "server_error", "message": "boom"}},
            FailureKind.PROVIDER_ERROR,
            "boom",
        ),
    ],
)
def test_an_error_in_a_200_keeps_its_reason(provider: str, body: Any, kind: FailureKind, says: str) -> None:
    """Wherever it stands in the body, the failure has its kind and its words."""
    server = Server(provider, (200, body))
    job_id = server.fleet.enqueue(server.agent, "Where is A?")
    server.fleet.run(job_id)
    failure = next(record.failure for record in server.fleet.trace(job_id) if record.failure)
    assert (failure.kind, says in failure.detail) == (kind, True)


@pytest.mark.parametrize(
    ("status", "body", "wait_ms"),
    [
        (503, {"error": "Model x is loading", "estimated_time": 33.5}, 33_500),
        (429, {"error": {"message": "x", "wait_seconds": 33}}, 33_000),
        (429, {"error": {"message": "x", "retry_after_secs": 33}}, 33_000),
        (429, {"error": {"message": "x", "data": {"retry_after": 33}}}, 33_000),
        (429, {"error": {"message": "Limit reached, try after 33 seconds"}}, 33_000),
        (429, "Rate limit exceeded, retry in 33 seconds", 33_000),
    ],
)
def test_a_wait_in_another_field_is_kept(status: int, body: Any, wait_ms: int) -> None:
    """Hugging Face, gateways, and a proxy that answers in plain text."""
    server = Server(CHAT, (status, body))
    job_id = server.fleet.enqueue(server.agent, "Where is A?")
    server.fleet.run(job_id)
    failure = next(record.failure for record in server.fleet.trace(job_id) if record.failure)
    assert failure.retry_after_ms == wait_ms


@pytest.mark.parametrize("flag", ["retryable", "is_retryable", "should_retry", "shouldRetry"])
def test_a_flag_in_the_body_says_whether_to_retry(flag: str) -> None:
    """True makes a refused request transient, also one with status 400. False leaves no retries."""
    server = Server(CHAT, (400, {"error": {"message": "x", flag: True}}))
    assert server.run().output == "Found."
    server = Server(CHAT, (500, {"error": {"message": "x", flag: False}}))
    job_id = server.fleet.enqueue(server.agent, "Where is A?")
    server.fleet.run(job_id)
    assert next(one.failure.advice for one in server.fleet.trace(job_id) if one.failure) is RetryAdvice.LAST


def test_a_refused_form_is_still_final() -> None:
    """A 400 of the API itself is not sent again."""
    server = Server(CHAT, (200, chat_call("look_up", ARGUMENTS)), (400, {"error": {"message": "unknown field x"}}))
    result = server.run()
    assert result.failure is not None
    assert (result.failure.kind, len(server.bodies)) == (FailureKind.FORMAT_ERROR, 2)


@pytest.mark.parametrize(
    "body",
    [
        "<div class=x>Blocked by <b>policy</b>. Case ID: 1</div>",
        "<script>location='/login'</script><p>Blocked by policy.</p>",
        '<meta http-equiv="refresh" content="0"><p>Blocked by policy.</p>',
    ],
)
def test_a_part_of_a_page_is_shown_without_tags(body: str) -> None:
    """Proxies and portals leave out the document's beginning."""
    server = Server(CHAT, (403, body))
    job_id = server.fleet.enqueue(server.agent, "Where is A?")
    server.fleet.run(job_id)
    failure = next(record.failure for record in server.fleet.trace(job_id) if record.failure)
    assert "<" not in failure.detail
    assert "Blocked by policy" in failure.detail.replace(" .", ".")
