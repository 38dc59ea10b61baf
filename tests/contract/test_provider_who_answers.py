"""Only the provider's API may end a job. What a firewall, a proxy or a gateway answers is named, and it is transient."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from midwatch.orchestration.admission.headers import read
from midwatch.orchestration.protocol.calls import Settlement
from midwatch.orchestration.steps.retry import decide
from midwatch.schemas.failure import FailureKind, RetryAdvice
from midwatch.schemas.message import AssistantMessage, Opaque, Text, UserMessage
from midwatch.schemas.policy import TRANSIENT, RetryConfig
from midwatch.schemas.step import DeadLetter, Defer
from midwatch.workers import providers
from tests.contract.provider_requests import KEY, PROMPT, make_request
from tests.contract.provider_server import reply
from tests.contract.provider_setup import Setup, connect_to_fake_vendor

HTML = {"content-type": "text/html; charset=UTF-8"}
TEXT = {"content-type": "text/plain"}

CHALLENGE = (
    '<!DOCTYPE html><html lang="en-US"><head><title>Just a moment...</title><style>*{margin:0}</style>'
    "<script>window._cf = {};</script></head><body><div><h1>api.example.com</h1><p>Enable JavaScript and cookies to continue</p>"
    "</div></body></html>"
)
BLOCKED = (
    "<html><head><title>Attention Required! | Cloudflare</title></head><body><h1>Sorry, you have been blocked</h1>"
    "<span>Cloudflare Ray ID: <strong>8d49989abc171ce8</strong></span></body></html>"
)
AKAMAI = (
    "<HTML><HEAD><TITLE>Access Denied</TITLE></HEAD><BODY><H1>Access Denied</H1>You don't have permission to access this.<P>"
    "Reference&#32;&#35;18&#46;2d351ab8&#46;1557333295&#46;a4e16ab</BODY></HTML>"
)
NGINX = "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n<hr></html>"

STRANGERS: list[tuple[int, str, dict[str, str], list[str]]] = [
    (403, CHALLENGE, {**HTML, "server": "cloudflare", "cf-ray": "88f99ff0bad87c72-HYD", "cf-mitigated": "challenge"},
     ["403", "cloudflare", "cf-ray 88f99ff0bad87c72-HYD", "Just a moment...", "Enable JavaScript"]),
    (403, BLOCKED, {**HTML, "server": "cloudflare"}, ["Attention Required", "8d49989abc171ce8", "you have been blocked"]),
    (403, AKAMAI, {**HTML, "server": "AkamaiGHost"}, ["AkamaiGHost", "Access Denied", "18.2d351ab8.1557333295.a4e16ab"]),
    (403, "<html><head><title>403 Forbidden</title></head></html>", {**HTML, "server": "awselb/2.0"}, ["awselb/2.0"]),
    (403, NGINX, {**HTML, "server": "nginx/1.27"}, ["nginx/1.27", "403 Forbidden"]),
    (403, "RBAC: access denied", {**TEXT, "server": "istio-envoy"}, ["istio-envoy", "text/plain", "RBAC: access denied"]),
    (403, "", {"server": "envoy", "content-length": "0"}, ["403", "envoy", "(empty)"]),
    (403, "{}", {"via": "1.1 proxy7 (squid/6.6)"}, ["squid"]),
    (403, '{"message":"Forbidden"}', {"x-amzn-waf-action": "captcha"}, ["aws waf", "x-amzn-waf-action captcha"]),
    (403, {"type": "https://developers.cloudflare.com/errors/1020", "title": "Error 1020", "status": 403, "error_code": 1020,
           "detail": "Access denied by the owner's rule", "cloudflare_error": True, "ray_id": "9d99"},
     {"content-type": "application/problem+json", "server": "cloudflare"}, ["cloudflare", "Access denied by the owner's rule"]),
    (401, "<html><title>Sign in to your account</title></html>", {**HTML, "server": "Microsoft-Azure-Application-Gateway/v2"},
     ["Sign in to your account"]),
    (401, "", {}, ["401, not from the provider's API", "(empty)"]),
    (404, "404 page not found\n", TEXT, ["404 page not found", "check the base URL"]),
    (404, "default backend - 404", {**TEXT, "server": "nginx"}, ["default backend", "nginx"]),
    (405, NGINX.replace("403 Forbidden", "405 Not Allowed"), {**HTML, "server": "nginx"}, ["check the base URL"]),
    (400, NGINX.replace("403 Forbidden", "400 Bad Request"), {**HTML, "server": "nginx"}, ["400 Bad Request"]),
    (400, "Bad Request", TEXT, ["400", "Bad Request"]),
    (407, "<html><title>ERR_CACHE_ACCESS_DENIED</title></html>", {**HTML, "x-squid-error": "ERR_CACHE_ACCESS_DENIED 0"},
     ["407", "squid", "HTTPS_PROXY"]),
    (407, {"error": {"message": "log in first"}}, {"server": "zscaler"}, ["407", "zscaler", "log in first"]),
    (451, "<html><title>Blocked by policy</title></html>", HTML, ["Blocked by policy"]),
    (302, "", {"location": "https://login.corp.example/sso?token=abc123"}, ["302", "https://login.corp.example"]),
    (200, "<html><head><title>Hotel WiFi</title></head><body>Accept the terms</body></html>", HTML,
     ["200", "Hotel WiFi", "Accept the terms", "text/html"]),
    (200, "", {"server": "varnish", "content-type": "text/plain"}, ["200", "varnish"]),
]  # fmt: skip


@pytest.fixture(params=providers.BUILT_IN)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    with connect_to_fake_vendor(request.param) as setup:
        yield setup


@pytest.mark.parametrize(("status", "body", "headers", "shown"), STRANGERS)
def test_answer_of_a_proxy_is_transient_and_slow(
    setup: Setup, status: int, body: Any, headers: dict[str, str], shown: list[str]
) -> None:
    """A page, plain text or nothing is transient and slow. The failure names who answered, its title and its id."""
    failure = setup.failure(reply(status, body, headers))
    assert (failure.kind, failure.advice) == (FailureKind.PROVIDER_ERROR, RetryAdvice.SLOW), failure.detail
    assert failure.status == status
    for words in shown:
        assert words in failure.detail, failure.detail
    assert len(failure.detail) <= 300
    assert "token=" not in failure.detail


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (408, FailureKind.TIMEOUT), (413, FailureKind.CONTEXT_OVERFLOW), (429, FailureKind.RATE_LIMITED),
        (499, FailureKind.CONNECTION), (500, FailureKind.PROVIDER_ERROR), (502, FailureKind.PROVIDER_ERROR),
        (503, FailureKind.OVERLOADED), (504, FailureKind.TIMEOUT), (520, FailureKind.PROVIDER_ERROR),
        (522, FailureKind.TIMEOUT), (529, FailureKind.OVERLOADED),
    ],
)  # fmt: skip
def test_status_that_means_the_same_from_a_proxy(setup: Setup, status: int, kind: FailureKind) -> None:
    """An outage, a limit and a too large body are the same from a proxy, and are retried at the usual pace."""
    page = f"<html><head><title>{status} busy</title></head></html>"
    failure = setup.failure(reply(status, page, {**HTML, "server": "nginx"}))
    assert (failure.kind, failure.advice) == (kind, None)
    assert f'"{status} busy"' in failure.detail
    assert "nginx" in failure.detail
    assert setup.failure(reply(status, "")).kind is kind


@pytest.mark.parametrize(
    ("status", "body", "kind", "shown"),
    [
        (401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
         FailureKind.AUTH_ERROR, "401 authentication_error invalid x-api-key"),
        (403, {"error": {"message": "Country not supported", "code": "unsupported_country_region_territory"}},
         FailureKind.AUTH_ERROR, "Country not supported"),
        (403, {"error": {"message": "no access to model", "type": "permission_error", "code": None}},
         FailureKind.AUTH_ERROR, "no access to model"),
        # Kong, AWS API Gateway, FastAPI, xAI, Mistral, Portkey: JSON in other shapes.
        (401, {"message": "No API key found in request", "request_id": "77"}, FailureKind.AUTH_ERROR, "No API key found"),
        (403, {"message": "Forbidden"}, FailureKind.AUTH_ERROR, "403 Forbidden"),
        (404, {"detail": "Not Found"}, FailureKind.FORMAT_ERROR, "404 Not Found"),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: 12***"},
         FailureKind.AUTH_ERROR, "Incorrect API key"),
        (429, {"object": "error", "message": "Requests rate limit exceeded", "type": "rate_limited", "code": "1300"},
         FailureKind.RATE_LIMITED, "Requests rate limit exceeded"),
        (412, {"status": "failure", "message": "guardrail failed"}, FailureKind.FORMAT_ERROR, "guardrail failed"),
        # LiteLLM, OpenRouter, Apigee, Bedrock: which upstream failed, and why.
        (429, {"error": {"message": "litellm.RateLimitError: AzureException", "type": "throttling_error", "code": "429"}},
         FailureKind.RATE_LIMITED, "AzureException"),
        (400, {"error": {"message": "Provider returned error", "code": 429, "metadata": {
            "provider_name": "BaseTen", "raw": "glm is temporarily rate-limited upstream"}}},
         FailureKind.RATE_LIMITED, "(upstream BaseTen) Provider returned error: glm is temporarily rate-limited upstream"),
        (502, {"error": {"message": "Provider returned error", "code": 502, "metadata": {
            "provider_name": "Anthropic", "raw": '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'}}},
         FailureKind.OVERLOADED, "(upstream Anthropic) Overloaded"),
        (400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {
            "provider_name": "OpenAI", "raw": '{"error":{"code":"context_length_exceeded","message":"too long"}}'}}},
         FailureKind.CONTEXT_OVERFLOW, "(upstream OpenAI) too long"),
        (500, {"fault": {"faultstring": "Rate limit quota violation",
                         "detail": {"errorcode": "policies.ratelimit.QuotaViolation"}}},
         FailureKind.RATE_LIMITED, "Rate limit quota violation"),
        (400, {"__type": "com.amazon.coral.service#ThrottlingException", "message": "Too many tokens, please wait"},
         FailureKind.RATE_LIMITED, "Too many tokens"),
        # A small server that refuses a key in plain text.
        (401, "Invalid API key", FailureKind.AUTH_ERROR, "Invalid API key"),
    ],
)  # fmt: skip
def test_json_is_a_verdict(setup: Setup, status: int, body: Any, kind: FailureKind, shown: str) -> None:
    """An error in JSON is the provider's word, or that of the gateway in its place. The failure shows its reason."""
    failure = setup.failure(reply(status, body))
    assert (failure.kind, failure.advice) == (kind, None), failure.detail
    assert shown in failure.detail


def test_json_403_that_names_a_wait_is_a_limit(setup: Setup) -> None:
    """GitHub answers 403 to too many requests, with the time of the next one. A code for a bad key counts more."""
    body = {"message": "You have exceeded a secondary rate limit", "documentation_url": "https://docs.github.com"}
    for headers, wait_ms in (
        ({"retry-after": "60"}, 60_000),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "30"}, 30_000),
    ):
        failure = setup.failure(reply(403, body, headers))
        assert (failure.kind, failure.retry_after_ms) == (FailureKind.RATE_LIMITED, wait_ms)
    refused = setup.replies.error("permission_error", "no access")
    assert setup.failure(reply(403, refused, {"retry-after": "60"})).kind is (FailureKind.AUTH_ERROR)
    assert setup.failure(reply(403, body, {"x-ratelimit-remaining": "5"})).kind is FailureKind.AUTH_ERROR


@pytest.mark.parametrize(
    ("body", "shown"),
    [({"error": {"foo": "bar"}}, '{"error": {"foo": "bar"}}'), ({"error": {"code": "weird"}}, "weird")],
)
def test_error_without_a_message_shows_its_body(setup: Setup, body: Any, shown: str) -> None:
    """Without a message, the failure has the status, who answered, the content type and the first words of the body."""
    detail = setup.failure(reply(403, body, {"server": "gateway/1"})).detail
    assert detail.startswith(f"{setup.name}: 403 ")
    for words in ("(no message; application/json from gateway/1)", shown):
        assert words in detail


def test_nothing_secret_is_quoted(setup: Setup) -> None:
    """A page or an error that quotes the key or the prompt shows neither."""
    for body in (
        f"<html><title>{KEY}</title><body>{PROMPT}</body></html>",
        f"{KEY} {PROMPT}",
        {"error": {"x": KEY + PROMPT}},
    ):
        for status in (200, 403, 500):
            failure = setup.failure(reply(status, body, {"server": KEY, "cf-ray": KEY}))
            assert KEY not in failure.detail
            assert PROMPT[:30] not in failure.detail
    assert "tangerine" not in setup.failure(reply(200, "The answer is tangerine.", TEXT)).detail


ERRORS_IN_200: list[tuple[Any, FailureKind, str]] = [
    ({"error": {"message": "slow down", "code": 429}}, FailureKind.RATE_LIMITED, "slow down"),
    ({"error": {"message": "busy", "code": "503"}}, FailureKind.OVERLOADED, "busy"),
    ({"error": {"message": "busy", "code": 529}}, FailureKind.OVERLOADED, "busy"),
    ({"error": {"message": "no", "status": 401}}, FailureKind.AUTH_ERROR, "no"),
    ({"error": "rate limited, sorry", "status_code": 429}, FailureKind.RATE_LIMITED, "rate limited, sorry"),
    ({"error": "it broke"}, FailureKind.PROVIDER_ERROR, "it broke"),
    ({"error": True, "message": "it broke"}, FailureKind.PROVIDER_ERROR, "it broke"),
    ({"errors": [{"message": "quota", "code": "insufficient_quota"}]}, FailureKind.QUOTA_EXHAUSTED, "quota"),
    ([{"error": {"code": 429, "message": "Resource exhausted", "status": "RESOURCE_EXHAUSTED"}}],
     FailureKind.RATE_LIMITED, "Resource exhausted"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, FailureKind.OVERLOADED, "Overloaded"),
    ({"type": "error", "message": "odd"}, FailureKind.PROVIDER_ERROR, "odd"),
    ({"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "x y"}, "output": []},
     FailureKind.RATE_LIMITED, "x y"),
    ({"status": "FAILED", "output": []}, FailureKind.PROVIDER_ERROR, "status FAILED"),
    ({"status": "cancelled", "output": []}, FailureKind.PROVIDER_ERROR, "cancelled"),
    ({"type": "response.failed", "response": {"status": "failed", "error": {"code": "server_is_overloaded", "message": "full"}}},
     FailureKind.OVERLOADED, "full"),
    ({"choices": [{"error": {"code": 502, "message": "upstream died"}, "finish_reason": "error",
                   "message": {"content": "He"}}]}, FailureKind.PROVIDER_ERROR, "upstream died"),
    ({"choices": [{"error": {"code": 429, "message": "upstream limit"}, "message": {"content": ""}}]},
     FailureKind.RATE_LIMITED, "upstream limit"),
    ({"choices": [], "base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, FailureKind.RATE_LIMITED, "rate limit"),
    ({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
     FailureKind.QUOTA_EXHAUSTED, "insufficient balance"),
    ({"choices": None, "base_resp": {"status_code": 1039, "status_msg": "token limit"}}, FailureKind.CONTEXT_OVERFLOW, "token"),
    ({"code": 1302, "msg": "concurrency too high", "success": False}, FailureKind.RATE_LIMITED, "concurrency too high"),
    ({"code": "Throttling.RateQuota", "message": "Requests throttled", "request_id": "r"},
     FailureKind.RATE_LIMITED, "Requests throttled"),
    ({"code": 500, "msg": "system busy", "data": None}, FailureKind.PROVIDER_ERROR, "system busy"),
    ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, FailureKind.PROVIDER_ERROR, "qps request limit"),
    ({"object": "error", "message": "maximum context length is 4096 tokens", "code": 400}, FailureKind.CONTEXT_OVERFLOW, "4096"),
    ({"__type": "ThrottlingException", "message": "slow"}, FailureKind.RATE_LIMITED, "slow"),
    ({"data": {"error": {"code": 429, "message": "nested"}}}, FailureKind.RATE_LIMITED, "nested"),
    ({"result": {"x": {"error": "deep down"}}}, FailureKind.PROVIDER_ERROR, "deep down"),
    ({"choices": [{"message": {"content": "", "error": {"code": 503, "message": "in the message"}}}]},
     FailureKind.OVERLOADED, "in the message"),
    ({"content": [{"type": "error", "error": {"type": "overloaded_error", "message": "a block"}}], "stop_reason": "end_turn"},
     FailureKind.OVERLOADED, "a block"),
    ({"output": [{"type": "error", "code": "rate_limit_exceeded", "message": "an item"}], "status": "completed"},
     FailureKind.RATE_LIMITED, "an item"),
    ({"error": '{"error": {"code": 429, "message": "as text"}}'}, FailureKind.RATE_LIMITED, "as text"),
    ({"error": {"message": 'upstream said: {"type":"error","error":{"type":"overloaded_error","message":"inner"}}', "code": 500}},
     FailureKind.OVERLOADED, "inner"),
    ({"detail": "Internal Server Error"}, FailureKind.PROVIDER_ERROR, "Internal Server Error"),
    ('event: error\ndata: {"error": {"code": 429, "message": "in the stream"}}\n\n', FailureKind.RATE_LIMITED, "in the stream"),
    (': OPENROUTER PROCESSING\n\ndata: {"choices":[{"delta":{"content":"H"}}]}\n\n'
     'data: {"error":{"code":503,"message":"gone"}}\n', FailureKind.OVERLOADED, "gone"),
    ('data: {"type":"response.created","response":{"status":"in_progress"}}\n\n'
     'data: {"type":"response.failed","response":{"error":{"code":"insufficient_quota","message":"paid out"}}}\n',
     FailureKind.QUOTA_EXHAUSTED, "paid out"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "shown"), ERRORS_IN_200)
def test_error_inside_a_200_keeps_its_kind(setup: Setup, body: Any, kind: FailureKind, shown: str) -> None:
    """An error with status 200 keeps its kind and its reason, wherever in the body it is."""
    failure = setup.failure(reply(200, body))
    assert (failure.kind, shown in failure.detail) == (kind, True), failure.detail


def test_empty_error_fields_are_no_error(setup: Setup) -> None:
    """Some servers send an empty error and a code of success with every answer."""
    for extra in (
        {"error": None}, {"error": ""}, {"error": {}}, {"error": {"code": 0, "message": ""}}, {"error": []},
        {"base_resp": {"status_code": 0, "status_msg": "success"}}, {"code": 0, "msg": "success"}, {"message": "ok"},
        {"success": True}, {"detail": None},
    ):  # fmt: skip
        setup.vendor.answer_next(reply(200, {**setup.replies.text("fine"), **extra}))
        assert setup.model.complete(make_request()).text == "fine", extra


def test_event_stream_with_an_answer_is_final(setup: Setup) -> None:
    """A stream that was not requested was paid for, and would come again. It is a format error."""
    stream = 'data: {"id":"1","choices":[{"delta":{"content":"Hi"}}]}\n\ndata: [DONE]\n\n'
    failure = setup.failure(reply(200, stream, {"content-type": "text/event-stream"}))
    assert failure.kind is FailureKind.FORMAT_ERROR
    assert "event stream" in failure.detail


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_should_retry_makes_a_final_error_transient(setup: Setup, status: int) -> None:
    """`x-should-retry: true` is the server's word that a retry helps. A spend cap becomes a rate limit."""
    headers = {"x-should-retry": "true"}
    failure = setup.failure(reply(status, setup.replies.error("invalid_request_error", "one moment"), headers))
    assert (failure.kind, failure.advice) == (FailureKind.PROVIDER_ERROR, None)
    failure = setup.failure(reply(429, setup.replies.error("insufficient_quota", "used up"), headers))
    assert failure.kind is FailureKind.RATE_LIMITED
    failure = setup.failure(reply(status, setup.replies.error("context_length_exceeded", "too long"), headers))
    assert failure.kind is FailureKind.CONTEXT_OVERFLOW


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_should_not_retry_takes_the_retries(setup: Setup, status: int) -> None:
    """After `x-should-retry: false` there is no retry if the coordinator counts the failure against the call."""
    failure = setup.failure(reply(status, setup.replies.error("x", "no more"), {"x-should-retry": "false"}))
    assert failure.kind in TRANSIENT
    assert failure.advice is RetryAdvice.LAST
    config, rng = RetryConfig(), random.Random(7)
    assert isinstance(decide(config, failure, 0, rng), DeadLetter)
    later = decide(config, failure, 0, rng, Settlement(free=True, downstream="x"))
    assert isinstance(later, Defer)
    assert later.after_ms >= 15_000


def test_should_not_retry_changes_no_final_error(setup: Setup) -> None:
    """A final error stays as it is."""
    failure = setup.failure(reply(401, setup.replies.error("authentication_error", "no"), {"x-should-retry": "false"}))
    assert (failure.kind, failure.advice) == (FailureKind.AUTH_ERROR, None)


BODY_WAITS: list[tuple[Any, int | None]] = [
    ({"error": {"code": 429, "message": "x", "retry_after": 30}}, 30_000),
    ({"error": {"code": 429, "message": "x", "retry_after_ms": 1500}}, 1_500),
    ({"error": {"message": "x", "retryAfter": "12s"}}, 12_000),
    ({"message": "You are being rate limited.", "retry_after": 0.65, "global": False}, 650),
    ({"error": {"code": 429, "message": "x", "metadata": {"headers": {"Retry-After": "9"}}}}, 9_000),
    ({"error": {"message": "x", "metadata": {"headers": {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1.5s"}}}}, 1_500),
    ([{"error": {"code": 429, "message": "x", "details": [
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
            {"quotaMetric": "generate_content_requests", "quotaId": "PerMinutePerProject", "quotaValue": "15"}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.074824224s"}]}}], 34_075),
    ({"error": {"message": "x", "details": [{"retryDelay": {"seconds": 7}}]}}, 7_000),
    ({"error": {"type": "usage_limit_reached", "message": "x", "resets_in_seconds": 90}}, 90_000),
    ({"title": "Error 1015", "detail": "limited", "error_code": 1015, "cloudflare_error": True, "retry_after": 30}, 30_000),
    ({"error": {"message": "Rate limit reached. Limit 30, Used 30, Requested 1. Please try again in 6m0s. Visit x."}}, 360_000),
    ({"error": {"message": "Rate limit reached for x. Please try again in 20ms."}}, 20),
    ({"error": {"code": "429", "message": "Requests have exceeded token rate limit. Please retry after 26 seconds."}}, 26_000),
    ({"error": {"message": "Please wait 5 seconds before the next request"}}, 5_000),
    ({"error": {"message": "x", "retry_after": "soon"}}, None),
    ({"error": {"message": "x", "retry_after": True}}, None),
    ({"error": {"message": "x", "retry_after": -5}}, 0),
    ({"error": {"message": "x", "retry_after": 10**12}}, 31 * 86_400_000),
    ({"error": {"message": "Please try again in 999999999 days"}}, 31 * 86_400_000),
    ({"error": {"message": "Please try again in a while"}}, None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "wait_ms"), BODY_WAITS)
def test_wait_in_the_body_is_heard(setup: Setup, body: Any, wait_ms: int | None) -> None:
    """A wait in a field of the body is read in each form. A wait in the message is read only if no field has one."""
    assert setup.failure(reply(429, body)).retry_after_ms == wait_ms
    assert setup.failure(reply(429, body, {"retry-after": "3"})).retry_after_ms == 3_000


def test_limits_in_the_body_reach_the_coordinator(setup: Setup) -> None:
    """Google and OpenRouter name a limit in the body. It is learned like a limit in a header. A limit per day is not
    learned."""
    quota = "generativelanguage.googleapis.com/generate_content_free_tier_"
    violations = [
        {"quotaMetric": quota + "requests", "quotaId": "GenerateRequestsPerMinutePerProject", "quotaValue": "15"},
        {"quotaMetric": quota + "input_token_count", "quotaId": "GenerateTokensPerMinute", "quotaValue": 250000},
    ]
    error = {"code": 429, "message": "x", "details": [{"violations": violations}]}
    for body in ([{"error": error}], {"error": error}):
        assert read(setup.error(reply(429, body)).ratelimit).limits == {"requests": 15, "input_tokens": 250_000}
    headers = {"X-RateLimit-Limit-Requests-Minute": "20", "X-RateLimit-Remaining-Requests-Minute": "0"}
    body = {"error": {"code": 429, "message": "x", "metadata": {"headers": headers}}}
    figures = read(setup.error(reply(200, body)).ratelimit)
    assert (figures.limits, figures.remaining) == ({"requests": 20}, {"requests": 0})
    daily = [{"quotaMetric": quota + "requests", "quotaId": "GenerateRequestsPerDay", "quotaValue": "50"}]
    assert not read(setup.error(reply(429, {"error": {"code": 429, "details": [{"violations": daily}]}})).ratelimit)


def test_error_type_in_a_header_is_a_code(setup: Setup) -> None:
    """AWS names the exception in a header."""
    for name, kind in (
        ("ThrottlingException", FailureKind.RATE_LIMITED),
        ("AccessDeniedException", FailureKind.AUTH_ERROR),
    ):
        headers = {"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/"}
        assert setup.failure(reply(400, {"message": "no"}, headers)).kind is kind


def test_wait_in_a_message_is_only_for_limits(setup: Setup) -> None:
    """A sentence in a final error, or a number in a page, is no wait."""
    message = "Invalid model. Please try again in 5 minutes"
    assert setup.failure(reply(400, setup.replies.error("x", message))).retry_after_ms is None
    assert (
        setup.failure(reply(503, setup.replies.error("x", "Please try again in 5 minutes"))).retry_after_ms == 300_000
    )


def test_page_and_unreadable_reply_are_no_refusal_of_opaque_parts(setup: Setup) -> None:
    """A firewall's page and a reply that can't be read lead to no second request. A refused request leads to one."""
    raw = (
        {"reasoning_content": "hm"}
        if setup.name not in ("anthropic", "openai")
        else {"type": "thinking", "thinking": "hm"}
    )
    if setup.name == "openai":
        raw = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    server = getattr(setup.model, "server", "")
    turn = AssistantMessage(
        group=2,
        parts=(Opaque(provider=setup.name, raw=raw), Text(text="a")),
        provider=setup.name,
        model="model-under-test",
        server=server,
    )
    request = make_request(UserMessage(group=1, text="x"), turn, UserMessage(group=3, text="y"))
    refused = setup.error(reply(400, setup.replies.error("invalid_request_error", "unknown field")), request)
    assert refused.opaque_sent_to
    for answer in (reply(403, CHALLENGE, HTML), reply(200, '{"a": 1,}'), reply(200, "<html>", HTML)):
        assert not setup.error(answer, request).opaque_sent_to


def test_bare_400_may_refuse_the_form(setup: Setup) -> None:
    """A 400 without a reason may refuse the request's form. A page with another status, or a broken reply, does not."""
    assert setup.failure(reply(400, "")).is_refused_request
    assert setup.failure(reply(422, "")).is_refused_request
    assert setup.failure(reply(400, setup.replies.error("invalid_request_error", "no"))).is_refused_request
    for answer in (reply(403, ""), reply(500, ""), reply(200, '{"a": 1,}'), reply(200, "<html>")):
        assert not setup.failure(answer).is_refused_request
