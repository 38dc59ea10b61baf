"""Our own Redis client: short timeouts and few retries. redis-py's own default hangs 60 s on a frozen server (measured)."""

from __future__ import annotations

from typing import Any, ClassVar

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import DefaultParser
from redis.retry import Retry

_Parser: Any = DefaultParser
"""Untyped: the stubs know it as a variable."""


class Parser(_Parser):  # type: ignore[misc]
    """Tells by its class that a server refuses writes for now; redis-py knows only two of the reasons by theirs.

    A full disk (MISCONF), too few replicas, a script that does not end, a failover that ended a blocking command.
    """

    EXCEPTION_CLASSES: ClassVar[dict[str, Any]] = {
        **_Parser.EXCEPTION_CLASSES,
        **dict.fromkeys(("MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED"), redis.ReadOnlyError),
    }


def connect_redis(url: str, *, max_connections: int = 256) -> redis.Redis:
    """A client that answers or fails within five seconds.

    One retry, for a connection that the server closed while it lay in the pool: every script of ours may be sent twice.
    None after a timeout: a frozen server would cost it twice.
    """
    return redis.Redis.from_url(
        url,
        socket_timeout=4.0,
        socket_connect_timeout=2.0,
        socket_keepalive=True,
        max_connections=max_connections,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 1, supported_errors=(redis.ConnectionError,)),
        client_name="midwatch",
        parser_class=Parser,
    )
