"""Every call ends at its deadline, however the server behaves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.workers import providers
from tests.contract.provider_requests import KEY, credentials, make_request
from tests.contract.provider_server import Reply, drip, head, reply, silent
from tests.contract.provider_setup import Setup, connect_to_fake_vendor
from tests.patience import PATIENCE_S

TIMEOUT_S = 0.25
WITHIN_S = 10.0
"""Longest time of a call on a busy machine. Each stall lasts at least twice as long, so without a deadline a test fails."""

STALLS: dict[str, Reply] = {
    "no reply": silent,
    "slow headers": drip(head(200, {"content-length": "500", "x-filler": "y" * 400})),
    "slow body": drip(head(200, {"content-length": "9000"}) + b" " * 9000, piece_bytes=10, every_s=0.03),
    "slow chunks": drip(head(200, {"transfer-encoding": "chunked"}) + b"1\r\n \r\n" * 800, piece_bytes=12),
    "slow error": drip(head(500, {"content-length": "9000"}) + b" " * 9000, piece_bytes=10, every_s=0.03),
    "endless informational": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 400, piece_bytes=12, every_s=0.03),
}  # fmt: skip


@pytest.fixture(params=providers.BUILT_IN)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    with connect_to_fake_vendor(request.param) as setup:
        yield setup


@pytest.mark.parametrize("stall", STALLS)
def test_stalling_server_ends_in_a_timeout(setup: Setup, stall: str) -> None:
    """A call to a silent or slow server ends at the deadline with a timeout, and the failure names the deadline."""
    begun = time.monotonic()
    error = setup.error(STALLS[stall], make_request(timeout_s=TIMEOUT_S))
    assert time.monotonic() - begun < WITHIN_S
    assert error.failure.kind is FailureKind.TIMEOUT
    assert "within 0.25 s" in error.failure.detail
    assert error.sent


def test_the_next_call_is_not_affected(setup: Setup) -> None:
    """After a timeout, the connection is closed, and the next call has its full time."""
    setup.failure(silent, make_request(timeout_s=TIMEOUT_S))
    setup.vendor.answer_next(reply(200, setup.replies.text("late but whole")))
    assert setup.model.complete(make_request()).text == "late but whole"
    assert setup.vendor.connections == 2


def test_request_that_is_not_read_times_out() -> None:
    """If the server does not read the request, the call ends at the deadline, too."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        model = providers.load("anthropic", credentials(url))
        begun = time.monotonic()
        with pytest.raises(ModelError) as caught:
            model.complete(make_request(system="x" * 20_000_000, timeout_s=TIMEOUT_S))
        assert time.monotonic() - begun < WITHIN_S
        providers.close()
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert caught.value.sent  # because a part of the request was sent


def test_endless_tls_handshake_times_out() -> None:
    """If the server never answers the TLS handshake, the call ends at the deadline."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        model = providers.load("openai", providers.Credentials(openai_api_key=KEY, openai_base_url=url))
        begun = time.monotonic()
        with pytest.raises(ModelError) as caught:
            model.complete(make_request(timeout_s=TIMEOUT_S))
        assert time.monotonic() - begun < WITHIN_S
        providers.close()
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert not caught.value.sent


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 0.000001])
def test_call_without_time_left_times_out(timeout_s: float) -> None:
    """A call without any time left fails immediately with a timeout."""
    with connect_to_fake_vendor("openai") as setup:
        failure = setup.failure(reply(200, setup.replies.text("x")), make_request(timeout_s=timeout_s))
    assert failure.kind is FailureKind.TIMEOUT


def test_stalled_threads_end() -> None:
    """Thirty concurrent calls to a slow server all end at their deadline and leave no thread behind."""
    before = set(threading.enumerate())
    with connect_to_fake_vendor("anthropic") as setup:
        setup.vendor.answer_all(STALLS["slow body"])
        ends: list[float] = []

        def run() -> None:
            with pytest.raises(ModelError):
                setup.model.complete(make_request(timeout_s=TIMEOUT_S))
            ends.append(time.monotonic())

        threads = [threading.Thread(target=run) for _ in range(30)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert max(ends) - begun < WITHIN_S
        assert len(ends) == 30
    assert {thread for thread in threading.enumerate() if thread not in before} == set()


def test_endless_reply_is_refused() -> None:
    """An endless reply ends in a failure when it is larger than any real one, so it can't fill the memory."""
    pieces = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

    def pour(line: object) -> bool:
        send = line.send  # type: ignore[attr-defined]
        return bool(send(pieces)) and all(send(chunk) for _ in range(64)) and False

    with connect_to_fake_vendor("openai-compatible") as setup:
        failure = setup.failure(pour, make_request(timeout_s=20.0))
    assert failure.kind is FailureKind.CONNECTION
    assert "exceeds" in failure.detail
