"""The Celery app: its queues, and its settings with their reasons."""

from __future__ import annotations

from celery import Celery
from kombu import Queue

from midwatch.orchestration.keyspace import Keyspace
from midwatch.workers.celery_app import transport
from midwatch.workers.celery_app.poison import PoisonList
from midwatch.workers.celery_app.write_message import NUMBERS, SEPARATOR
from midwatch.workers.redis_connection import connect_redis
from midwatch.workers.settings import Settings, settings

QUEUES = ("model", "tools", "maintenance")

INCLUDED = ["midwatch.workers.process.tasks", "midwatch.workers.process.boot"]
"""Modules that a worker imports when it starts: the tasks, and the handlers of Celery's signals."""


def make_app(current: Settings) -> Celery:
    """Return the Celery app of one fleet."""
    transport.install()
    redis_broker = current.broker.startswith(("redis://", "rediss://"))
    # A producer may have its own Celery app. Its shared tasks go to the current app, so this app must not be current.
    app = Celery("midwatch", broker=current.broker, include=INCLUDED, set_as_current=False)
    app.conf.update(
        # A message is only a hint; the state in Redis is the truth. So messages on Redis are not acknowledged. This
        # halves the number of broker commands. Without unacked messages no visibility timeout can run a step twice.
        # A step whose worker dies runs again when its lease ends. Brokers that push (RabbitMQ) need late acknowledgement.
        task_queues=[
            Queue(f"{current.prefix}.{name}", routing_key=f"{current.prefix}.{name}", no_ack=redis_broker)
            for name in QUEUES
        ],
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
        }
        if redis_broker
        else {},
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
        worker_enable_remote_control=current.events,
    )
    return app


APP_SETTINGS = settings()
app = make_app(APP_SETTINGS)
