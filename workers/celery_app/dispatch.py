"""Send steps to workers: through the state's own connection if that Redis is also the broker, else through Celery."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import redis

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.errors import BrokerUnavailable
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.backlog import first_step_keys, publish_through_backlog
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.store.scripts import UNAVAILABLE, Scripts, unavailable
from midwatch.schemas.step import Priority, StepRef
from midwatch.workers.celery_app.in_time import InTime
from midwatch.workers.celery_app.write_message import (
    QUEUES,
    TASKS,
    CeleryMessageWriter,
    envelope,
    is_first,
    queue_key,
    queue_number,
)
from midwatch.workers.redis_connection import connect_redis
from midwatch.workers.server_address import is_redis

if TYPE_CHECKING:
    from celery import Celery

    from midwatch.workers.settings import Settings


class RedisDispatcher:
    """Dispatcher for a fleet whose broker and state are one Redis. The commit's script pushes the next message."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._keys = keys
        self._scripts = Scripts(client)
        self._writer = CeleryMessageWriter(keys.prefix)
        self._queues = {kind: keys.queue(name) for kind, name in QUEUES.items()}
        self._pairs = {
            priority: tuple(queue_key(keys.queue(name), priority) for name in ("model", "tools"))
            for priority in Priority
        }
        self._first = {priority: queue_key(keys.queue("model"), priority, first=True) for priority in Priority}

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """See `ports.Dispatcher.hand_off`."""
        model, tools = self._pairs[priority]
        return model, tools

    def first_queue(self, priority: Priority) -> str | None:
        """See `ports.Dispatcher.first_queue`."""
        return self._first[priority]

    def message(self, ref: StepRef, *, begun: bool = False) -> bytes:
        """See `ports.Dispatcher.message`."""
        return self._writer.write(ref, begun=begun)

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        """See `ports.Dispatcher.publish`."""
        pipe = self._client.pipeline(transaction=False)
        for ref in refs:
            message = self._writer.write(ref, begun=begun)
            if is_first(ref) and not begun:
                keys = first_step_keys(self._keys, self._first[ref.priority], ref.priority)
                publish_through_backlog(self._scripts, keys, ref, message)
            else:
                pipe.lpush(queue_key(self._queues[ref.kind], ref.priority), message)
        try:
            pipe.execute()
        except UNAVAILABLE as error:
            raise unavailable(error) from error


PUBLISH_S = 4.0
"""How long a producer waits for a broker. kombu's own limits add up to 10 s (measured, with a server that is silent)."""


def broker_unavailable(why: str) -> BrokerUnavailable:
    """Make the error for a broker that does not take a message."""
    return BrokerUnavailable(
        f"the broker did not take the message ({why[:200]}). Steps that are stored stay owed, and a steward publishes them "
        "when the broker answers. Check MIDWATCH_BROKER_URL"
    )


class CeleryDispatcher:
    """Dispatcher for any other broker, and for `hand_off = false`.

    A step is committed first and then published through Celery. One producer is kept for all messages.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._in_time = InTime(PUBLISH_S, broker_unavailable)

    @cached_property
    def _app(self) -> Celery:
        """The worker's own app if this process is a worker of the same fleet; else a new app for these settings."""
        from midwatch.workers.celery_app.fleet_app import make_app

        worker = sys.modules.get("midwatch.workers.celery_app.app")
        if worker is not None and self._settings == worker.APP_SETTINGS:
            found: Celery = worker.app
            return found
        return make_app(self._settings)

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """Return None: the message can't be pushed in the commit."""
        return None

    def first_queue(self, priority: Priority) -> str | None:
        """Return None, as `hand_off` does."""
        return None

    def message(self, ref: StepRef, *, begun: bool = False) -> bytes:
        """Return nothing: only a commit with hand-off needs the message."""
        return b""

    def publish(self, refs: Sequence[StepRef], *, begun: bool = False) -> None:
        """See `ports.Dispatcher.publish`. It returns within `PUBLISH_S`, also if the broker's address takes every packet.

        Raises:
            BrokerUnavailable: the broker did not take all messages in this time. Those that it took are delivered.

        """
        self._in_time.run(lambda: self._send(refs, begun=begun))

    def _send(self, refs: Sequence[StepRef], *, begun: bool) -> None:
        app = self._app
        with app.producer_pool.acquire(block=True, timeout=5) as producer:
            self._connect(producer)
            for ref in refs:
                try:
                    app.send_task(
                        TASKS[ref.kind],
                        kwargs=envelope(ref),
                        task_id=f"{ref.job_id}.{ref.step}",
                        queue=f"{self._settings.prefix}.{QUEUES[ref.kind]}",
                        priority=self._number(ref, begun=begun),
                        producer=producer,
                        argsrepr="()",
                        kwargsrepr=f"{{'job_id': '{ref.job_id}', 'step': '{ref.step}'}}",
                        root_id=ref.job_id,
                        retry=False,
                        ignore_result=True,
                        # The producer may be a task of another app. Its trail of results belongs to that app.
                        add_to_parent=False,
                    )
                except Exception as error:
                    raise broker_unavailable(f"{type(error).__name__}: {error}") from error

    @staticmethod
    def _connect(producer: Any) -> None:
        """Connect, with one more try. Without this, kombu tries for 6 s until it says why it can't."""
        try:
            producer.connection.ensure_connection(max_retries=1, interval_start=0.1)
        except Exception as error:
            raise broker_unavailable(f"{type(error).__name__}: {error}") from error

    def _number(self, ref: StepRef, *, begun: bool) -> int:
        """Celery's number of the priority. On Redis the lowest number is served first, on RabbitMQ the highest."""
        number = queue_number(ref.priority, first=is_first(ref) and not begun)
        return number if is_redis(self._settings.broker) else 9 - number


def make_client(settings: Settings) -> Client:
    """Return a client of the fleet that the settings describe."""
    redis_client = connect_redis(settings.redis_url)
    keys = Keyspace(settings.prefix)
    dispatcher = (
        RedisDispatcher(redis_client, keys) if settings.one_server and settings.hand_off else CeleryDispatcher(settings)
    )
    originals_bytes = settings.session_originals_bytes
    store = RedisStore(redis_client, keys, dispatcher, lease_ms=settings.lease_ms, originals_bytes=originals_bytes)
    return Client(store=store, operations=Operations(redis_client, keys, dispatcher))


def connect(redis_url: str | None = None, broker_url: str | None = None) -> Client:
    """Return a client. This is the entry point `midwatch.dispatcher`, which `orchestration.connect` looks up."""
    from midwatch.workers.settings import Settings

    given = {"redis_url": redis_url, "broker_url": broker_url}
    return make_client(Settings(**{name: value for name, value in given.items() if value is not None}))  # type: ignore[arg-type]
