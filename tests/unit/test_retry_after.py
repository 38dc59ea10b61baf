"""The wait that a server asks for: every form of it that servers send, and none that could hold a job for ever."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.orchestration.protocol.retry_after import MAX_WAIT_MS, duration_ms, exhausted_reset_ms, retry_after_ms

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
        "5 s",
        "Mon, 99 Nov 2026 04:00:00 GMT",
        "1 1",
        "\x00",
    ],
)
def test_garbage_is_no_wait(text: str) -> None:
    """The caller's own backoff counts then."""
    assert retry_after_ms({"retry-after": text, "date": NOW}) is None


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
    assert duration_ms("2026-11-30T04:00:30", NOW) == duration_ms("2026-11-30T04:00:30Z", NOW) == 30_000


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
