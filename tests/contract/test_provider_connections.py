"""Connections of every provider: kept, shared by threads, never led elsewhere, and failing in one way."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.workers import providers
from tests.contract.provider_requests import ask, credentials
from tests.contract.provider_server import ProviderServer, raw, reply
from tests.contract.provider_side import Side, beside_vendor


@pytest.fixture(params=providers.BUILT_IN)
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    with beside_vendor(request.param) as side:
        yield side


def test_connection_is_kept(side: Side) -> None:
    """Calls one after the other share one connection, also after an error."""
    side.vendor.will(
        reply(200, side.wire.text("a")), reply(503, side.wire.error("x", "busy")), reply(200, side.wire.text("b"))
    )
    side.model.complete(ask())
    with pytest.raises(ModelError):
        side.model.complete(ask())
    side.model.complete(ask())
    assert (len(side.vendor.seen), side.vendor.connections) == (3, 1)


def test_many_threads_share_one_client(side: Side) -> None:
    """Fifty threads call at once through one client; each gets its own answer."""
    side.vendor.always(reply(200, side.wire.text("hi")))
    failures: list[BaseException] = []
    together = threading.Barrier(50)

    def run() -> None:
        try:
            together.wait(10)
            for _ in range(3):
                assert side.model.complete(ask(tools=())).text == "hi"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(side.vendor.seen) == 150
    assert side.vendor.connections <= 50


def test_redirects_are_refused(side: Side) -> None:
    """A redirect is an error: following it would take the key along."""
    with ProviderServer() as elsewhere:
        side.vendor.will(reply(307, "", {"location": f"{elsewhere.url}{side.wire.path}"}))
        with pytest.raises(ModelError) as caught:
            side.model.complete(ask())
        assert elsewhere.seen == []
    assert caught.value.failure.kind is FailureKind.PROVIDER_ERROR


@pytest.mark.parametrize("name", providers.BUILT_IN)
def test_a_server_that_is_not_there(name: str) -> None:
    """A refused connection is a connection failure, and the call was certainly not sent."""
    with ProviderServer() as gone:
        url = gone.url
    model = providers.load(name, credentials(url))
    with pytest.raises(ModelError) as caught:
        model.complete(ask())
    providers.close()
    assert caught.value.failure.kind is FailureKind.CONNECTION
    assert (caught.value.sent, caught.value.ratelimit) == (False, {})


@pytest.mark.parametrize(
    "cut", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"]
)
def test_connection_cut(side: Side, cut: bytes) -> None:
    """A connection that ends before, inside or after the headers fails after one request, which may have counted."""
    side.vendor.will(raw(cut))
    with pytest.raises(ModelError) as caught:
        side.model.complete(ask())
    assert caught.value.failure.kind is FailureKind.CONNECTION
    assert caught.value.sent
    assert len(side.vendor.seen) == 1
