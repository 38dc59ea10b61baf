"""Connections of every provider: they are kept, shared by threads, and never redirected."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from midwatch.orchestration.errors import ModelError
from midwatch.schemas.failure import FailureKind
from midwatch.workers import providers
from tests.contract.provider_requests import credentials, make_request
from tests.contract.provider_server import ProviderServer, raw, reply
from tests.contract.provider_setup import Setup, connect_to_fake_vendor
from tests.patience import PATIENCE_S


@pytest.fixture(params=providers.BUILT_IN)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    with connect_to_fake_vendor(request.param) as setup:
        yield setup


def test_connection_is_kept(setup: Setup) -> None:
    """Consecutive calls share one connection, also after an error."""
    setup.vendor.answer_next(
        reply(200, setup.replies.text("a")),
        reply(503, setup.replies.error("x", "busy")),
        reply(200, setup.replies.text("b")),
    )
    setup.model.complete(make_request())
    with pytest.raises(ModelError):
        setup.model.complete(make_request())
    setup.model.complete(make_request())
    assert (len(setup.vendor.requests), setup.vendor.connections) == (3, 1)


def test_many_threads_share_one_client(setup: Setup) -> None:
    """Fifty threads call through one client at the same time, over at most fifty connections."""
    setup.vendor.answer_all(reply(200, setup.replies.text("hi")))
    failures: list[BaseException] = []
    together = threading.Barrier(50)

    def run() -> None:
        try:
            together.wait(PATIENCE_S)
            for _ in range(3):
                assert setup.model.complete(make_request(tools=())).text == "hi"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert failures == []
    assert len(setup.vendor.requests) == 150
    assert setup.vendor.connections <= 50


def test_redirects_are_refused(setup: Setup) -> None:
    """A redirect is an error, because following it would send the key to another host."""
    with ProviderServer() as elsewhere:
        setup.vendor.answer_next(reply(307, "", {"location": f"{elsewhere.url}{setup.replies.path}"}))
        with pytest.raises(ModelError) as caught:
            setup.model.complete(make_request())
        assert elsewhere.requests == []
    assert caught.value.failure.kind is FailureKind.PROVIDER_ERROR


@pytest.mark.parametrize("name", providers.BUILT_IN)
def test_refused_connection_counts_as_not_sent(name: str) -> None:
    """A refused connection is a connection failure, and the call counts as not sent."""
    with ProviderServer() as gone:
        url = gone.url
    model = providers.load(name, credentials(url))
    with pytest.raises(ModelError) as caught:
        model.complete(make_request())
    providers.close()
    assert caught.value.failure.kind is FailureKind.CONNECTION
    assert (caught.value.sent, caught.value.ratelimit) == (False, {})


@pytest.mark.parametrize(
    "cut", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"]
)
def test_cut_connection_is_a_connection_failure(setup: Setup, cut: bytes) -> None:
    """A connection that ends early is a connection failure. The call is not repeated, and counts as sent."""
    setup.vendor.answer_next(raw(cut))
    with pytest.raises(ModelError) as caught:
        setup.model.complete(make_request())
    assert caught.value.failure.kind is FailureKind.CONNECTION
    assert caught.value.sent
    assert len(setup.vendor.requests) == 1
