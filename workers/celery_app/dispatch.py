"""Bring steps to workers: by the state's own connection where it is the broker, through Celery elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import redis

from midwatch.orchestration.client.client import Client
from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.operations import Operations
from midwatch.orchestration.store.redis_store import RedisStore
from midwatch.orchestration.store.scripts import UNAVAILABLE, unavailable
from midwatch.schemas.step import Priority, StepRef
from midwatch.workers.celery_app.write_message import PRIORITIES, QUEUES, TASKS, Wire, envelope, queue_key
from midwatch.workers.redis_connection import connect_redis

if TYPE_CHECKING:
    from celery import Celery

    from midwatch.workers.settings import Settings


class RedisDispatcher:
    """Broker and state are one Redis: a message is pushed where the commit goes, in the same script."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._client = client
        self._wire = Wire(keys.prefix)
        self._queues = {kind: keys.queue(name) for kind, name in QUEUES.items()}
        self._pairs = {
            priority: tuple(queue_key(keys.queue(name), priority) for name in ("model", "tools"))
            for priority in Priority
        }

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """See `ports.Dispatcher.hand_off`."""
        model, tools = self._pairs[priority]
        return model, tools

    def message(self, ref: StepRef) -> bytes:
        """See `ports.Dispatcher.message`."""
        return self._wire.message(ref)

    def publish(self, refs: Sequence[StepRef]) -> None:
        """See `ports.Dispatcher.publish`."""
        pipe = self._client.pipeline(transaction=False)
        for ref in refs:
            pipe.lpush(queue_key(self._queues[ref.kind], ref.priority), self._wire.message(ref))
        try:
            pipe.execute()
        except UNAVAILABLE as error:
            raise unavailable(error) from error


class CeleryDispatcher:
    """Any other broker, or hand-off switched off: commit first, then publish through Celery, with one kept producer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _app(self) -> Celery:
        """The process's own app where it is of the same fleet, as in a worker; an app for these addresses elsewhere."""
        from midwatch.workers.celery_app import app as process

        return process.app if self._settings == process.MADE_FOR else process.make_app(self._settings)

    def hand_off(self, priority: Priority) -> tuple[str, str] | None:
        """Never."""
        return None

    def message(self, ref: StepRef) -> bytes:
        """Never asked for without hand-off."""
        return b""

    def publish(self, refs: Sequence[StepRef]) -> None:
        """See `ports.Dispatcher.publish`."""
        app = self._app
        with app.producer_pool.acquire(block=True, timeout=5) as producer:
            for ref in refs:
                try:
                    app.send_task(
                        TASKS[ref.kind],
                        kwargs=envelope(ref),
                        task_id=f"{ref.job_id}.{ref.step}",
                        queue=f"{self._settings.prefix}.{QUEUES[ref.kind]}",
                        priority=PRIORITIES[ref.priority],
                        producer=producer,
                        argsrepr="()",
                        kwargsrepr=f"{{'job_id': '{ref.job_id}', 'step': '{ref.step}'}}",
                        root_id=ref.job_id,
                        retry=False,
                    )
                except Exception as error:
                    raise unavailable(error) from error


def client_of(settings: Settings) -> Client:
    """A client of the fleet that the settings describe."""
    redis_client = connect_redis(settings.redis_url)
    keys = Keyspace(settings.prefix)
    dispatcher = (
        RedisDispatcher(redis_client, keys) if settings.one_server and settings.hand_off else CeleryDispatcher(settings)
    )
    bytes_kept = settings.session_originals_bytes
    store = RedisStore(redis_client, keys, dispatcher, lease_ms=settings.lease_ms, originals_bytes=bytes_kept)
    return Client(store=store, operations=Operations(redis_client, keys, dispatcher))


def connect(redis_url: str | None = None, broker_url: str | None = None) -> Client:
    """The entry point `midwatch.dispatcher`: what `orchestration.connect` finds."""
    from midwatch.workers.settings import Settings

    given = {"redis_url": redis_url, "broker_url": broker_url}
    return client_of(Settings(**{name: value for name, value in given.items() if value is not None}))  # type: ignore[arg-type]
