"""One deadline for the whole call: no server, however it behaves, holds a call longer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.workers import providers
from tests.contract.provider_requests import KEY, ask, credentials
from tests.contract.provider_server import Reply, drip, head, reply, silent
from tests.contract.provider_side import Side, beside_vendor

TIMEOUT_S = 0.25
WITHIN_S = 10.0
"""What a call may take on a busy machine. Every stall lasts at least twice as long, so without a deadline none ends in time."""

STALLS: dict[str, Reply] = {
    "silence": silent,
    "dripping headers": drip(head(200, {"content-length": "500", "x-filler": "y" * 400})),
    "dripping body": drip(head(200, {"content-length": "9000"}) + b" " * 9000, piece_bytes=10, every_s=0.03),
    "dripping chunks": drip(head(200, {"transfer-encoding": "chunked"}) + b"1\r\n \r\n" * 800, piece_bytes=12),
    "dripping error": drip(head(500, {"content-length": "9000"}) + b" " * 9000, piece_bytes=10, every_s=0.03),
    "endless informational": drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 400, piece_bytes=12, every_s=0.03),
}  # fmt: skip


@pytest.fixture(params=providers.BUILT_IN)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with beside_vendor(request.param) as side:
        yield side


@pytest.mark.parametrize("stall", STALLS)
def test_a_stalling_server(side: Side, stall: str) -> None:
    """Silence and drips of every kind end at the deadline, as a timeout that names it."""
    begun = time.monotonic()
    error = side.error(STALLS[stall], ask(timeout_s=TIMEOUT_S))
    assert time.monotonic() - begun < WITHIN_S
    assert error.failure.kind is FailureKind.TIMEOUT
    assert "within 0.25 s" in error.failure.detail
    assert error.sent


def test_the_next_call_is_not_affected(side: Side) -> None:
    """After a timeout the connection is thrown away, and the next call has all of its own time."""
    side.failure(silent, ask(timeout_s=TIMEOUT_S))
    side.vendor.will(reply(200, side.wire.text("late but whole")))
    assert side.model.complete(ask()).text == "late but whole"
    assert side.vendor.connections == 2


def test_a_server_that_does_not_read() -> None:
    """A request that nobody takes in ends at the deadline, too: sending is bounded like reading."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        model = providers.load("anthropic", credentials(url))
        begun = time.monotonic()
        with pytest.raises(ModelError) as caught:
            model.complete(ask(system="x" * 20_000_000, timeout_s=TIMEOUT_S))
        assert time.monotonic() - begun < WITHIN_S
        providers.close()
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert caught.value.sent  # in part


def test_a_tls_handshake_that_never_ends() -> None:
    """A server that accepts and never shakes hands is bounded: the handshake has no time of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        model = providers.load("openai", providers.Credentials(openai_api_key=KEY, openai_base_url=url))
        begun = time.monotonic()
        with pytest.raises(ModelError) as caught:
            model.complete(ask(timeout_s=TIMEOUT_S))
        assert time.monotonic() - begun < WITHIN_S
        providers.close()
    assert caught.value.failure.kind is FailureKind.TIMEOUT
    assert not caught.value.sent


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 0.000001])
def test_no_time_at_all(timeout_s: float) -> None:
    """A call that has no time left fails at once as a timeout."""
    with beside_vendor("openai") as side:
        failure = side.failure(reply(200, side.wire.text("x")), ask(timeout_s=timeout_s))
    assert failure.kind is FailureKind.TIMEOUT


def test_stalled_threads_end() -> None:
    """Thirty calls that stall at once all end at their deadline, and leave no thread behind."""
    before = set(threading.enumerate())
    with beside_vendor("anthropic") as side:
        side.vendor.always(STALLS["dripping body"])
        ends: list[float] = []

        def run() -> None:
            with pytest.raises(ModelError):
                side.model.complete(ask(timeout_s=TIMEOUT_S))
            ends.append(time.monotonic())

        threads = [threading.Thread(target=run) for _ in range(30)]
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert max(ends) - begun < WITHIN_S
        assert len(ends) == 30
    assert {thread for thread in threading.enumerate() if thread not in before} == set()


def test_a_reply_without_end() -> None:
    """A reply that never stops is given up at a size no real one has, not held in memory."""
    pieces = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"

    def pour(line: object) -> bool:
        send = line.send  # type: ignore[attr-defined]
        return bool(send(pieces)) and all(send(chunk) for _ in range(64)) and False

    with beside_vendor("openai-compatible") as side:
        failure = side.failure(pour, ask(timeout_s=20.0))
    assert failure.kind is FailureKind.CONNECTION
    assert "exceeds" in failure.detail
