"""The same providers against a model server that somebody else wrote: its own wire formats, limits and faults."""

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
from tests.contract.provider_requests import KEY, after, ask


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
        model.complete(ask(timeout_s=timeout_s, tools=()))
    return caught.value.failure.kind


def test_tool_loop(model: Provider, llmock: LLMock) -> None:
    """A scripted call, its result, and the final answer go round; usage is reported."""
    llmock.call_tool("search", {"query": "refunds", "limit": 3}).reply("Three refunds.")
    request = ask()
    first = model.complete(request)
    assert (first.stop, [c.name for c in first.tool_calls]) == (Stop.TOOLS, ["search"])
    assert first.tool_calls[0].raw_arguments.replace(" ", "") == '{"query":"refunds","limit":3}'
    assert first.usage.reported
    second = model.complete(after(request, first, model.name, '{"found":3}'))
    assert (second.stop, second.text) == (Stop.END, "Three refunds.")


def test_broken_arguments_are_carried_and_replayed(model: Provider, llmock: LLMock) -> None:
    """Arguments that are no JSON come back as they are, and the conversation can go on after them."""
    llmock.call_tool("search", {"query": "refunds"}).break_tool_call().reply("Sorry.")
    request = ask()
    first = model.complete(request)
    assert len(first.tool_calls) == 1
    second = model.complete(after(request, first, model.name, "the arguments are no JSON"))
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
def test_faults(model: Provider, llmock: LLMock, status: int, kind: FailureKind) -> None:
    """Each fault has its kind and costs one request: with one more in the queue, a retry would be seen."""
    llmock.fail(status, times=3, retry_after=0.01)
    assert kind_of(model) is kind
    assert len(llmock.requests) == 1


def test_context_overflow(model: Provider, llmock: LLMock) -> None:
    """A window that the server finds too large is an overflow, in its words for each vendor."""
    llmock.limits(context_window=100)
    with pytest.raises(ModelError) as caught:
        model.complete(ask(UserMessage(group=1, text="word " * 500), max_output_tokens=20))
    assert caught.value.failure.kind is FailureKind.CONTEXT_OVERFLOW


def test_real_rate_limit(model: Provider, llmock: LLMock) -> None:
    """A bucket that runs dry answers with the true wait; its headers come along with success and failure alike."""
    llmock.limits(rpm=1)
    assert any("remaining" in header for header in model.complete(ask(tools=())).ratelimit or {})
    with pytest.raises(ModelError) as caught:
        model.complete(ask(tools=()))
    assert caught.value.failure.kind is FailureKind.RATE_LIMITED
    assert (caught.value.failure.retry_after_ms or 0) > 1_000
    assert read(caught.value.ratelimit).remaining[0] == 0
    assert read(caught.value.ratelimit).limits[0] == 1


def test_slow_server(model: Provider, llmock: LLMock, wait_for: Callable[..., object]) -> None:
    """A server that thinks too long is a timeout at the deadline, and is not asked again."""
    llmock.delay(1.5)
    assert kind_of(model, timeout_s=0.3) is FailureKind.TIMEOUT
    # Until the server is done with it: it draws at random then, which Hypothesis forbids while it draws in a later test.
    wait_for(lambda: llmock.requests, 30, "the server to end the call that was given up")
    assert len(llmock.requests) == 1
