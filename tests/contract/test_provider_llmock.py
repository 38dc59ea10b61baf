"""The providers against LLMock, a model server by another author, with its own formats, limits and faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from llmock.pytest_plugin import LLMock

from midwatch.orchestration.admission.headers import read
from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import UserMessage
from midwatch.schemas.model import Stop
from midwatch.workers import providers
from midwatch.workers.providers import Credentials, Provider
from tests.contract.provider_requests import KEY, make_request, next_request


@pytest.fixture(params=providers.BUILT_IN)
def model(request: pytest.FixtureRequest, llmock: LLMock) -> Iterator[Provider]:
    openai_url = llmock.base_url("openai")
    yield providers.load(
        request.param,
        Credentials(
            anthropic_api_key=KEY,
            anthropic_base_url=llmock.base_url("anthropic"),
            openai_api_key=KEY,
            openai_base_url=openai_url,
            gemini_api_key=KEY,
            gemini_base_url=openai_url,
        ),
    )
    providers.close()


def kind_of(model: Provider, timeout_s: float = 5.0) -> FailureKind:
    with pytest.raises(ModelError) as caught:
        model.complete(make_request(timeout_s=timeout_s, tools=()))
    return caught.value.failure.kind


def test_tool_loop(model: Provider, llmock: LLMock) -> None:
    """A tool loop works: the call, its result, the final answer and the usage."""
    llmock.call_tool("search", {"query": "refunds", "limit": 3}).reply("Three refunds.")
    request = make_request()
    first = model.complete(request)
    assert (first.stop, [c.name for c in first.tool_calls]) == (Stop.TOOLS, ["search"])
    assert first.tool_calls[0].raw_arguments.replace(" ", "") == '{"query":"refunds","limit":3}'
    assert first.usage.reported
    second = model.complete(next_request(request, first, model.name, '{"found":3}'))
    assert (second.stop, second.text) == (Stop.END, "Three refunds.")


def test_conversation_goes_on_after_broken_arguments(model: Provider, llmock: LLMock) -> None:
    """After a call whose arguments are no JSON, the next request of the conversation succeeds."""
    llmock.call_tool("search", {"query": "refunds"}).break_tool_call().reply("Sorry.")
    request = make_request()
    first = model.complete(request)
    assert len(first.tool_calls) == 1
    second = model.complete(next_request(request, first, model.name, "the arguments are no JSON"))
    assert second.text == "Sorry."


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, FailureKind.AUTH_ERROR),
        (404, FailureKind.FORMAT_ERROR),
        (413, FailureKind.CONTEXT_OVERFLOW),
        (429, FailureKind.RATE_LIMITED),
        (500, FailureKind.PROVIDER_ERROR),
        (503, FailureKind.OVERLOADED),
        (529, FailureKind.OVERLOADED),
    ],
)
def test_fault_has_its_kind_and_no_retry(model: Provider, llmock: LLMock, status: int, kind: FailureKind) -> None:
    """Each fault has its failure kind and causes one request. Two more faults are queued, so a retry would be counted."""
    llmock.fail(status, times=3, retry_after=0.01)
    assert kind_of(model) is kind
    assert len(llmock.requests) == 1


def test_too_large_window_is_an_overflow(model: Provider, llmock: LLMock) -> None:
    """If the server finds the window too large, the failure is a context overflow."""
    llmock.limits(context_window=100)
    with pytest.raises(ModelError) as caught:
        model.complete(make_request(UserMessage(group=1, text="word " * 500), max_output_tokens=20))
    assert caught.value.failure.kind is FailureKind.CONTEXT_OVERFLOW


def test_exhausted_limit_gives_the_wait(model: Provider, llmock: LLMock) -> None:
    """An exhausted limit gives the real wait. Successful and failed calls both have the limit's headers."""
    llmock.limits(rpm=1)
    assert any("remaining" in header for header in model.complete(make_request(tools=())).ratelimit or {})
    with pytest.raises(ModelError) as caught:
        model.complete(make_request(tools=()))
    assert caught.value.failure.kind is FailureKind.RATE_LIMITED
    assert (caught.value.failure.retry_after_ms or 0) > 1_000
    assert read(caught.value.ratelimit).remaining["requests"] == 0
    assert read(caught.value.ratelimit).limits["requests"] == 1


def test_slow_server_is_a_timeout(model: Provider, llmock: LLMock, wait_for: Callable[..., object]) -> None:
    """If the server is too slow, the call ends with a timeout at the deadline and is not repeated."""
    llmock.delay(1.5)
    assert kind_of(model, timeout_s=0.3) is FailureKind.TIMEOUT
    # The server uses `random` when it ends the call. Hypothesis forbids that during a later test, so wait for it here.
    wait_for(lambda: llmock.requests, "the server to end the call that timed out")
    assert len(llmock.requests) == 1
