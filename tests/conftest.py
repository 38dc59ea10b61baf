"""Fixtures for every test: a real server, a client, a prefix that is checked for leaks, recorded data, waits.

Nothing starts unless a test uses it. A missing service is a skip on a laptop and a failure where `CI` is set.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
import redis as redis_py
from hypothesis import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.keyspace import Key, Keyspace
from midwatch.workers.local.embedded_server import EmbeddedServer

from .leakcheck import Lender
from .patience import wait_for
from .processes import GUARD, may_start
from .tickets import record

T = TypeVar("T")

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60, database=None, print_blob=True)
settings.register_profile("deep", deadline=None, max_examples=2_000, database=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure() -> None:
    """Restore the default SIGINT handling. A shell makes its background processes, and so their children, ignore SIGINT."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start processes, so that `-m "not process"` leaves them out."""
    for item in items:
        if may_start(item):
            item.add_marker("process")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test without the marker if it starts a process."""
    if item.get_closest_marker("process"):
        return (yield)
    with GUARD.up() as refused:
        answer = yield
    assert not refused, f"started a process without the marker `process`: {refused}"
    return answer


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """One server without persistence for the whole run. A test that crashes or freezes a server starts its own EmbeddedServer."""
    try:
        embedded = EmbeddedServer(append_only=None)
    except ConfigError as error:
        _missing(str(error))
    with embedded:
        yield embedded


@pytest.fixture(scope="session")
def connect_redis() -> Iterator[Callable[[str], redis_py.Redis]]:
    """Make clients for any URL, closed at the end: bytes, short timeouts, no retries, so that a fault is visible."""
    clients = []

    def connect(url: str) -> redis_py.Redis:
        client = redis_py.Redis.from_url(
            url, decode_responses=False, socket_timeout=5, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0)
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def lender(server: EmbeddedServer, connect_redis: Callable[[str], redis_py.Redis]) -> Lender:
    """Lends checked prefixes. See `lend_prefix`."""
    return Lender(connect_redis(server.url))


@pytest.fixture(scope="session")
def lend_prefix(lender: Lender) -> Callable[..., AbstractContextManager[str]]:
    """`with lend_prefix() as prefix:` is for fixtures of wider scope or a second fleet. It ends with the leak check.

    `lend_prefix(Key(...), ...)` adds rows for keys that a test makes on purpose.
    """
    return lambda *extra: lender.lend((*Keyspace.CATALOGUE, *extra))


@pytest.fixture
def extra_keys() -> Sequence[Key]:
    """Rows added to the catalogue for the leak check. A module that makes extra keys overrides this fixture."""
    return ()


@pytest.fixture
def prefix(
    server: EmbeddedServer,
    lend_prefix: Callable[..., AbstractContextManager[str]],
    extra_keys: Sequence[Key],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """A new MIDWATCH_PREFIX, set with MIDWATCH_REDIS_URL for this test and its processes. The test fails on leaked keys."""
    with lend_prefix(*extra_keys) as lent:
        monkeypatch.setenv("MIDWATCH_PREFIX", lent)
        monkeypatch.setenv("MIDWATCH_REDIS_URL", server.url)
        monkeypatch.delenv("MIDWATCH_BROKER_URL", raising=False)
        yield lent


@pytest.fixture
def redis(server: EmbeddedServer, prefix: str, connect_redis: Callable[[str], redis_py.Redis]) -> redis_py.Redis:
    """A client of the run's server. The leak check of this test's prefix covers its keys."""
    return connect_redis(server.url)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Recorded schemas and transcripts. They are in a folder next to the repository, not in it."""
    folder = record.data_dir()
    if not folder.is_dir():
        _missing(f"the recorded data is not here: expected the folder {folder}, or MIDWATCH_TEST_DATA to name another")
    return folder


@pytest.fixture(scope="session", name="wait_for")
def _wait_for() -> Callable[[Callable[[], T], str], T]:
    """`wait_for(predicate, what)` of `tests/patience.py`."""
    return wait_for
