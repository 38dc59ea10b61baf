"""The address of a Redis server, from a URL in redis-py's or in Celery's spelling.

The two libraries disagree. Celery writes `ssl_cert_reqs=CERT_NONE`, `redis+socket://` and `?virtual_host=`; redis-py writes
`ssl_cert_reqs=none`, `unix://` and `?db=`. Each library fails late, or silently, if a URL has the other's spelling.
Without `ssl_cert_reqs` redis-py checks the server's certificate and kombu does not. So a URL is read here, and each
library gets its own spelling. The options are those of `redis.connection` (redis-py 8.1) and of `kombu.utils.url`
(kombu 5.7).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

SCHEMES = {
    "redis": "tcp",
    "valkey": "tcp",
    "rediss": "tls",
    "valkeys": "tls",
    "unix": "socket",
    "redis+socket": "socket",
}
"""Scheme -> the way to the server."""

EXPECTED = "expected redis://HOST:PORT/DB (or rediss://, unix://)"
ENCODED = "in a password `#`, `/`, `?`, `[` and `@` are written as %23, %2F, %3F, %5B and %40"

REFUSED = {
    "sentinel": "Redis Sentinel is not supported; name the primary itself, or a DNS name or proxy that points to it",
    "redis+sentinel": "Redis Sentinel is not supported; name the primary itself, or a DNS name or proxy that points to it",
    "rediss+sentinel": "Redis Sentinel is not supported; name the primary itself, or a DNS name or proxy that points to it",
    "redis+cluster": "Redis Cluster is not supported; name a single server",
    "rediss+cluster": "Redis Cluster is not supported; name a single server",
}

CERT_REQS = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
"""redis-py's words. Celery's are `CERT_NONE` and so on."""


class AddressError(ValueError):
    """Raised when a URL can't be used. The text holds no part of the URL: a part may be the password."""


def _read_bool(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise ValueError("expected true or false")
    return words[text.lower()]


def _read_cert_reqs(text: str) -> ssl.VerifyMode:
    word = text.lower().removeprefix("ssl.").removeprefix("cert_")
    if word not in CERT_REQS:
        raise ValueError("expected none, optional or required (or CERT_NONE, CERT_OPTIONAL, CERT_REQUIRED)")
    return CERT_REQS[word]


TLS_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "ssl_cert_reqs": _read_cert_reqs,
    "ssl_check_hostname": _read_bool,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_ca_data": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_ciphers": str,
    "ssl_min_version": lambda text: ssl.TLSVersion(int(text)),
}
SOCKET_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_keepalive": _read_bool,
    "health_check_interval": int,
    "max_connections": int,
    "client_name": str,
    "retry_on_timeout": _read_bool,
}
PLACES = ("db", "virtual_host", "username", "password")
"""Options for values that can also be in the main part of the URL."""


def is_redis(url: str) -> bool:
    """Does the URL name a Redis server, or one that is refused because it is no single server?"""
    return urlsplit(url).scheme in (*SCHEMES, *REFUSED)


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is, and how to log in. Two addresses are equal if they lead to the same data as the same user."""

    host: str
    port: int
    path: str | None
    """Path of a Unix socket."""
    db: int
    username: str | None
    password: str | None = field(repr=False)
    tls: Mapping[str, Any] | None = field(compare=False, repr=False)
    """Options of TLS, by redis-py's names. None: not encrypted."""
    socket: Mapping[str, Any] = field(compare=False)
    """Options of the connection that the URL sets."""

    def for_redis_py(self) -> dict[str, Any]:
        """Return the arguments of a redis-py connection."""
        where = {"path": self.path} if self.path else {"host": self.host, "port": self.port}
        login = {"username": self.username, "password": self.password, "db": self.db}
        return {**where, **login, **(self.tls or {}), **self.socket}

    def for_celery(self) -> str:
        """Return the URL of the broker. It has no options: Celery takes those of TLS as `broker_use_ssl`, and so does Flower."""
        login = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        login = login if self.username or self.password else ""
        if self.path:
            return f"redis+socket://{login}{quote(self.path)}?virtual_host={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls is not None else 'redis'}://{login}{host}:{self.port}/{self.db}"


def read_address(url: str) -> ServerAddress:
    """Read the URL of a Redis server.

    Raises:
        AddressError: says what was expected, without a part of the URL.

    """
    parts = _split(url)
    way = SCHEMES[parts.scheme]
    if way != "socket" and ("#" in url or not parts.hostname):
        raise AddressError(f"{EXPECTED}; {ENCODED}")
    given = _read_options(parts.query)
    tls = {name: value for name, value in given.items() if name in TLS_OPTIONS}
    if tls and way != "tls":
        raise AddressError(f"{', '.join(tls)}: this needs rediss://, which encrypts")
    return ServerAddress(
        host=unquote(parts.hostname or "") if way != "socket" else "",
        port=(parts.port or 6379) if way != "socket" else 0,
        path=unquote(parts.path) if way == "socket" else None,
        db=_read_db(given, parts.path if way != "socket" else ""),
        username=given.get("username") or unquote(parts.username or "") or None,
        password=given.get("password") or unquote(parts.password or "") or None,
        # Both libraries check the certificate, unless the URL says otherwise.
        tls={"ssl_cert_reqs": ssl.CERT_REQUIRED, **tls} if way == "tls" else None,
        socket={name: value for name, value in given.items() if name in SOCKET_OPTIONS},
    )


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        reason = str(error).partition(" as ")[0]  # what follows is a part of the URL
        raise AddressError(f"not a URL: {reason}; {EXPECTED}; {ENCODED}") from None
    if parts.scheme in REFUSED:
        raise AddressError(REFUSED[parts.scheme])
    if parts.scheme not in SCHEMES:
        raise AddressError(EXPECTED)
    if ";" in parts.netloc or ("," in parts.netloc and "@" not in parts.netloc) or ";" in url.partition("?")[0]:
        raise AddressError("expected the address of one server, got several")
    return parts


def _read_options(query: str) -> dict[str, Any]:
    readers: dict[str, Callable[[str], Any]] = {**TLS_OPTIONS, **SOCKET_OPTIONS, **dict.fromkeys(PLACES, str)}
    found: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name not in readers:
            raise AddressError(f"unknown option {name[:40]!r}; expected some of {', '.join(readers)}")
        try:
            found[name] = readers[name](text)
        except ValueError as error:
            kind = getattr(readers[name], "__name__", "")
            wanted = "a number" if kind in ("int", "float", "<lambda>") else str(error).removeprefix("expected ")
            raise AddressError(f"{name}: expected {wanted}") from None
    return found


def _read_db(given: Mapping[str, Any], path: str) -> int:
    text = str(given.get("db") or given.get("virtual_host") or unquote(path)).strip("/") or "0"
    if not text.isdecimal():
        raise AddressError("expected the number of a database after the host, as in redis://HOST:PORT/0")
    return int(text)
