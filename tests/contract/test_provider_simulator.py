"""Providers classify the model server's refusals, and return the headers that the coordinator needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midwatch.orchestration.admission.headers import read
from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind, RetryAdvice
from midwatch.schemas.model import Stop
from midwatch.workers import providers
from midwatch.workers.providers import Provider
from midwatch.workers.simulator import Fault, Faults, ModelServer, Say
from tests.contract.provider_requests import credentials, make_request

REFUSALS = {
    Fault.RATE_LIMITED: FailureKind.RATE_LIMITED,
    Fault.OVERLOADED: FailureKind.OVERLOADED,
    Fault.PROVIDER_ERROR: FailureKind.PROVIDER_ERROR,
    Fault.QUOTA_EXHAUSTED: FailureKind.QUOTA_EXHAUSTED,
    Fault.SPEND_CAP: FailureKind.QUOTA_EXHAUSTED,
    Fault.AUTH_ERROR: FailureKind.AUTH_ERROR,
    Fault.CONTEXT_OVERFLOW: FailureKind.CONTEXT_OVERFLOW,
    Fault.PAYLOAD_TOO_LARGE: FailureKind.CONTEXT_OVERFLOW,
    Fault.BAD_REQUEST: FailureKind.FORMAT_ERROR,
}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(lambda _: Say("ok")) as server:
        yield server


SIMULATED = [name for name in providers.BUILT_IN if name != "gemini"]
"""The model server has no path for Gemini. Gemini's format is that of openai-compatible."""


@pytest.fixture(params=SIMULATED)
def model(request: pytest.FixtureRequest, server: ModelServer) -> Iterator[Provider]:
    yield providers.load(request.param, credentials(server.url))
    providers.close()


def error(model: Provider) -> ModelError:
    with pytest.raises(ModelError) as caught:
        model.complete(make_request(max_output_tokens=50))
    return caught.value


@pytest.mark.parametrize(("fault", "kind"), REFUSALS.items())
def test_refusals_have_their_failure_kind(
    model: Provider, server: ModelServer, fault: Fault, kind: FailureKind
) -> None:
    """Each refusal has its failure kind and the vendor's headers, after exactly one request."""
    server.use(Faults.model_validate({fault: 1.0, "once": False, "requests_per_minute": 600, "retry_after_s": 7}))
    caught = error(model)
    assert caught.failure.kind is kind
    assert caught.sent
    assert read(caught.ratelimit).limits["requests"] == 600
    assert read(caught.ratelimit).remaining["requests"] == 599
    assert caught.failure.retry_after_ms == (7_000 if kind is FailureKind.RATE_LIMITED else None)
    assert len(server.journal()) == 1


@pytest.mark.parametrize(
    ("fault", "kind", "advice"),
    [
        (Fault.HTML, FailureKind.PROVIDER_ERROR, RetryAdvice.SLOW),
        (Fault.BLOCKED_PAGE, FailureKind.PROVIDER_ERROR, RetryAdvice.SLOW),
        (Fault.ERROR_IN_200, FailureKind.OVERLOADED, None),
        (Fault.TRUNCATED, FailureKind.CONNECTION, None),
    ],
)
def test_other_faults_have_their_failure_kind(
    model: Provider, server: ModelServer, fault: Fault, kind: FailureKind, advice: RetryAdvice | None
) -> None:
    """A page is never the vendor's verdict, an error in a 200 keeps its kind, and half a body is cut off."""
    for fields in ({fault: 1.0, "once": False}, {"outage": fault, "outage_s": 60}):
        if "outage" in fields and fault is Fault.TRUNCATED:
            continue  # the client gets half an answer, so this is not an outage
        server.use(Faults.model_validate(fields))
        failure = error(model).failure
        assert (failure.kind, failure.advice) == (kind, advice)
    assert fault is not Fault.BLOCKED_PAGE or "8f00000000000001-SIM" in failure.detail


def test_a_null_stop_reason_is_no_fault_of_the_answer(model: Provider, server: ModelServer) -> None:
    """The answer is whole, so it is an answer."""
    server.use(Faults(stop_null=1.0, once=False))
    answer = model.complete(make_request(max_output_tokens=50))
    assert (answer.text, answer.stop) == ("ok", Stop.END)


def test_token_limit_is_a_rate_limit(model: Provider, server: ModelServer) -> None:
    """A token limit gives a rate_limited failure. Successful and failed calls both report the limit in headers."""
    axis = "input_tokens" if model.name == "anthropic" else "tokens"
    server.use(Faults.model_validate({f"{axis}_per_minute": 120}))
    state = read(model.complete(make_request(max_output_tokens=50)).ratelimit or {})
    assert state.limits[axis] == 120
    caught = error(model)
    assert caught.failure.kind is FailureKind.RATE_LIMITED
    assert 0 < (caught.failure.retry_after_ms or 0) <= 60_000
    assert read(caught.ratelimit).remaining.get(axis, 0) < 120


def test_an_overload_that_names_a_wait(model: Provider, server: ModelServer) -> None:
    """If an overload names a wait, the failure keeps it, because the coordinator pauses that long."""
    server.use(Faults(overloaded=1.0, overloaded_retry_after_s=4))
    assert error(model).failure.retry_after_ms == 4_000


def test_impossible_usage_fails_no_call(model: Provider, server: ModelServer) -> None:
    """A call with impossible usage succeeds. The usage counts as not reported, unless it is a believable number."""
    for seed in range(8):
        server.use(Faults(absurd_usage=1.0, once=False, seed=seed))
        usage = model.complete(make_request(tools=())).usage
        true = server.journal()[-1].usage
        assert true is not None
        assert not usage.reported or usage.input_tokens == 50 * true.input_tokens
