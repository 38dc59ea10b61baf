"""kombu's Redis transport with one change: an unreadable message of the fleet's own queues becomes a poison record.

The stock channel decodes messages in the worker's event loop. An item that is not JSON, or is nested too deeply, ends the
worker and is lost. The next such item ends the next worker.

Messages of all other queues are read as kombu reads them: replies to `celery inspect`, and queues of other applications.

The transport is chosen by the class `Connection` here, which only the fleet's app uses. kombu's table of transports belongs to
the whole process, which may have Celery apps besides this one.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import redis
import structlog
from kombu import Connection as KombuConnection
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str

from midwatch.workers.celery_app.first_steps import FIRST_STEPS
from midwatch.workers.celery_app.later import LaterMessages
from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.celery_app.read_message import (
    EarlyMessage,
    ExpiredMessage,
    UnreadableMessage,
    read_foreign_message,
    read_message,
)
from midwatch.workers.celery_app.write_message import FIRST_NUMBERS
from midwatch.workers.redis_connection import Parser

POISON_LIST = "midwatch_poison_list"
"""The transport option that holds the `PoisonList` of unreadable messages."""

LATER = "midwatch_later"
"""The transport option that holds the `LaterMessages`."""

OWN_QUEUES = "midwatch_queues"
"""The transport option with the names of the fleet's queues. Only their messages are read strictly. The model queue is first."""

log = structlog.get_logger("midwatch.poison")

_Channel: Any = kombu_redis.Channel
_Connection: Any = KombuConnection
"""Untyped, because the stubs are incomplete."""


class Channel(_Channel):  # type: ignore[misc]
    """A channel that survives invalid messages, and acknowledges only messages that it tracks."""

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Acknowledge a message. Messages of a `no_ack` queue are skipped.

        For them kombu would send two delete commands for entries that do not exist.
        """
        if delivery_tag in self.qos._delivered:
            super().basic_ack(delivery_tag, multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a message. Messages of a `no_ack` queue are skipped, as in `basic_ack`."""
        if delivery_tag in self.qos._delivered:
            super().basic_reject(delivery_tag, requeue)

    @property
    def _poison_list(self) -> PoisonList:
        """The list that `make_app` put into the transport options."""
        found: PoisonList = self.connection.client.transport_options[POISON_LIST]
        return found

    @property
    def _own_queues(self) -> tuple[str, ...]:
        """The names of the fleet's queues. The model queue is first."""
        found: tuple[str, ...] = self.connection.client.transport_options[OWN_QUEUES]
        return found

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), "parser_class": Parser}

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for the next message. As in kombu, but first steps are only in the model queue, and some may be held back."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        keys = [
            self._q_for_pri(queue, number)
            for number in self.priority_steps
            for queue in queues
            if self._is_served(queue, number)
        ]
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command("BRPOP", *keys, (self.brpop_timeout if timeout is None else timeout) or 0)

    def _is_served(self, queue: str, number: int) -> bool:
        """May this queue hold messages of this priority that the channel may take now?"""
        model, *others = self._own_queues
        if number not in FIRST_NUMBERS or queue not in (model, *others):
            return True
        return queue == model and number not in FIRST_STEPS.held

    def _brpop_read(self, **options: Any) -> bool:
        try:
            try:
                reply = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not reply:
                raise Empty
            queue, _, number = bytes_to_str(reply[0]).partition(self.sep)
            self._queue_cycle.rotate(queue)
            self.connection._deliver(self._read(queue, number, reply[1]), queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _read(self, queue: str, number: str, raw: bytes) -> dict[str, Any]:
        """Parse an item of a queue. Raises `Empty` if it can't be delivered."""
        try:
            if queue not in self._own_queues:
                return read_foreign_message(raw)
            if number and int(number) in FIRST_NUMBERS:
                FIRST_STEPS.note_taken()
            return read_message(raw, queue)
        except EarlyMessage as early:
            later: LaterMessages = self.connection.client.transport_options[LATER]
            later.keep(queue, int(number or 0), raw, early.eta_s)
            raise Empty from early
        except ExpiredMessage as expired:
            log.warning("message.expired", queue=queue, task_id=str(expired))
            raise Empty from expired
        except UnreadableMessage as error:
            if queue in self._own_queues:
                self._poison_list.keep(queue, raw, str(error))
            else:
                log.warning("message.foreign_dropped", queue=queue, reason=str(error), size_bytes=len(raw))
            raise Empty from error


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ReadOnlyError, redis.OutOfMemoryError)
    """The last two are transient as well: the server became a replica, or its memory is full. The worker reconnects until
    it works again. With stock kombu these errors end the worker."""


class Connection(_Connection):  # type: ignore[misc]
    """kombu's connection, with the transport above for `redis://` and `rediss://`. Other brokers have kombu's transports."""

    def get_transport_cls(self) -> Any:
        """Return the class of the transport."""
        found = super().get_transport_cls()
        return Transport if found is kombu_redis.Transport else found
