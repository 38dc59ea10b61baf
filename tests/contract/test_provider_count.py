"""Counting tokens by the vendor's own counter, where there is one."""

from __future__ import annotations

import time

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from tests.contract.provider_requests import ask
from tests.contract.provider_server import reply, silent
from tests.contract.provider_side import beside_vendor

COUNTERS = {"anthropic": "/v1/messages/count_tokens", "openai": "/v1/responses/input_tokens"}


@pytest.mark.parametrize("name", COUNTERS)
def test_count(name: str) -> None:
    """The counter is asked with the prompt alone: no output limit, no storage."""
    with beside_vendor(name) as side:
        side.vendor.will(reply(200, {"input_tokens": 2_095}))
        assert side.model.count(ask(cache_key="s")) == 2_095
        assert side.vendor.seen[0].path == COUNTERS[name]
        body = side.vendor.seen[0].json
        assert not {"max_tokens", "max_output_tokens", "store", "include", "prompt_cache_key"} & body.keys()
        assert {"model", "tools"} <= body.keys()


@pytest.mark.parametrize("name", ["gemini", "openai-compatible"])
def test_no_counter(name: str) -> None:
    """Chat Completions has no counter: None, without a request."""
    with beside_vendor(name) as side:
        assert side.model.count(ask()) is None
        assert side.vendor.seen == []


@pytest.mark.parametrize("name", COUNTERS)
@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_it(name: str, status: int) -> None:
    """A server behind another base URL may have no counter: None, not a failure."""
    with beside_vendor(name) as side:
        side.vendor.will(reply(status, "not found"))
        assert side.model.count(ask()) is None


@pytest.mark.parametrize("name", COUNTERS)
def test_count_fails(name: str) -> None:
    """A failed count is classified like a failed call, bounded like one, and never retried."""
    with beside_vendor(name) as side:
        side.vendor.will(reply(429, "", {"retry-after": "60"}), reply(200, {"input_tokens": -4}), silent)
        expected = (FailureKind.RATE_LIMITED, FailureKind.PROVIDER_ERROR, FailureKind.TIMEOUT)
        begun = time.monotonic()
        for number, kind in enumerate(expected, 1):
            with pytest.raises(ModelError) as caught:
                side.model.count(ask(timeout_s=0.3))
            assert caught.value.failure.kind is kind
            assert len(side.vendor.seen) == number
        assert time.monotonic() - begun < 20
