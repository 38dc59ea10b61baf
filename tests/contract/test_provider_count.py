"""Counting tokens with the vendor's own counter, if it has one."""

from __future__ import annotations

import time

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from tests.contract.provider_requests import make_request
from tests.contract.provider_server import reply, silent
from tests.contract.provider_setup import connect_to_fake_vendor

COUNTERS = {"anthropic": "/v1/messages/count_tokens", "openai": "/v1/responses/input_tokens"}


@pytest.mark.parametrize("name", COUNTERS)
def test_count_sends_the_prompt_only(name: str) -> None:
    """A count request contains the prompt only, without output limit, storage or cache key."""
    with connect_to_fake_vendor(name) as setup:
        setup.vendor.answer_next(reply(200, {"input_tokens": 2_095}))
        assert setup.model.count(make_request(cache_key="s")) == 2_095
        assert setup.vendor.requests[0].path == COUNTERS[name]
        body = setup.vendor.requests[0].json
        assert not {"max_tokens", "max_output_tokens", "store", "include", "prompt_cache_key"} & body.keys()
        assert {"model", "tools"} <= body.keys()


@pytest.mark.parametrize("name", ["gemini", "openai-compatible"])
def test_chat_completions_has_no_counter(name: str) -> None:
    """Chat Completions has no counter, so the count is None and no request is sent."""
    with connect_to_fake_vendor(name) as setup:
        assert setup.model.count(make_request()) is None
        assert setup.vendor.requests == []


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("status", [404, 405, 501])
def test_server_without_a_counter_gives_none(name: str, status: int) -> None:
    """If a server at another base URL has no counter, the count is None and no failure."""
    with connect_to_fake_vendor(name) as setup:
        setup.vendor.answer_next(reply(status, "not found"))
        assert setup.model.count(make_request()) is None


@pytest.mark.parametrize("name", COUNTERS)
def test_failed_count_is_classified(name: str) -> None:
    """A failed count is classified like a failed call. It has a deadline and is never retried."""
    with connect_to_fake_vendor(name) as setup:
        setup.vendor.answer_next(reply(429, "", {"retry-after": "60"}), reply(200, {"input_tokens": -4}), silent)
        expected = (FailureKind.RATE_LIMITED, FailureKind.PROVIDER_ERROR, FailureKind.TIMEOUT)
        begun = time.monotonic()
        for number, kind in enumerate(expected, 1):
            with pytest.raises(ModelError) as caught:
                setup.model.count(make_request(timeout_s=0.3))
            assert caught.value.failure.kind is kind
            assert len(setup.vendor.requests) == number
        assert time.monotonic() - begun < 20
