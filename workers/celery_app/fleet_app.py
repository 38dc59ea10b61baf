"""The Celery app of a fleet: its queues, and its settings with their reasons.

A producer may have Celery apps besides this one. So this app changes nothing that belongs to the process: it is not the current
app, it installs no fixups, no other app uses its pools of connections, and it reads no variable of Celery.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Queue
from kombu.pools import ProducerPool

from midwatch.orchestration.keyspace import Keyspace
from midwatch.workers.celery_app import transport
from midwatch.workers.celery_app.later import LaterMessages
from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.celery_app.write_message import NUMBERS, SEPARATOR
from midwatch.workers.redis_connection import connect_redis
from midwatch.workers.server_address import is_redis, read_address
from midwatch.workers.settings import Settings

QUEUES = ("model", "tools", "maintenance")

INCLUDED = ["midwatch.workers.process.tasks", "midwatch.workers.process.boot"]
"""Modules that a worker imports when it starts: the tasks, and the handlers of Celery's signals."""


_AMQP: Any = AMQP
_Celery: Any = Celery
"""Untyped, because the stubs are incomplete."""


class Messages(_AMQP):  # type: ignore[misc]
    """Celery's class that sends messages, with the fleet's connection and a pool that no other app uses."""

    Connection = transport.Connection
    _producer_pool: ProducerPool | None = None

    @property
    def producer_pool(self) -> Any:
        """The pool of producers. Celery would take it from a table of the whole process."""
        if self._producer_pool is None:
            connections = self.app.pool
            self._producer_pool = ProducerPool(connections, limit=connections.limit)
        return self._producer_pool


class FleetApp(_Celery):  # type: ignore[misc]
    """Celery's app with its own pools of connections. Its broker always comes from the settings."""

    amqp_cls = "midwatch.workers.celery_app.fleet_app:Messages"
    backend_cls = "disabled"
    """Steps have no results in Celery. CELERY_RESULT_BACKEND may be set for another app."""
    _pool: Any = None

    @property
    def pool(self) -> Any:
        """The pool of connections. Celery's own property sets the limit of all pools of the process."""
        if self._pool is None:
            self._ensure_after_fork()
            self._pool = self.connection_for_write().Pool(limit=self.conf.broker_pool_limit)
        return self._pool

    def connection_for_read(self, url: str | None = None, **options: Any) -> Any:
        """Connect to the settings' broker. Celery would prefer CELERY_BROKER_URL, which may be set for another app."""
        return super().connection_for_read(url or self._preconf["broker_url"], **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Any:
        """See `connection_for_read`."""
        return super().connection_for_write(url or self._preconf["broker_url"], **options)

    def connection(self, hostname: str | None = None, **options: Any) -> Any:
        """See `connection_for_read`."""
        return self.connection_for_write(hostname, **options)


def make_app(current: Settings, *, fixups: Collection[str] = ()) -> Celery:
    """Return the Celery app of one fleet. `fixups` are Celery's, which prepare a worker for Django."""
    address = read_address(current.broker) if is_redis(current.broker) else None
    redis_broker = address is not None
    queues = [f"{current.prefix}.{name}" for name in QUEUES]
    # Shared tasks of a producer go to the current app, so this app must not be current.
    app: Celery = FleetApp(
        "midwatch",
        broker=address.for_celery() if address else current.broker,
        include=INCLUDED,
        set_as_current=False,
        fixups=fixups,
    )
    app.conf.update(
        # A message is only a hint; the state in Redis is the truth. So messages on Redis are not acknowledged. This
        # halves the number of broker commands. Without unacked messages no visibility timeout can run a step twice.
        # A step whose worker dies runs again when its lease ends. Brokers that push (RabbitMQ) need late acknowledgement.
        task_queues=[Queue(name, routing_key=name, no_ack=redis_broker) for name in queues],
        task_acks_late=not redis_broker,
        task_reject_on_worker_lost=False,
        task_default_queue=f"{current.prefix}.model",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        # Take a message only when a slot is free. Prefetched messages are lost when the worker dies, and other workers
        # can't run them.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=redis_broker,
        broker_transport_options={
            transport.POISON_LIST: PoisonList(connect_redis(current.redis_url), Keyspace(current.prefix).poison()),
            transport.LATER: LaterMessages(connect_redis(current.broker), Keyspace(current.prefix).later()),
            transport.OWN_QUEUES: tuple(queues),
            "sep": SEPARATOR,
            "priority_steps": NUMBERS,
            # At equal priority the queues take turns: with a fixed order, steps of the last queue would wait for as long as
            # an earlier one has any.
            "queue_order_strategy": "round_robin",
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "visibility_timeout": 24 * 3600,
            **address.socket,
        }
        if address
        else {},
        broker_use_ssl=address.tls if address else None,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # Running tasks need no cancelling: the fence makes a step that outlives its connection harmless.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_soft_shutdown_timeout=0.0,
        accept_content=["json"],
        task_serializer="json",
        worker_proc_alive_timeout=60.0,  # a child prepares itself before it reports to the pool; 4 s is little under load
        worker_consumer="midwatch.workers.process.consumer:Consumer",
        worker_hijack_root_logger=False,
        worker_log_color=False,
        worker_send_task_events=current.events,
        task_send_sent_event=False,
    )
    return app
