"""kombu's Redis transport, with one difference: a message that nobody can read becomes a poison record, not a dead worker.

The stock channel decodes a message in the worker's event loop: one item that is not JSON, or nested too deep, ends the worker
and is lost; the next worker is ended by the next such item.
"""

from __future__ import annotations

from queue import Empty
from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str

from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.celery_app.read_message import Unreadable, read_message
from midwatch.workers.redis_connection import Parser

POISON_LIST = "midwatch_poison_list"
"""The transport option that holds the `PoisonList` of unreadable messages."""

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

    @property
    def _poison_list(self) -> PoisonList:
        """Handed in by `app.make_app`."""
        found: PoisonList = self.connection.client.transport_options[POISON_LIST]
        return found

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), "parser_class": Parser}

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
                message = read_message(reply[1], queue)
            except Unreadable as error:
                self._poison_list.keep(queue, reply[1], str(error))
                raise Empty from error
            self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()


class Transport(kombu_redis.Transport):
    """kombu's Redis transport over our channel."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ReadOnlyError, redis.OutOfMemoryError)
    """Time cures these two as well: a worker whose server becomes a replica, or is full, connects again until it is cured.
    Stock kombu lets them end it."""


def install() -> None:
    """Make `redis://` brokers of this process use it."""
    TRANSPORT_ALIASES.update(
        redis="midwatch.workers.celery_app.transport:Transport",
        rediss="midwatch.workers.celery_app.transport:Transport",
    )
