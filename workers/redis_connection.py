"""The Redis client: short timeouts and few retries. With redis-py's defaults a frozen server blocks 60 s (measured)."""

from __future__ import annotations

from typing import Any, ClassVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import DefaultParser
from redis.retry import Retry

from midwatch.workers.server_address import read_address

_Parser: Any = DefaultParser
"""Untyped, because the stubs declare it as a variable."""


class Parser(_Parser):  # type: ignore[misc]
    """Raises `ReadOnlyError` for all replies that mean "the server refuses writes for now".

    redis-py recognises only two of these replies. Added here: a full disk (MISCONF), too few replicas (NOREPLICAS), a
    script that does not end (BUSY), and a failover that ended a blocking command (UNBLOCKED).
    """

    EXCEPTION_CLASSES: ClassVar[dict[str, Any]] = {
        **_Parser.EXCEPTION_CLASSES,
        **dict.fromkeys(("MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED"), redis.ReadOnlyError),
    }


def connect_redis(url: str, *, max_connections: int = 256) -> redis.Redis:
    """Return a client whose commands answer or fail within five seconds.

    A command is retried once if the server had closed the pooled connection. This is safe: every script may run twice.
    A timeout is not retried, because a frozen server would cost it twice.

    Raises:
        AddressError: the URL can't be used. `Settings` checks its URLs, so this concerns other callers.

    """
    address = read_address(url)
    options: dict[str, Any] = {
        "socket_timeout": 4.0,
        "socket_connect_timeout": 2.0,
        "socket_keepalive": True,
        "max_connections": max_connections,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 1, supported_errors=(redis.ConnectionError,)),
        "client_name": "midwatch",
        "parser_class": Parser,
        **address.for_redis_py(),
    }
    if address.path:
        kind: Any = redis.UnixDomainSocketConnection
        for name in ("socket_connect_timeout", "socket_keepalive"):
            options.pop(name)
    else:
        kind = redis.Connection if address.tls is None else redis.SSLConnection
    return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))
