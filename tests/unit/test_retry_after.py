"""The wait that a server asks for: every form of it that servers send, and none that could hold a job for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.orchestration.protocol import named_times
from midwatch.orchestration.protocol.named_times import MAX_WAIT_MS
from midwatch.orchestration.protocol.retry_after import (
    exhausted_reset_ms,
    ratelimit,
    retry_after_ms,
    should_retry,
)

NOW = "Mon, 30 Nov 2026 04:00:00 GMT"


@pytest.fixture(autouse=True, params=["UTC", "Asia/Tokyo"])
def local_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    """The zone of the worker's machine must not matter."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("text", "wait_ms"),
    [
        ("20", 20_000),
        ("0", 0),
        ("0.5", 500),
        (" 1.25 ", 1_250),
        (".5", 500),
        ("-30", 0),
        ("2592000", 30 * 86_400_000),
        ("99999999999", MAX_WAIT_MS),
        ("Mon, 30 Nov 2026 04:00:30 GMT", 30_000),
        ("Mon, 30 Nov 2026 05:00:30 +0100", 30_000),
        ("Sun, 29 Nov 2026 20:00:30 PST", 30_000),
        ("Mon, 30 Nov 2026 04:00:30", 30_000),
        ("Mon, 30 Nov 2026 04:00:30 -0000", 30_000),
        ("Monday, 30-Nov-26 04:00:30 GMT", 30_000),
        ("Mon Nov 30 04:00:30 2026", 30_000),
        ("1796011230", 30_000),
        ("1796011230000", 30_000),
        ("1796011230.5", 30_500),
        ("5 s", 5_000),
        ("6m0s", 360_000),
        ("20ms", 20),
        ("1.5s", 1_500),
        ("30 seconds", 30_000),
        ("2 minutes", 120_000),
        ("1 hour, 5 minutes and 2 sec", 3_902_000),
        ("PT1M30S", 90_000),
        ("P1DT1S", 86_401_000),
        ('"30"', 30_000),
        ("30, 45", 45_000),
        ("1000000000000", MAX_WAIT_MS),
        ("2026-11-30T04:00:30Z", 30_000),
        ("2026-11-30T09:30:30+05:30", 30_000),
        ("2026-11-30T04:00:30", 30_000),
        ("Mon, 30 Nov 2020 04:00:00 GMT", 0),
        ("Thu, 31 Dec 2099 04:00:00 GMT", MAX_WAIT_MS),
    ],
)
def test_a_retry_after_is_a_bounded_wait(text: str, wait_ms: int) -> None:
    """Seconds with or without a fraction, and dates in any zone. A date without a zone is in UTC."""
    assert retry_after_ms({"retry-after": text, "date": NOW}) == wait_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "1e9",
        "inf",
        "nan",
        "1_000",
        "٣",
        "0x10",
        "--5",
        "5 apples",
        "5 sx",
        "P",
        "PT",
        "30, soon",
        "Mon, 99 Nov 2026 04:00:00 GMT",
        "1 1",
        "\x00",
    ],
)
def test_garbage_is_no_wait(text: str) -> None:
    """The caller's own backoff counts then."""
    assert retry_after_ms({"retry-after": text, "date": NOW}) is None


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({"x-amz-retry-after": "1500"}, 1_500),
        ({"grpc-retry-pushback-ms": "1500"}, 1_500),
        ({"retry-after-seconds": "33"}, 33_000),
        ({"llm_provider-retry-after": "33"}, 33_000),
        ({"llm_provider-retry-after": "33", "retry-after": "5"}, 5_000),
    ],
)
def test_gateways_and_sdks_have_their_own_names(headers: dict[str, str], wait_ms: int) -> None:
    """AWS's and gRPC's headers are in milliseconds. LiteLLM passes on its provider's headers with a prefix."""
    assert retry_after_ms(headers) == wait_ms


def test_resets_of_anthropics_priority_limits_are_read() -> None:
    """They have no `ratelimit` in their names."""
    headers = {"anthropic-priority-input-tokens-remaining": "0", "anthropic-priority-input-tokens-reset": "33"}
    assert exhausted_reset_ms(headers) == 33_000


@pytest.mark.parametrize(
    ("ms", "seconds", "wait_ms"),
    [("1500", "9", 1_500), ("0.4", "9", 0), ("-5", "9", 0), ("soon", "9", 9_000), ("", "", None)],
)
def test_milliseconds_go_before_seconds(ms: str, seconds: str, wait_ms: int | None) -> None:
    """OpenAI sends both. Milliseconds that can't be read are ignored."""
    assert retry_after_ms({"retry-after-ms": ms, "retry-after": seconds, "date": NOW}) == wait_ms


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Nov 2026 04:00:00 GMT"])
def test_a_date_header_that_can_not_be_read_is_ignored(date: str) -> None:
    """Then the worker's clock counts."""
    assert retry_after_ms({"retry-after": "Thu, 31 Dec 2099 04:00:00 GMT", "date": date}) == MAX_WAIT_MS
    assert retry_after_ms({"retry-after": "Thu, 31 Dec 1999 04:00:00 GMT", "date": date}) == 0


def test_a_reset_time_without_a_zone_is_in_utc() -> None:
    """Anthropic names the moment at which a limit is full again."""
    for text in ("2026-11-30T04:00:30", "2026-11-30T04:00:30Z"):
        assert named_times.wait_ms(text, NOW) == 30_000


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d\d:\d\d:\d\d [+-]\d{1,6}"))
def test_no_text_raises_or_waits_too_long(text: str) -> None:
    """A header is a stranger's text."""
    headers = {
        "retry-after": text,
        "date": text,
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": text,
    }
    for wait_ms in (retry_after_ms(headers), exhausted_reset_ms(headers), retry_after_ms({"retry-after-ms": text})):
        assert wait_ms is None or 0 <= wait_ms <= MAX_WAIT_MS


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({"x-ms-retry-after-ms": "1500", "retry-after": "9"}, 1_500),
        ({"x-retry-after": "3"}, 3_000),
        ({"x-ratelimit-retry-after": "0.25"}, 250),
        ({"retry-after-ms": "soon", "x-ms-retry-after-ms": "70"}, 70),
        ({"Retry-After": "7"}, None),
    ],
)
def test_wait_in_a_header_of_another_name(headers: dict[str, str], wait_ms: int | None) -> None:
    """Azure, gateways and proxies have their own names for the same wait. Names must be in lower case here."""
    assert retry_after_ms(headers) == wait_ms


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        # OpenAI and Groq: durations. Only the limit that is used up counts.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2m59.56s",
          "x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "7.66s"}, 179_560),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 20),
        # Azure: seconds.
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "26"}, 26_000),
        # Cerebras: seconds with a fraction, by minute and day; sometimes without remaining amounts.
        ({"x-ratelimit-remaining-tokens-minute": "0", "x-ratelimit-reset-tokens-minute": "11.382",
          "x-ratelimit-remaining-requests-day": "99", "x-ratelimit-reset-requests-day": "33011.4"}, 11_382),
        ({"x-ratelimit-reset-tokens-minute": "0.5", "x-ratelimit-reset-requests-day": "33011.4"}, 500),
        # Mistral, both generations.
        ({"ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "28"}, 28_000),
        ({"x-ratelimitbysize-remaining-minute": "0", "x-ratelimitbysize-reset-minute": "28"}, 28_000),
        # OpenRouter: milliseconds since 1970. GitHub and Kong: seconds since 1970, or seconds.
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1796011230000"}, 30_000),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1796011230"}, 30_000),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "12", "ratelimit-limit": "10"}, 12_000),
        ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "1796011230"}, 30_000),
        # Discord: a time of day, and the wait until then. The wait needs no clock.
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1996011230", "x-ratelimit-reset-after": "0.65"}, 650),
        # Together: requests and tokens.
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1", "x-tokenlimit-remaining": "0", "x-tokenlimit-reset": "2"},
         2_000),
        # Anthropic: RFC 3339, and the limits of its subscriptions.
        ({"anthropic-ratelimit-input-tokens-remaining": "0",
          "anthropic-ratelimit-input-tokens-reset": "2026-11-30T04:00:12Z"}, 12_000),
        ({"anthropic-ratelimit-unified-5h-status": "rejected", "anthropic-ratelimit-unified-5h-reset": "1796011230",
          "anthropic-ratelimit-unified-7d-status": "allowed", "anthropic-ratelimit-unified-7d-reset": "1796999999"}, 30_000),
        # The IETF's draft: versions 08 to 10, version 07, and the three headers before.
        ({"ratelimit": '"burst";r=0;t=5, "daily";r=90;t=4000', "ratelimit-policy": '"burst";q=10;w=10'}, 5_000),
        ({"ratelimit": '"a;r=0;t=99, b";r=0;t=5'}, 5_000),
        ({"ratelimit": "limit=100, remaining=0, reset=30"}, 30_000),
        ({"ratelimit": '"default";r=1;t=30'}, None),
        # Several are used up: the call passes only when all are refilled.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s",
          "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m"}, 60_000),
        # Nothing is used up, or nothing can be read.
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "6m0s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-remaining-requests": "0"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "-5"}, 0),
        ({}, None),
    ],
)  # fmt: skip
def test_reset_of_an_exhausted_limit(headers: dict[str, str], wait_ms: int | None) -> None:
    """The reset of each vendor and gateway is heard in its own form."""
    assert exhausted_reset_ms({**headers, "date": NOW}) == wait_ms


@pytest.mark.parametrize(
    ("text", "said"), [("true", True), ("false", False), ("True", True), (" FALSE ", False), ("1", None), ("", None)]
)
def test_should_retry_is_true_false_or_nothing(text: str, said: bool | None) -> None:
    """OpenAI and Anthropic send `true` or `false`."""
    assert should_retry({"x-should-retry": text}) is said


def test_all_headers_about_limits_are_kept() -> None:
    """The coordinator gets every header about limits and waits, and no other."""
    headers = dict.fromkeys(("X-TokenLimit-Limit", "RateLimit", "X-Rate-Limit-Reset", "x-ms-retry-after-ms"), "1")
    assert set(ratelimit({**headers, "Set-Cookie": "a", "x-request-id": "b"})) == {name.lower() for name in headers}
