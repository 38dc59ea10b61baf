"""Failure details are short and contain no keys and no quotations. Waits are parsed from any vendor's headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.orchestration.protocol.named_times import MAX_WAIT_MS, wait_ms
from midwatch.orchestration.protocol.retry_after import exhausted_reset_ms, retry_after_ms
from midwatch.schemas.failure import FailureKind
from midwatch.workers.providers.errors.scrub import ECHO_CHARS, MAX_DETAIL_CHARS, scrub
from midwatch.workers.providers.errors.vendor_error import VendorError


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-api03-abcDEF123", "sk-proj-****7890", "AIzaSyD-1234567890abcdef", "Bearer abc.def-123",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "a1b2c3d4e5f6a1b2c3d4e5f6a1b2c3d4e5f6", "Basic dXNlcjpwYXNz",
        "gsk_abcdefgh1234",
    ],
)  # fmt: skip
def test_key_like_text_is_removed(secret: str) -> None:
    """Keys of every vendor are removed, also masked ones and bearer headers."""
    shown = scrub(f"Incorrect key provided: {secret}. See the docs")
    assert secret not in shown
    assert secret[-6:] not in shown
    assert shown.startswith("Incorrect key provided: [key]")


def test_model_names_ids_and_numbers_stay() -> None:
    """Model names, request ids and numbers are not taken for keys."""
    text = "404 not_found_error model: claude-sonnet-4-5-20250929, req_011CXDA6q3bAL2vMavcCemUc, 208310 tokens > 200000"
    assert scrub(text) == text


def test_key_of_an_unknown_form_is_removed() -> None:
    """The provider's configured key is removed, even if it does not look like a key."""
    assert scrub("bad key: hunter2!", secrets=("hunter2!", "")) == "bad key: [key]"


@given(st.text(min_size=ECHO_CHARS, max_size=400), st.text(max_size=200), st.text(max_size=200))
def test_no_quotation_survives(said: str, before: str, after: str) -> None:
    """No twenty consecutive characters of the request are left in an error, wherever the vendor quotes them."""
    shown = scrub(before + said + after, request_text=said)
    plain = " ".join(said.split())
    assert not any(plain[i : i + ECHO_CHARS] in shown for i in range(len(plain) - ECHO_CHARS + 1))
    assert len(shown) <= MAX_DETAIL_CHARS
    assert shown.isprintable()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda v: (
            st.lists(v)
            | st.dictionaries(
                st.sampled_from(
                    ["error", "message", "code", "type", "details", "status", "detail", "retryDelay", "violations"]
                ),
                v,
            )
        ),
    )
)
def test_any_error_body_is_parsed(body: object) -> None:
    """No error body makes the parser raise."""
    for status in (200, 400, 429, 503):
        assert VendorError.parse(body).kind(status) in (None, *FailureKind)


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [("1s", 1_000), ("6m0s", 360_000), ("19ms", 19), ("34.07s", 34_070), ("1h2m3.5s", 3_723_500), ("2d", 172_800_000),
     ("", None), ("soon", None), ("5 apples", None), ("999999d", MAX_WAIT_MS), ("2026-11-24T10:00:05Z", 5_000),
     ("2026-11-24T09:00:00+00:00", 0)],
)  # fmt: skip
def test_durations_and_times_are_parsed(text: str, expected_ms: int | None) -> None:
    """Durations (OpenAI, Google) and times (Anthropic) are parsed. A time is compared with the server's date."""
    assert wait_ms(text, "Tue, 24 Nov 2026 10:00:00 GMT") == expected_ms


@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "date", "x-ratelimit-remaining-a", "x-ratelimit-reset-a"]),
        st.text(max_size=40),
    )
)
def test_any_header_is_parsed(headers: dict[str, str]) -> None:
    """No header value makes the parser raise, and no wait is negative or above the maximum."""
    for wait in (retry_after_ms(headers), exhausted_reset_ms(headers)):
        assert wait is None or 0 <= wait <= MAX_WAIT_MS
