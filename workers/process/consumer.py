"""Celery's consumer, where a message that is no step of ours is kept as poison instead of logged and dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.utils.encoding import safe_repr

from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.process.runtime import runtime
from midwatch.workers.process.steward import StewardStep
from midwatch.workers.process.wakeup import WakeupStep

ODD_CONTENT = (TypeError, LookupError, ValueError, AttributeError, OverflowError, RecursionError)
"""What code raises that trusted what it was sent. Never a lost connection."""

_Consumer: Any = CeleryConsumer
"""Untyped: the stubs know a part of it only."""


class Consumer(_Consumer):  # type: ignore[misc]
    """Also starts the steward, as a boot step of every worker."""

    class Blueprint(_Consumer.Blueprint):  # type: ignore[misc]
        """Celery's own steps and ours."""

        default_steps = (*_Consumer.Blueprint.default_steps, WakeupStep, StewardStep)

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's own, which raises into the event loop at odd content that `wire_reading` has not seen: other brokers'."""
        handle = super().create_task_handler(*args, **options)

        def on_message(message: Any) -> None:
            try:
                handle(message)
            except ODD_CONTENT as error:
                self._poison(message, f"invalid task message: {type(error).__name__}: {str(error)[:200]}")

        return on_message

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """The body can't be decoded."""
        self._poison(message, f"undecodable: {type(exc).__name__}: {str(exc)[:200]}")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """It has no task's headers."""
        self._poison(message, "not a task message: no task name in its headers")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """No such task is registered here."""
        self._poison(message, f"unknown task {str(message.headers.get('task'))[:100]!r}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery can't make a request of it."""
        self._poison(message, f"invalid task message: {type(exc).__name__}: {str(exc)[:200]}")

    def _poison(self, message: Any, reason: str) -> None:
        queue = str((message.delivery_info or {}).get("routing_key") or "unknown")
        body = message.body if isinstance(message.body, (bytes, str)) else safe_repr(message.body)
        client = runtime().client
        PoisonList(client.store.client, client.operations.keys.poison()).keep(queue, body, reason)
        message.ack_log_error(_Log, self.connection_errors)


class _Log:
    """Where kombu says that an acknowledgement failed: the message is in the poison list by then."""

    @staticmethod
    def critical(*_: object, **__: object) -> None:
        """Nothing to add."""
