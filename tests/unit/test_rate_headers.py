"""Limits per minute, as the headers of each vendor and gateway tell them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.orchestration.admission.headers import read


@pytest.mark.parametrize(
    ("headers", "limits", "remaining"),
    [
        ({"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-input-tokens-remaining": "9"},
         {"requests": 50}, {"input_tokens": 9}),
        ({"x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499", "x-ratelimit-limit-tokens": "30000"},
         {"requests": 500, "tokens": 30_000}, {"requests": 499}),
        # Cerebras: the figures of an hour and of a day are no limits of a minute.
        ({"x-ratelimit-limit-requests-minute": "5", "x-ratelimit-limit-requests-hour": "150",
          "x-ratelimit-limit-requests-day": "2400", "x-ratelimit-remaining-requests-minute": "4",
          "x-ratelimit-limit-tokens-minute": "60000.0"}, {"requests": 5, "tokens": 60_000}, {"requests": 4}),
        # Mistral.
        ({"x-ratelimit-limit-req-minute": "720", "x-ratelimit-remaining-req-minute": "717",
          "x-ratelimit-limit-tokens-minute": "5000000"}, {"requests": 720, "tokens": 5_000_000}, {"requests": 717}),
        ({"ratelimitbysize-limit": "500000", "ratelimitbysize-remaining": "499900"}, {"tokens": 500_000}, {"tokens": 499_900}),
        # Fireworks.
        ({"x-ratelimit-limit-tokens-prompt": "60000", "x-ratelimit-limit-tokens-generated": "6000"},
         {"input_tokens": 60_000, "output_tokens": 6_000}, {}),
        # Together: per second. What remains of a second says nothing.
        ({"x-ratelimit-limit": "10", "x-ratelimit-remaining": "9", "x-tokenlimit-limit": "3000", "x-tokenlimit-remaining": "1"},
         {"requests": 600, "tokens": 180_000}, {}),
        # Kong.
        ({"x-ratelimit-limit-minute": "20", "x-ratelimit-remaining-minute": "19", "x-ratelimit-limit-second": "1"},
         {"requests": 20}, {"requests": 19}),
        # A limit without a window may be one of a day (OpenRouter), so it is not read.
        ({"x-ratelimit-limit": "50", "x-ratelimit-remaining": "49"}, {}, {}),
        # The IETF's draft. A window of more than a minute is not read, nor is a unit that is not known.
        ({"ratelimit-policy": '"burst";q=10;w=1, "daily";q=5000;w=86400', "ratelimit": '"burst";r=9;t=1'},
         {"requests": 600}, {}),
        ({"ratelimit-policy": '"a";q=100;w=60;qu="tokens", "b";q=5;w=60;qu="content-bytes"'}, {"tokens": 100}, {}),
        ({"ratelimit-policy": "100;w=60, 10000;w=86400"}, {"requests": 100}, {}),
        ({"x-ratelimit-limit": "10, 10;w=1", "x-ratelimit-remaining": "3"}, {"requests": 600}, {}),
        # Two limits of one resource: the lower one. Text, signs and endless digits are ignored.
        ({"x-ratelimit-limit-tokens": "9", "x-ratelimit-limit-project-tokens": "7"}, {"tokens": 7}, {}),
        ({"x-ratelimit-limit-tokens": "-1", "x-ratelimit-limit-requests": "1e9", "x-ratelimit-remaining-requests": "9" * 13},
         {}, {}),
        ({"ratelimit-policy": '"a";q=5;w=0'}, {}, {}),
        # Groq: requests of a day, tokens of a minute. The reset of the requests tells.
        ({"x-ratelimit-limit-requests": "14400", "x-ratelimit-remaining-requests": "14370",
          "x-ratelimit-reset-requests": "2m59.56s", "x-ratelimit-limit-tokens": "18000",
          "x-ratelimit-remaining-tokens": "17997", "x-ratelimit-reset-tokens": "7.66s"},
         {"tokens": 18_000}, {"tokens": 17_997}),
        # OpenAI with 10,000 and with 200 requests a day; then with 3,500 a minute.
        ({"x-ratelimit-limit-requests": "10000", "x-ratelimit-remaining-requests": "9999", "x-ratelimit-reset-requests": "8.64s"},
         {}, {}),
        ({"x-ratelimit-limit-requests": "200", "x-ratelimit-remaining-requests": "199", "x-ratelimit-reset-requests": "7m12s"},
         {}, {}),
        ({"x-ratelimit-limit-requests": "3500", "x-ratelimit-remaining-requests": "3499", "x-ratelimit-reset-requests": "17ms"},
         {"requests": 3_500}, {"requests": 3_499}),
        # One request, refilled by two thirds, of a bucket of a day.
        ({"x-ratelimit-limit-requests": "14400", "x-ratelimit-remaining-requests": "14399", "x-ratelimit-reset-requests": "2s"},
         {}, {}),
        # A fixed window of a minute, and a bucket of a minute that is empty.
        ({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "20", "x-ratelimit-reset-requests": "42"},
         {"requests": 60}, {"requests": 20}),
        ({"x-ratelimit-limit-tokens": "60000", "x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "59.9s"},
         {"tokens": 60_000}, {"tokens": 0}),
        # Cerebras: only the minute is read.
        ({"x-ratelimit-limit-requests-day": "14400", "x-ratelimit-remaining-requests-day": "0",
          "x-ratelimit-reset-requests-day": "33011.38", "x-ratelimit-limit-tokens-minute": "60000"}, {"tokens": 60_000}, {}),
    ],
)  # fmt: skip
def test_figures_per_minute(headers: dict[str, str], limits: dict[str, float], remaining: dict[str, float]) -> None:
    """Only what is certainly a figure of a minute, or of a shorter window, is read."""
    found = read(headers)
    assert (found.limits, found.remaining) == (limits, remaining)
    assert bool(found) == bool(limits or remaining)


@given(
    st.dictionaries(
        st.sampled_from(
            ["ratelimit", "ratelimit-policy", "ratelimit-limit", "x-ratelimit-limit", "x-tokenlimit-limit"]
        ),
        st.text(max_size=80) | st.from_regex(r'("\w*"|\d+)(;[a-z]{1,2}=("\w*"|[0-9.]{1,14})){0,4}(, ?\w+=\d*){0,3}'),
    )
)
def test_no_header_raises(headers: dict[str, str]) -> None:
    """A header is a stranger's text. A figure is a number that is not negative."""
    found = read(headers)
    assert all(figure >= 0 for figure in (*found.limits.values(), *found.remaining.values()))
