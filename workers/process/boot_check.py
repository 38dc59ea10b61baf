"""Check before the start that this worker can work: the store, the broker, and the credentials of its agents' providers.

A worker that can't use its store takes messages and loses them until another worker finds their steps. So it does not start.
The check waits for a server that can't be reached, because a fleet and its server may start together. An error that
waiting does not cure (a wrong password, a missing right, a command that the server does not have) ends the start at
once, with the setting's name.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import structlog
from redis import exceptions as redis_errors

from midwatch.orchestration.errors import ConfigError, MidwatchError, StoreUnavailable
from midwatch.orchestration.keyspace import Keyspace
from midwatch.workers.process.boot_commands import list_commands
from midwatch.workers.redis_connection import connect_redis
from midwatch.workers.server_address import is_redis, read_address

if TYPE_CHECKING:
    from midwatch.workers.settings import Settings

PATIENCE_S = 60.0
"""How long a worker waits for a server that can't be reached. Then it ends, and its supervisor may start it again."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

REDIS_URL, BROKER_URL = "MIDWATCH_REDIS_URL", "MIDWATCH_BROKER_URL"

log = structlog.get_logger("midwatch.worker")


def await_servers(current: Settings, *, patience_s: float = PATIENCE_S) -> None:
    """Wait until the store and the broker can be used.

    Raises:
        ConfigError: a server refuses this worker; the text names the setting.
        StoreUnavailable: a server could not be reached, or took no writes, for `patience_s`.

    """
    _await(lambda: check_store(current), REDIS_URL, patience_s)
    if not current.one_server:
        _await(lambda: check_broker(current), BROKER_URL, patience_s)


def check_store(current: Settings) -> None:
    """Check that the server takes every command of a worker. Nothing is written: the transaction is discarded."""
    _check_files(current.redis_url, REDIS_URL)
    with connect_redis(current.redis_url, max_connections=2) as client:
        try:
            client.ping()
            _rehearse(client, Keyspace(current.prefix))
        except (redis_errors.RedisError, OSError) as error:
            raise describe(error, REDIS_URL) from error


def check_broker(current: Settings) -> None:
    """Check that a connection to the broker can be opened."""
    if is_redis(current.broker):
        _check_files(current.broker, BROKER_URL)
        with connect_redis(current.broker, max_connections=2) as client:
            try:
                client.ping()
                _rehearse(client, Keyspace(current.prefix), is_state=False)
            except (redis_errors.RedisError, OSError) as error:
                raise describe(error, BROKER_URL) from error
        return
    from midwatch.workers.celery_app.fleet_app import make_app

    scheme = current.broker.partition("://")[0]
    try:
        connection = make_app(current).connection_for_write()
        connection.transport  # noqa: B018 - it imports the broker's library
    except (ImportError, KeyError, AttributeError) as error:
        raise ConfigError(f"{BROKER_URL}: no transport for {scheme}:// is installed here: {error}") from error
    try:
        connection.connect()
    except Exception as error:  # each broker's library has its own errors
        raise describe(error, BROKER_URL) from error
    finally:
        connection.release()


def _check_files(url: str, setting: str) -> None:
    """Check the files of TLS. A missing one would look like a server that can't be reached."""
    for name, value in (read_address(url).tls or {}).items():
        if name in ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile") and not Path(value).exists():
            raise ConfigError(f"{setting}: {name}: there is no file {value!r}")


def _rehearse(client: redis.Redis, keys: Keyspace, *, is_state: bool = True) -> None:
    """Let the server check each command, in a transaction that is discarded.

    A server checks a queued command's name, its number of arguments, the user's rights, and whether it takes writes.
    """
    connection: Any = client.connection_pool.get_connection()
    try:
        commands = [("MULTI",), *list_commands(keys, is_state=is_state), ("DISCARD",)]
        connection.send_packed_command(connection.pack_commands(commands))
        replies = [_read_reply(connection) for _ in commands]
    finally:
        client.connection_pool.release(connection)
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, redis_errors.ResponseError) and "inside" in str(reply):
            continue  # SUBSCRIBE may not be part of a transaction, which is checked last
        if isinstance(reply, redis_errors.NoPermissionError):
            raise redis_errors.NoPermissionError(f"may not run {' '.join(map(str, command[:2]))}: {reply}")
        if isinstance(reply, Exception) and command[0] != "DISCARD":
            raise reply


def _read_reply(connection: Any) -> object:
    try:
        return connection.read_response()
    except redis_errors.ResponseError as error:  # also ReadOnlyError and OutOfMemoryError
        return error


def describe(error: Exception, setting: str) -> MidwatchError:
    """Say what is wrong with a server, in words that name the setting. Time may mend a StoreUnavailable."""
    text = f"{type(error).__name__}: {error}"[:300]
    lowered = text.lower()
    for found, advice in PERMANENT:
        if any(word in lowered for word in found):
            return ConfigError(f"{setting}: {advice} ({text})")
    for found, advice in PASSING:
        if any(word in lowered for word in found):
            return StoreUnavailable(f"{setting}: {advice} ({text})")
    if isinstance(error, redis_errors.AuthenticationError):
        return ConfigError(f"{setting}: the server requires a login, or refuses this one ({text})")
    if isinstance(error, (redis_errors.ConnectionError, redis_errors.TimeoutError, OSError)):
        return StoreUnavailable(
            f"{setting}: the server can't be reached, or speaks TLS where the URL does not ({text})"
        )
    return ConfigError(f"{setting}: the server refuses this worker ({text})")


PERMANENT = (
    (("wrongpass", "invalid username-password", "invalid password"), "the server refuses the user or the password"),
    (("noauth", "authentication required"), "the server requires a password"),
    (("access_refused", "login was refused"), "the broker refuses the user or the password"),
    (("not_allowed", "vhost"), "the broker does not know the virtual host, or the user may not use it"),
    (("nopermission", "noperm", "has no permissions"), "the user lacks a right; docs/production.md has the rules"),
    (("db index is out of range", "invalid db index"), "the server has no database of this number"),
    (
        ("unknown command", "unknown subcommand"),
        "the server is too old, or the command is switched off; use Valkey or Redis 7+",
    ),
    (
        ("certificate_verify_failed",),
        "the server's certificate is not trusted; set ssl_ca_certs, or ssl_cert_reqs=none",
    ),
    (("wrong_version_number", "wrong version number"), "the server does not speak TLS at this port; use redis://"),
    (
        ("no certificate or crl found", "pem lib", "filenotfounderror"),
        "a file of an ssl_ option holds no certificate, or is missing",
    ),
    (("cluster support", "moved "), "Redis Cluster is not supported; name a single server"),
)
"""Words in an error's text -> what to say. Time does not mend these."""

PASSING = (
    (("read only replica",), "the server is a read-only replica; name its primary"),
    (("writing to the aof", "unable to persist", "misconf"), "the server can't write to its disk and refuses writes"),
    (("used memory", "outofmemory", "maxmemory"), "the server's memory is full, and it refuses writes"),
    (("noreplicas", "enough good replicas"), "the server has too few replicas and refuses writes"),
    (("loading",), "the server loads its data"),
    (("max number of clients",), "the server has too many clients (maxclients)"),
)
"""Words in an error's text -> what to say. Time may mend these."""


def _await(check: Callable[[], None], setting: str, patience_s: float) -> None:
    give_up_s = time.monotonic() + patience_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            return check()
        except StoreUnavailable as error:
            left_s = give_up_s - time.monotonic()
            if left_s <= 0:
                raise
            log.warning("worker.waits_for_server", setting=setting, error=str(error), gives_up_in_s=round(left_s))
        time.sleep(min(pause_s * random.uniform(0.9, 1.1), max(0.05, left_s)))
        pause_s = min(LONGEST_PAUSE_S, pause_s * 2)


def refuse_without_credentials(wanted: Iterable[str], missing: dict[str, str]) -> None:
    """Refuse to start if no provider that the worker calls can be used. `missing`: provider -> what is missing.

    Raises:
        ConfigError: names each provider and what it lacks.

    """
    wanted = list(wanted)
    if wanted and all(provider in missing for provider in wanted):
        lacks = "; ".join(f"{provider}: {missing[provider]}" for provider in wanted)
        raise ConfigError(f"no agent of this worker can call its model. {lacks}")
