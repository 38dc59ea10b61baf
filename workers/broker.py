"""kombu's Redis transport, with one difference: a message that nobody can read becomes a poison record, not a dead worker.

The stock channel decodes a message in the worker's event loop: one item that is not JSON, or nested too deep, ends the worker
and is lost; the next worker is ended by the next such item.
"""

from __future__ import annotations

import base64
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from schemas.contract import MAX_ENVELOPE_BYTES, check_depth
from workers import poison


class Unreadable(ValueError):
    """Raised when a raw item can't be a message."""


def read_message(raw: bytes) -> dict[str, Any]:
    """A raw list item as kombu's message, checked before anything recurses into it.

    Raises:
        Unreadable: says why.

    """
    if len(raw) > MAX_ENVELOPE_BYTES:
        raise Unreadable(f"{len(raw):,} bytes, at most {MAX_ENVELOPE_BYTES:,}: messages carry ids, not content")
    try:
        check_depth(raw)
        message = loads(bytes_to_str(raw))
        properties, headers, body = message["properties"], message["headers"], message["body"]
        properties["delivery_tag"], properties["delivery_info"]["routing_key"]
        check_depth(base64.b64decode(body) if properties.get("body_encoding") == "base64" else body)
        headers.get("task")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(f"not a task message: {type(error).__name__}: {str(error)[:200]}") from error
    return dict(message)


_Channel: Any = kombu_redis.Channel
"""Untyped: the stubs know a part of it only."""


class Channel(_Channel):  # type: ignore[misc]
    """A channel that survives what it is sent, and acknowledges only what it keeps account of."""

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Nothing to do for a message of a `no_ack` queue: kombu would delete, in two commands, what was never written."""
        if delivery_tag in self.qos._delivered:
            super().basic_ack(delivery_tag, multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """See `basic_ack`."""
        if delivery_tag in self.qos._delivered:
            super().basic_reject(delivery_tag, requeue)

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not reply:
                raise Empty
            queue = bytes_to_str(reply[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            try:
                message = read_message(reply[1])
            except Unreadable as error:
                poison.record(queue, reply[1], str(error))
                raise Empty from error
            self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()


class Transport(kombu_redis.Transport):
    """kombu's Redis transport over our channel."""

    Channel = Channel


def install() -> None:
    """Make `redis://` brokers of this process use it."""
    TRANSPORT_ALIASES.update(redis="workers.broker:Transport", rediss="workers.broker:Transport")
