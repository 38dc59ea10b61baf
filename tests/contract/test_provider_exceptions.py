"""Every exception class that the SDKs export has a failure kind. A new class in a new SDK release fails these tests."""

from __future__ import annotations

import json
from types import ModuleType

import anthropic
import anthropic._error_classes as anthropic_errors
import httpx2
import openai
import pytest

from midwatch.schemas.failure import FailureKind, RetryAdvice
from midwatch.workers.providers.errors.call_context import CallContext
from midwatch.workers.providers.errors.classify import classify_error, was_never_sent

CALL = CallContext("vendor", 1.0)

REQUEST = httpx2.Request("POST", "http://localhost/v1", headers={"authorization": "Bearer sk-never-shown"})

ABSTRACT = {"AnthropicError", "APIError", "OpenAIError", "HTTPError", "RequestError", "Exception"}
"""Base classes. An SDK raises only their subclasses, or the base class if it is used wrongly, which is our defect."""

WITHOUT_RESPONSE = {
    "APIConnectionError": FailureKind.CONNECTION,
    "APITimeoutError": FailureKind.TIMEOUT,
    "APIResponseValidationError": FailureKind.PROVIDER_ERROR,
    "APIWebhookValidationError": FailureKind.INTERNAL,
    "InvalidWebhookSignatureError": FailureKind.INTERNAL,
    "RetryableError": FailureKind.PROVIDER_ERROR,
    "CredentialsError": FailureKind.AUTH_ERROR,
    "IdentityTokenFileError": FailureKind.AUTH_ERROR,
    "WorkloadIdentityError": FailureKind.AUTH_ERROR,
    "SubjectTokenProviderError": FailureKind.AUTH_ERROR,
    "LengthFinishReasonError": FailureKind.FORMAT_ERROR,
    "ContentFilterFinishReasonError": FailureKind.REFUSED,
    "WebSocketConnectionClosedError": FailureKind.CONNECTION,
    "WebSocketQueueFullError": FailureKind.CONNECTION,
    "CloseError": FailureKind.CONNECTION,
    "ConnectError": FailureKind.CONNECTION,
    "ConnectTimeout": FailureKind.TIMEOUT,
    "CookieConflict": FailureKind.INTERNAL,
    "DecodingError": FailureKind.CONNECTION,
    "InvalidURL": FailureKind.INTERNAL,
    "LocalProtocolError": FailureKind.INTERNAL,
    "NetworkError": FailureKind.CONNECTION,
    "PoolTimeout": FailureKind.TIMEOUT,
    "ProtocolError": FailureKind.CONNECTION,
    "ProxyError": FailureKind.CONNECTION,
    "ReadError": FailureKind.CONNECTION,
    "ReadTimeout": FailureKind.TIMEOUT,
    "RemoteProtocolError": FailureKind.CONNECTION,
    "RequestNotRead": FailureKind.CONNECTION,
    "ResponseNotRead": FailureKind.CONNECTION,
    "SSEError": FailureKind.CONNECTION,
    "StreamClosed": FailureKind.CONNECTION,
    "StreamConsumed": FailureKind.CONNECTION,
    "StreamError": FailureKind.CONNECTION,
    "TimeoutException": FailureKind.TIMEOUT,
    "TooManyRedirects": FailureKind.PROVIDER_ERROR,
    "TransportError": FailureKind.CONNECTION,
    "UnsupportedProtocol": FailureKind.INTERNAL,
    "WriteError": FailureKind.CONNECTION,
    "WriteTimeout": FailureKind.TIMEOUT,
}

BY_STATUS = {
    400: FailureKind.FORMAT_ERROR,
    401: FailureKind.AUTH_ERROR,
    402: FailureKind.QUOTA_EXHAUSTED,
    403: FailureKind.AUTH_ERROR,
    404: FailureKind.FORMAT_ERROR,
    408: FailureKind.TIMEOUT,
    409: FailureKind.PROVIDER_ERROR,
    412: FailureKind.FORMAT_ERROR,
    413: FailureKind.CONTEXT_OVERFLOW,
    422: FailureKind.FORMAT_ERROR,
    429: FailureKind.RATE_LIMITED,
    431: FailureKind.FORMAT_ERROR,
    499: FailureKind.CONNECTION,
    500: FailureKind.PROVIDER_ERROR,
    501: FailureKind.FORMAT_ERROR,
    503: FailureKind.OVERLOADED,
    504: FailureKind.TIMEOUT,
    529: FailureKind.OVERLOADED,
}

BY_CODE = {
    "contract_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "enforced_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "linked_organization_spend_limit_reached": FailureKind.QUOTA_EXHAUSTED,
    "linked_organization_billing_unavailable": FailureKind.QUOTA_EXHAUSTED,
    "organization_on_hold": FailureKind.AUTH_ERROR,
    "request_body_timeout": FailureKind.TIMEOUT,
}
"""Error codes whose kind differs from the kind of their status."""


def exported(module: ModuleType) -> dict[str, type[BaseException]]:
    """Return every exception class that a module exports."""
    found = (getattr(module, name) for name in dir(module) if not name.startswith("_"))
    return {cls.__name__: cls for cls in found if isinstance(cls, type) and issubclass(cls, BaseException)}


CLASSES = [
    pytest.param(cls, id=f"{module.__name__}.{name}")
    for module in (anthropic, openai, httpx2)
    for name, cls in exported(module).items()
]


def response(status: int, body: object = None) -> httpx2.Response:
    return httpx2.Response(status, content=json.dumps(body).encode(), request=REQUEST)


@pytest.mark.parametrize("cls", CLASSES)
def test_every_exported_class(cls: type[BaseException]) -> None:
    """Each exported exception has the kind that this file lists for it."""
    error = cls.__new__(cls)
    name = cls.__name__
    status = getattr(cls, "status_code", None)
    if issubclass(cls, (anthropic.APIStatusError, openai.APIStatusError)) or cls is httpx2.HTTPStatusError:
        status = status if isinstance(status, int) else 500
        status = 401 if name == "OAuthError" else status
        vars(error)["response"] = response(status, {"error": {"message": "x"}})
        assert classify_error(error, CALL).kind is BY_STATUS[status]
    elif name in ABSTRACT:
        assert classify_error(error, CALL).kind is FailureKind.INTERNAL
    else:
        assert name in WITHOUT_RESPONSE, f"{name} is new in {cls.__module__}: decide its kind in classify.py and here"
        assert classify_error(error, CALL).kind is WITHOUT_RESPONSE[name]


@pytest.mark.parametrize(("status", "code"), [key for key in anthropic_errors.ERROR_CLASSES if key[1] is not None])
def test_every_anthropic_error_code(status: int, code: str) -> None:
    """Each error code that the SDK has a class for has its own kind, or the kind of its status."""
    body = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "x", "details": {"error_code": code}},
    }
    error = anthropic_errors.make_status_error("x", body=body, response=response(status, body))
    assert type(error) is anthropic_errors.ERROR_CLASSES[status, code]
    assert classify_error(error, CALL).kind is BY_CODE.get(code, BY_STATUS[status])


@pytest.mark.parametrize("status", [key[0] for key in anthropic_errors.ERROR_CLASSES if key[1] is None])
def test_every_anthropic_status(status: int) -> None:
    """Each status that the SDK has a class for has a kind."""
    error = anthropic_errors.make_status_error("x", body=None, response=response(status, {"error": {"message": "x"}}))
    assert classify_error(error, CALL).kind is BY_STATUS[status]


def test_wrapped_error_is_classified_by_its_cause() -> None:
    """A wrapped error has the kind of its cause. Celery's soft time limit is always a timeout."""

    class SoftTimeLimitExceeded(Exception):
        pass

    def kind_of_cause(cause: BaseException) -> FailureKind:
        error = anthropic.APIConnectionError(request=REQUEST)
        error.__cause__ = cause
        return classify_error(error, CALL).kind

    assert kind_of_cause(httpx2.ConnectError("refused")) is FailureKind.CONNECTION
    assert kind_of_cause(httpx2.PoolTimeout("busy")) is FailureKind.TIMEOUT
    assert kind_of_cause(httpx2.LocalProtocolError("illegal header")) is FailureKind.INTERNAL
    assert kind_of_cause(SoftTimeLimitExceeded()) is FailureKind.TIMEOUT
    assert classify_error(SoftTimeLimitExceeded(), CALL).kind is FailureKind.TIMEOUT
    assert classify_error(json.JSONDecodeError("x", "y", 0), CALL).kind is FailureKind.CONNECTION
    assert classify_error(RuntimeError("?"), CALL).kind is FailureKind.INTERNAL


def test_cycle_of_causes_ends() -> None:
    """Exceptions that are each other's cause don't lead to an endless loop."""
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify_error(first, CALL).kind is FailureKind.INTERNAL


def test_proxy_that_refuses_the_tunnel_is_slow() -> None:
    """A proxy that wants a login (407) or forbids the host (403) does so for minutes. The call was never sent."""
    error = openai.APIConnectionError(request=REQUEST)
    error.__cause__ = httpx2.ProxyError("407 Proxy Authentication Required")
    failure = classify_error(error, CALL)
    assert (failure.kind, failure.advice) == (FailureKind.CONNECTION, RetryAdvice.SLOW)
    assert "407 Proxy Authentication Required" in failure.detail
    assert was_never_sent(error)
