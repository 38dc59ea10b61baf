"""Looks up host names with a timeout. The system's resolver has no timeout and may take half a minute."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future

import httpcore2

Resolve = Callable[[str, int], list[str]]


def system_addresses(host: str, port: int) -> list[str]:
    """Ask the system's resolver for all addresses of the host, in its order of preference."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class NameLookup:
    """Looks up names in a thread, so that the caller can stop waiting.

    Concurrent callers share one lookup per name. So a resolver that hangs holds one thread per host, and a process
    calls only a few hosts. The thread ends when the resolver gives up.
    """

    def __init__(self, resolve: Resolve = system_addresses) -> None:
        self._resolve = resolve
        self._pending: dict[tuple[str, int], Future[list[str]]] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int, timeout_s: float | None) -> list[str]:
        """Look up the addresses of the host.

        Raises:
            httpcore2.ConnectTimeout: the name was not resolved in time.
            httpcore2.ConnectError: the host does not exist.

        """
        if _is_address(host):
            return [host]
        future = self._lookup(host, port)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            raise httpcore2.ConnectTimeout(f"the name {host} was not resolved in time") from None
        except OSError as error:
            raise httpcore2.ConnectError(f"the name {host} can't be resolved: {error}") from None

    def _lookup(self, host: str, port: int) -> Future[list[str]]:
        with self._lock:
            future = self._pending.get((host, port))
            if future is None:
                future = self._pending[host, port] = Future()
                threading.Thread(
                    target=self._run, args=(host, port, future), name=f"lookup {host}", daemon=True
                ).start()
            return future

    def _run(self, host: str, port: int, future: Future[list[str]]) -> None:
        try:
            found = self._resolve(host, port)
        except Exception as error:
            self._forget(host, port)
            future.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        else:
            self._forget(host, port)
            future.set_result(found)

    def _forget(self, host: str, port: int) -> None:
        with self._lock:
            self._pending.pop((host, port), None)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
