"""Every provider classifies a vendor's errors in the same way, after exactly one request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import AssistantMessage, Opaque, Text
from midwatch.workers import providers
from tests.contract.provider_requests import make_request
from tests.contract.provider_server import reply
from tests.contract.provider_setup import Setup, connect_to_fake_vendor

STATUSES = {
    301: FailureKind.PROVIDER_ERROR,
    400: FailureKind.FORMAT_ERROR,
    401: FailureKind.AUTH_ERROR,
    402: FailureKind.QUOTA_EXHAUSTED,
    403: FailureKind.AUTH_ERROR,
    404: FailureKind.FORMAT_ERROR,
    408: FailureKind.TIMEOUT,
    409: FailureKind.PROVIDER_ERROR,
    412: FailureKind.FORMAT_ERROR,
    413: FailureKind.CONTEXT_OVERFLOW,
    418: FailureKind.FORMAT_ERROR,
    422: FailureKind.FORMAT_ERROR,
    429: FailureKind.RATE_LIMITED,
    499: FailureKind.CONNECTION,
    500: FailureKind.PROVIDER_ERROR,
    502: FailureKind.PROVIDER_ERROR,
    503: FailureKind.OVERLOADED,
    504: FailureKind.TIMEOUT,
    520: FailureKind.PROVIDER_ERROR,
    524: FailureKind.TIMEOUT,
    529: FailureKind.OVERLOADED,
}

CODED = [
    (400, "context_length_exceeded", "too much", FailureKind.CONTEXT_OVERFLOW),
    (400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum", FailureKind.CONTEXT_OVERFLOW),
    (400, "x", "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000",
     FailureKind.CONTEXT_OVERFLOW),
    (400, "x", "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
     FailureKind.CONTEXT_OVERFLOW),
    (400, "x", "Your input exceeds the context window of this model.", FailureKind.CONTEXT_OVERFLOW),
    (400, "x", "The input token count (3475108) exceeds the maximum number of tokens allowed (1048576).",
     FailureKind.CONTEXT_OVERFLOW),
    (500, "exceed_context_size_error", "request (2068 tokens) exceeds the available context size (2048 tokens)",
     FailureKind.CONTEXT_OVERFLOW),
    (429, "rate_limit_exceeded",
     "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 36278.",
     FailureKind.CONTEXT_OVERFLOW),
    (429, "rate_limit_exceeded", "Rate limit reached: Limit 6,000, Used 0, Requested 7,000. Please wait.",
     FailureKind.CONTEXT_OVERFLOW),
    (429, "rate_limit_exceeded", "Rate limit reached: Limit 30000, Used 29000, Requested 1500.",
     FailureKind.RATE_LIMITED),
    (429, "insufficient_quota", "You exceeded your current quota", FailureKind.QUOTA_EXHAUSTED),
    (429, "rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute.",
     FailureKind.RATE_LIMITED),
    (400, "billing_error", "unpaid", FailureKind.QUOTA_EXHAUSTED),
    (400, "billing_hard_limit_reached", "Billing hard limit has been reached.", FailureKind.QUOTA_EXHAUSTED),
    (429, "billing_not_active", "Your account is not active.", FailureKind.QUOTA_EXHAUSTED),
    (400, "invalid_request_error", "You have reached your specified API usage limits. You will regain access on ...",
     FailureKind.QUOTA_EXHAUSTED),
    (400, "invalid_request_error", "Your credit balance is too low to access the API.", FailureKind.QUOTA_EXHAUSTED),
    (400, "invalid_argument", "API key not valid. Please pass a valid API key.", FailureKind.AUTH_ERROR),
    (400, "content_filter", "The response was filtered", FailureKind.REFUSED),
    (400, "invalid_prompt", "flagged as potentially violating our usage policy", FailureKind.REFUSED),
    (500, "overloaded_error", "Overloaded", FailureKind.OVERLOADED),
    (529, "overloaded_error", "Overloaded", FailureKind.OVERLOADED),
    (503, "slow_down", "Slow down: your traffic rose too fast.", FailureKind.OVERLOADED),
    (500, "api_error", "Internal server error", FailureKind.PROVIDER_ERROR),
    (502, "server_error", "Bad gateway", FailureKind.PROVIDER_ERROR),
    (400, "invalid_request_error", "tools.0.custom.input_schema: bad", FailureKind.FORMAT_ERROR),
]  # fmt: skip


@pytest.fixture(params=providers.BUILT_IN)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    with connect_to_fake_vendor(request.param) as setup:
        yield setup


@pytest.mark.parametrize("body", ['{"error": 7}', '{"error": {"message": "x"}}', '{"detail": [{"loc": ["body"]}]}'])
def test_status_decides_without_a_code(setup: Setup, body: str) -> None:
    """Without a known code, the status decides the kind. No provider retries, so each error is one request."""
    for status, kind in STATUSES.items():
        assert (status, setup.failure(reply(status, body)).kind) == (status, kind)
    assert len(setup.vendor.requests) == len(STATUSES)


@pytest.mark.parametrize(("status", "code", "message", "kind"), CODED)
def test_code_and_message_win_over_the_status(
    setup: Setup, status: int, code: str, message: str, kind: FailureKind
) -> None:
    """The code and the message in the body count more than the status."""
    failure = setup.failure(reply(status, setup.replies.error(code, message)))
    assert failure.kind is kind
    assert failure.detail.startswith(f"{setup.name}: {status} {code}")
    assert len(failure.detail) <= 300


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("enforced_spend_limit_reached", FailureKind.QUOTA_EXHAUSTED),
        ("contract_spend_limit_reached", FailureKind.QUOTA_EXHAUSTED),
        ("ramp_limit_exceeded", FailureKind.RATE_LIMITED),
    ],
)
def test_code_in_the_details_decides(setup: Setup, code: str, kind: FailureKind) -> None:
    """Anthropic's spend caps have the status and type of a rate limit. Only the error's details show the difference."""
    error = {"type": "rate_limit_error", "message": "Limit reached.", "details": {"error_code": code}}
    assert setup.failure(reply(429, {"type": "error", "error": error})).kind is kind


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500, 503, 529])
def test_a_failure_carries_the_rate_limit_headers(setup: Setup, status: int) -> None:
    """A failure of any status has the vendor's rate-limit headers, with names in lower case."""
    title_case = {name.title(): value for name, value in setup.replies.rate_headers.items()}
    error = setup.error(reply(status, {"error": {"message": "no"}}, {**title_case, "x-other": "1"}))
    assert error.ratelimit == setup.replies.rate_headers
    assert error.failure.retry_after_ms == 3_000
    assert error.sent


def test_error_with_status_200_and_an_exhausted_limit(setup: Setup) -> None:
    """If an error with status 200 names no wait, the reset time of the exhausted limit is the wait."""
    exhausted = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5s"}
    failure = setup.failure(reply(200, {"error": {"code": 429, "message": "slow"}}, exhausted))
    assert (failure.kind, failure.retry_after_ms) == (FailureKind.RATE_LIMITED, 1_500)


def test_a_request_that_can_not_be_built_is_not_sent(setup: Setup) -> None:
    """A history that can't be written as JSON is an internal error. The call counts as not sent."""
    raw = {"type": "reasoning", "content": [float("nan")]}
    parts = (Opaque(provider=setup.name, raw=raw), Text(text="hi"))
    opaque = AssistantMessage(group=1, parts=parts, provider=setup.name, model=make_request().model)
    with pytest.raises(ModelError) as caught:
        setup.model.complete(make_request(opaque))
    assert caught.value.failure.kind is FailureKind.INTERNAL
    assert not caught.value.sent
    assert setup.vendor.requests == []


def test_error_with_status_200_is_classified(setup: Setup) -> None:
    """Gateways send errors with status 200. They are classified like other errors."""
    slow = setup.failure(reply(200, {"error": {"code": 429, "message": "slow"}}, {"retry-after": "2"}))
    assert (slow.kind, slow.retry_after_ms) == (FailureKind.RATE_LIMITED, 2_000)
    assert setup.failure(reply(200, setup.replies.error("overloaded_error", "x"))).kind is FailureKind.OVERLOADED
    assert setup.failure(reply(200, setup.replies.error("huh", "x"))).kind is FailureKind.PROVIDER_ERROR


def test_google_error_list_is_parsed(setup: Setup) -> None:
    """Google sends errors in a list. The wait and the kind of quota are in the error's details."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    error = {
        "code": 429,
        "message": "You exceeded your current quota",
        "status": "RESOURCE_EXHAUSTED",
        "details": details,
    }
    failure = setup.failure(reply(429, [{"error": error}]))
    assert (failure.kind, failure.retry_after_ms) == (FailureKind.RATE_LIMITED, 34_500)
    daily = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
    failure = setup.failure(reply(429, [{"error": {**error, "details": [daily]}}]))
    assert failure.kind is FailureKind.QUOTA_EXHAUSTED


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({"retry-after": "7"}, 7_000),
        ({"retry-after": "0.25"}, 250),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1_500),
        ({"date": "Tue, 24 Nov 2026 10:00:00 GMT", "retry-after": "Tue, 24 Nov 2026 10:00:30 GMT"}, 30_000),
        ({"retry-after": "Tue, 24 Nov 2020 10:00:30 GMT"}, 0),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "1000000000000"}, 31 * 86_400_000),
        ({"retry-after": "1e12"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360_000),
        ({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"date": "Tue, 24 Nov 2026 10:00:00 GMT", "anthropic-ratelimit-requests-remaining": "0",
          "anthropic-ratelimit-requests-reset": "2026-11-24T10:00:12Z"}, 12_000),
    ],
)  # fmt: skip
def test_retry_after_is_parsed(setup: Setup, headers: dict[str, str], wait_ms: int | None) -> None:
    """The vendor's wait is parsed in each of its forms. An invalid value is ignored, and a long wait is limited."""
    assert (
        setup.failure(reply(429, setup.replies.error("rate_limit_error", "slow down"), headers)).retry_after_ms
        == wait_ms
    )


def test_retry_after_as_a_date_from_now(setup: Setup) -> None:
    """If the response has no date, the wait is computed from the local clock."""
    wait_ms = setup.failure(reply(503, "", {"retry-after": "Tue, 24 Nov 2099 10:00:00 GMT"})).retry_after_ms
    assert wait_ms == 31 * 86_400_000


def test_failure_has_the_request_id(setup: Setup) -> None:
    """A failure has the vendor's request id, for questions to the vendor's support."""
    header = "request-id" if setup.name == "anthropic" else "x-request-id"
    assert setup.failure(reply(500, "", {header: "req_9"})).request_id == "req_9"
    assert setup.failure(reply(200, "<html>", {header: "req_10"})).request_id == "req_10"


def test_reply_that_is_no_answer_is_a_provider_error(setup: Setup) -> None:
    """A 200 that is not JSON, or has the wrong shape, is a provider error that says what was expected."""
    for body in ("<html>captive portal</html>", "", "null", '"text"', "[1]", "data: {}\n\n"):
        failure = setup.failure(reply(200, body, {"content-type": "text/html"}))
        assert failure.kind is FailureKind.PROVIDER_ERROR
        assert "expected" in failure.detail
    for shape in setup.replies.bodies_without_an_answer():
        failure = setup.failure(reply(200, shape))
        assert failure.kind is FailureKind.PROVIDER_ERROR, shape
        assert "expected" in failure.detail, failure.detail
