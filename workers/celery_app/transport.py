"""kombu's Redis transport with one change: an unreadable message becomes a poison record.

The stock channel decodes messages in the worker's event loop. An item that is not JSON, or is nested too deeply, ends the
worker and is lost. The next such item ends the next worker.
"""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

import redis
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str

from midwatch.schemas.step import StepKind
from midwatch.workers.celery_app.first_steps import FIRST_STEPS
from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.celery_app.read_message import UnreadableMessage, read_message
from midwatch.workers.celery_app.write_message import FIRST_NUMBERS, QUEUES
from midwatch.workers.redis_connection import Parser

POISON_LIST = "midwatch_poison_list"
"""The transport option that holds the `PoisonList` of unreadable messages."""

MODEL_QUEUE = f".{QUEUES[StepKind.MODEL]}"
"""How the name of the model queue ends, in every fleet."""

_Channel: Any = kombu_redis.Channel
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
        """The list that `app.make_app` put into the transport options."""
        found: PoisonList = self.connection.client.transport_options[POISON_LIST]
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
            if number not in FIRST_NUMBERS or (queue.endswith(MODEL_QUEUE) and number not in FIRST_STEPS.held)
        ]
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command("BRPOP", *keys, (self.brpop_timeout if timeout is None else timeout) or 0)

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
            if number and int(number) in FIRST_NUMBERS:
                FIRST_STEPS.note_taken()
            self._queue_cycle.rotate(queue)
            try:
                message = read_message(reply[1], queue)
            except UnreadableMessage as error:
                self._poison_list.keep(queue, reply[1], str(error))
                raise Empty from error
            self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with the channel above."""

    Channel = Channel
    connection_errors = (*kombu_redis.Transport.connection_errors, redis.ReadOnlyError, redis.OutOfMemoryError)
    """The last two are transient as well: the server became a replica, or its memory is full. The worker reconnects until
    it works again. With stock kombu these errors end the worker."""


def install() -> None:
    """Make this process use the transport for `redis://` brokers."""
    TRANSPORT_ALIASES.update(
        redis="midwatch.workers.celery_app.transport:Transport",
        rediss="midwatch.workers.celery_app.transport:Transport",
    )
