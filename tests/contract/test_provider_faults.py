"""What every provider makes of a vendor's errors: one of a closed set of kinds, after exactly one request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.message import UserMessage
from midwatch.workers import providers
from tests.contract.provider_requests import ask, assistant, call
from tests.contract.provider_server import reply
from tests.contract.provider_side import Side, beside_vendor

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
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with beside_vendor(request.param) as side:
        yield side


@pytest.mark.parametrize(
    "body", ["", "<html>busy</html>", '{"error": 7}', "[]", '{"detail": [{"loc": ["body"]}]}', "null"]
)
def test_status_alone(side: Side, body: str) -> None:
    """Without a readable body the status decides, and each is one request: nothing is retried beneath the fleet."""
    for status, kind in STATUSES.items():
        assert (status, side.failure(reply(status, body)).kind) == (status, kind)
    assert len(side.vendor.seen) == len(STATUSES)


@pytest.mark.parametrize(("status", "code", "message", "kind"), CODED)
def test_code_and_message(side: Side, status: int, code: str, message: str, kind: FailureKind) -> None:
    """What the body says counts before the status."""
    failure = side.failure(reply(status, side.wire.error(code, message)))
    assert failure.kind is kind
    assert failure.detail.startswith(f"{side.name}: {status} {code}")
    assert len(failure.detail) <= 300


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("enforced_spend_limit_reached", FailureKind.QUOTA_EXHAUSTED),
        ("contract_spend_limit_reached", FailureKind.QUOTA_EXHAUSTED),
        ("ramp_limit_exceeded", FailureKind.RATE_LIMITED),
    ],
)
def test_a_code_in_the_details(side: Side, code: str, kind: FailureKind) -> None:
    """Anthropic's spend caps have the status and type of a rate limit: only the error's details tell them apart."""
    error = {"type": "rate_limit_error", "message": "Limit reached.", "details": {"error_code": code}}
    assert side.failure(reply(429, {"type": "error", "error": error})).kind is kind


@pytest.mark.parametrize("status", [200, 400, 401, 429, 500, 503, 529])
def test_a_failure_carries_the_rate_limit_headers(side: Side, status: int) -> None:
    """Whatever the vendor answers, what its headers say of its limits reaches the coordinator, names in lower case."""
    shouted = {name.title(): value for name, value in side.wire.rate_headers.items()}
    error = side.error(reply(status, {"error": {"message": "no"}}, {**shouted, "x-other": "1"}))
    assert error.ratelimit == side.wire.rate_headers
    assert error.failure.retry_after_ms == 3_000
    assert error.sent


def test_an_error_inside_a_good_status_names_no_wait(side: Side) -> None:
    """Then the limit that is used up says when to come back, as with a 429."""
    exhausted = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1.5s"}
    failure = side.failure(reply(200, {"error": {"code": 429, "message": "slow"}}, exhausted))
    assert (failure.kind, failure.retry_after_ms) == (FailureKind.RATE_LIMITED, 1_500)


def test_a_request_that_can_not_be_built_is_not_sent(side: Side) -> None:
    """A call without a result, or half a character: our own error, and nothing for the coordinator to charge."""
    unanswered = ask(UserMessage(group=1, text="hi"), assistant(2, call()), UserMessage(group=3, text="well?"))
    for request in (unanswered, ask(UserMessage(group=1, text="\ud800"))):
        with pytest.raises(ModelError) as caught:
            side.model.complete(request)
        assert caught.value.failure.kind is FailureKind.INTERNAL
        assert not caught.value.sent
    assert side.vendor.seen == []


def test_error_inside_a_good_status(side: Side) -> None:
    """Gateways send errors with status 200; they are classified like any other."""
    slow = side.failure(reply(200, {"error": {"code": 429, "message": "slow"}}, {"retry-after": "2"}))
    assert (slow.kind, slow.retry_after_ms) == (FailureKind.RATE_LIMITED, 2_000)
    assert side.failure(reply(200, side.wire.error("overloaded_error", "x"))).kind is FailureKind.OVERLOADED
    assert side.failure(reply(200, side.wire.error("huh", "x"))).kind is FailureKind.PROVIDER_ERROR


def test_google_error_list(side: Side) -> None:
    """Google wraps its errors in a list, names the wait inside, and says there which quota it is."""
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}]
    error = {
        "code": 429,
        "message": "You exceeded your current quota",
        "status": "RESOURCE_EXHAUSTED",
        "details": details,
    }
    failure = side.failure(reply(429, [{"error": error}]))
    assert (failure.kind, failure.retry_after_ms) == (FailureKind.RATE_LIMITED, 34_500)
    daily = {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}
    failure = side.failure(reply(429, [{"error": {**error, "details": [daily]}}]))
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
        ({"retry-after": "1e12"}, 31 * 86_400_000),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360_000),
        ({"x-ratelimit-remaining-tokens": "12", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"date": "Tue, 24 Nov 2026 10:00:00 GMT", "anthropic-ratelimit-requests-remaining": "0",
          "anthropic-ratelimit-requests-reset": "2026-11-24T10:00:12Z"}, 12_000),
    ],
)  # fmt: skip
def test_retry_after(side: Side, headers: dict[str, str], wait_ms: int | None) -> None:
    """The wait that the vendor asks for, in every form it is asked in; nonsense is no wait, and none is endless."""
    assert side.failure(reply(429, side.wire.error("rate_limit_error", "slow down"), headers)).retry_after_ms == wait_ms


def test_retry_after_as_a_date_from_now(side: Side) -> None:
    """Without the server's own date the wait is counted from this clock."""
    wait_ms = side.failure(reply(503, "", {"retry-after": "Tue, 24 Nov 2099 10:00:00 GMT"})).retry_after_ms
    assert wait_ms == 31 * 86_400_000


def test_request_id(side: Side) -> None:
    """The failed call's id is kept for the vendor's support desk."""
    header = "request-id" if side.name == "anthropic" else "x-request-id"
    assert side.failure(reply(500, "", {header: "req_9"})).request_id == "req_9"
    assert side.failure(reply(200, "<html>", {header: "req_10"})).request_id == "req_10"


def test_not_an_answer(side: Side) -> None:
    """A 200 that is not JSON, or JSON of another shape, is the provider's error and says what was expected."""
    for body in ("<html>captive portal</html>", "", "null", '"text"', "[1]", "data: {}\n\n"):
        failure = side.failure(reply(200, body, {"content-type": "text/html"}))
        assert failure.kind is FailureKind.PROVIDER_ERROR
        assert "expected" in failure.detail
    for shape in side.wire.raise_wrong_type():
        failure = side.failure(reply(200, shape))
        assert failure.kind in (FailureKind.PROVIDER_ERROR, FailureKind.CONNECTION), shape
        assert "expected" in failure.detail or "cut off" in failure.detail, failure.detail


def test_cut_off(side: Side) -> None:
    """An answer that is not whole is a connection failure: no stop reason, or JSON that ends in the middle."""
    assert side.failure(reply(200, side.wire.unfinished())).kind is FailureKind.CONNECTION
    assert side.failure(reply(200, '{"id": "x", "content": [{"ty')).kind is FailureKind.CONNECTION


def test_hostile_json(side: Side) -> None:
    """Nesting, numbers and constants that break parsers end in a failure, not in a crash."""
    for body in ("[" * 200_000, '{"a":' * 200_000, '{"a": NaN}', '{"a": 1' + "0" * 5_000 + "}", b'{"a": "\xff"}'):
        assert side.failure(reply(200, body)).kind in (FailureKind.PROVIDER_ERROR, FailureKind.CONNECTION)


def test_deep_arguments(side: Side) -> None:
    """Arguments that are text are carried whatever they hold; parsed ones that nest too deep are refused."""
    deep = '{"a":' * 80 + "1" + "}" * 80
    body = side.wire.calls(("c", "search", deep))
    if side.name == "anthropic":
        assert side.failure(reply(200, body)).kind is FailureKind.PROVIDER_ERROR
    else:
        side.vendor.will(reply(200, body))
        assert side.model.complete(ask()).tool_calls[0].raw_arguments == deep
