"""A provider turns every response of a server into an answer or a failure, and raises nothing else."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx2
from hypothesis import example, given
from hypothesis import strategies as st

from midwatch.schemas.failure import FailureKind
from midwatch.schemas.model import ModelRequest
from midwatch.workers.providers.anthropic.reply import parse_message
from midwatch.workers.providers.chat_completions.reply import parse_completion
from midwatch.workers.providers.errors.answers import classify_answer, classify_body
from midwatch.workers.providers.errors.body_limits import read_body_limits
from midwatch.workers.providers.errors.call_context import CallContext
from midwatch.workers.providers.errors.page import read_page
from midwatch.workers.providers.read_json import BadReply, ErrorReply, NoApiReply
from midwatch.workers.providers.replies.reported_error import read_answer
from midwatch.workers.providers.responses.reply import parse_response

REQUEST = ModelRequest(model="m", system="", messages=())

NAMES = (
    "error", "errors", "message", "msg", "code", "type", "status", "status_code", "detail", "details", "metadata", "raw",
    "headers", "retry_after", "retryDelay", "seconds", "violations", "quotaId", "quotaValue", "base_resp", "choices", "content",
    "output", "finish_reason", "stop_reason", "tool_calls", "function", "arguments", "name", "input", "text", "usage",
    "incomplete_details",
    "output_tokens", "completion_tokens", "response", "fault", "retryable", "cloudflare_error", "delta", "refusal",
)  # fmt: skip

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["error", "tool_use", "message", "text", "failed", "incomplete", "429", "stop", '{"error": {"code": 1}}'])
)  # fmt: skip
BODIES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)
)
CONTENTS = BODIES.map(lambda body: json.dumps(body).encode())
PAGES = st.text(max_size=200) | st.text(alphabet='<>!-[]/?="&;# abctitlehm', max_size=80).map(
    lambda text: "<html>" + text
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "content-type",
            "server",
            "cf-ray",
            "retry-after",
            "x-should-retry",
            "location",
            "x-amzn-errortype",
            "date",
            "via",
        ]
    ),
    st.text(max_size=30) | st.sampled_from(["true", "false", "text/html; charset=x", "https://a:b@c/d", "5"]),
)
STATUSES = st.sampled_from([200, 204, 302, 400, 401, 403, 404, 407, 413, 429, 451, 500, 503, 511, 529, 599])


@given(
    STATUSES,
    CONTENTS | PAGES.map(str.encode) | st.binary(max_size=60),
    HEADERS,
)
def test_any_answer_is_classified(status: int, content: bytes, headers: dict[str, str]) -> None:
    """A failure has a kind, a short printable detail and a wait that is not negative."""
    failure = classify_answer(
        status, content, CallContext("x", 1.0, headers=httpx2.Headers(_ascii(headers)), status=status)
    )
    assert failure.kind in FailureKind
    assert len(failure.detail) <= 300
    assert failure.detail.isprintable()
    assert failure.retry_after_ms is None or failure.retry_after_ms >= 0


@given(BODIES)
def test_any_error_body_is_classified(body: Any) -> None:
    """An error inside a 200 may have any shape."""
    assert classify_body(body, CallContext("x", 1.0)).kind in FailureKind
    assert all(isinstance(value, str) for value in read_body_limits(body).values())


@given(
    BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=60),
    st.sampled_from(["", "text/x; charset=utf-16"]),
)
def test_any_body_is_an_answer_or_an_error(content: bytes, content_type: str) -> None:
    """Each format reads any body, or raises one of the three exceptions that are classified."""
    for parse in (parse_message, parse_completion, parse_response):
        with contextlib.suppress(BadReply, ErrorReply, NoApiReply):
            assert parse(read_answer(content, content_type), REQUEST, "x").raw_stop is not None


@given(PAGES)
@example("<html><![foo]>")
def test_any_page_is_read(text: str) -> None:
    """Markup of any kind, also broken markup, has a title and words."""
    page = read_page(text)
    assert isinstance(page.title + page.words + page.shown_id, str)


def _ascii(headers: dict[str, str]) -> dict[str, str]:
    return {
        name: value.encode("ascii", "ignore").decode().replace("\n", "").replace("\r", "")
        for name, value in headers.items()
    }
