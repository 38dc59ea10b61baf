"""Celery's consumer with one change: a message in the fleet's queues that is not a valid step is kept as poison.

Stock Celery logs such a message and drops it. It still does so with messages of other queues, which `celery control
add_consumer` may add to a worker.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown
from kombu.utils.encoding import safe_repr

from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.process.boot import PrepareStep
from midwatch.workers.process.presence import PresenceStep
from midwatch.workers.process.redrive import RedriveStep
from midwatch.workers.process.runtime import runtime
from midwatch.workers.process.steward import StewardStep
from midwatch.workers.process.wakeup import WakeupStep

CONTENT_ERRORS = (TypeError, LookupError, ValueError, AttributeError, OverflowError, RecursionError)
"""Errors that invalid content causes in Celery's code. A lost connection raises none of them."""

SHORT_S = 10.0
"""A connection that was lost sooner may be lost again at once: the server became a replica, or its memory is full."""

LONGEST_PAUSE_S = 5.0

_Consumer: Any = CeleryConsumer
"""Untyped, because the stubs are incomplete."""


class Consumer(_Consumer):  # type: ignore[misc]
    """A consumer with more boot steps: preparation, wake-up, steward, redrive, presence."""

    class Blueprint(_Consumer.Blueprint):  # type: ignore[misc]
        """Celery's boot steps, then those of this package."""

        default_steps = (
            *_Consumer.Blueprint.default_steps,
            PrepareStep,
            WakeupStep,
            StewardStep,
            RedriveStep,
            PresenceStep,
        )

    _connected_s = 0.0
    _short = 0
    """How many connections in a row were short."""

    def connect(self) -> Any:
        """Connect, and note when."""
        connection = super().connect()
        self._connected_s = time.monotonic()
        return connection

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Reconnect at once after a connection that lasted. Pause before the next one if it did not. Celery never pauses."""
        super().on_connection_error_after_connected(exc)
        self._short = self._short + 1 if time.monotonic() - self._connected_s < SHORT_S else 0
        pause_s = min(LONGEST_PAUSE_S, 0.1 * 2**self._short) if self._short > 1 else 0.0
        until_s = time.monotonic() + pause_s * random.uniform(0.8, 1.0)
        while time.monotonic() < until_s:
            maybe_shutdown()
            time.sleep(0.1)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Wrap Celery's handler, which raises into the event loop when a message's content is invalid.

        `read_message` catches such content on Redis. This wrapper is for other brokers.
        """
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Any) -> None:
            try:
                handle(message)
            except CONTENT_ERRORS as error:
                reason = f"invalid task message: {type(error).__name__}: {str(error)[:200]}"
                if not self._keep_as_poison(message, reason):
                    super(Consumer, self).on_invalid_task(message.body, message, error)

        return on_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Keep a message whose body can't be decoded."""
        if not self._keep_as_poison(message, f"undecodable: {type(exc).__name__}: {str(exc)[:200]}"):
            super().on_decode_error(message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """Keep a message that lacks a task's headers."""
        if not self._keep_as_poison(message, "not a task message: no task name in its headers"):
            super().on_unknown_message(body, message)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a message whose task is not registered here."""
        if not self._keep_as_poison(message, f"unknown task {str(message.headers.get('task'))[:100]!r}"):
            super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Keep a message that Celery can't turn into a request."""
        if not self._keep_as_poison(message, f"invalid task message: {type(exc).__name__}: {str(exc)[:200]}"):
            super().on_invalid_task(body, message, exc)

    def _keep_as_poison(self, message: Any, reason: str) -> bool:
        """Keep the message. Returns False if its queue is not the fleet's."""
        queue = self._find_queue(message)
        if queue not in {own.name for own in self.app.conf.task_queues}:
            return False
        body = message.body if isinstance(message.body, (bytes, str)) else safe_repr(message.body)
        client = runtime().client
        PoisonList(client.store.client, client.operations.keys.poison()).keep(queue, body, reason)
        message.ack_log_error(_Log, self.connection_errors)
        return True

    def _find_queue(self, message: Any) -> str:
        """Find the queue from which the message came. The routing key alone may be another exchange's."""
        delivery = message.delivery_info or {}
        tags: dict[str, str] = getattr(self.task_consumer, "_active_tags", {})
        names = {tag: name for name, tag in tags.items()}
        return names.get(delivery.get("consumer_tag", "")) or str(delivery.get("routing_key"))


class _Log:
    """A logger that ignores kombu's report of a failed acknowledgement. The message is already in the poison list."""

    @staticmethod
    def critical(*_: object, **__: object) -> None:
        """Ignore the report."""
