"""Name lookups have a timeout, and concurrent callers share them."""

from __future__ import annotations

import socket
import threading

import httpcore2
import pytest

from midwatch.workers.providers.http.name_lookup import NameLookup


def test_an_address_needs_no_lookup() -> None:
    """An IP address is used directly, without a lookup thread."""
    lookup = NameLookup(lambda host, port: pytest.fail("looked up"))
    assert lookup.addresses("127.0.0.1", 80, 1.0) == ["127.0.0.1"]
    assert lookup.addresses("::1", 80, 1.0) == ["::1"]


def test_a_hanging_resolver_holds_one_thread() -> None:
    """Callers stop waiting at their timeout. They share one lookup, which ends when the resolver returns."""
    release, asked = threading.Event(), []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        release.wait(10)
        return ["192.0.2.1"]

    lookup = NameLookup(resolve)
    for _ in range(3):
        with pytest.raises(httpcore2.ConnectTimeout, match=r"api\.example"):
            lookup.addresses("api.example", 443, 0.02)
    assert asked == ["api.example"]
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "lookup api.example"]
    release.set()
    thread.join(5)
    assert lookup.addresses("api.example", 443, 5.0) == ["192.0.2.1"]
    assert asked == ["api.example"] * 2


@pytest.mark.parametrize("error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
def test_unknown_name_is_a_connect_error(error: Exception) -> None:
    """A name that can't be resolved is a ConnectError. The next lookup asks the resolver again."""
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        raise error

    lookup = NameLookup(resolve)
    for _ in range(2):
        with pytest.raises(httpcore2.ConnectError, match="can't be resolved"):
            lookup.addresses("nowhere.example", 443, 5.0)
    assert len(asked) == 2
