"""A web application with its own Celery app. It enqueues a job, and compares its process before and after.

Run as `python -m tests.functional.producer_snapshot`. It prints what has changed, as JSON.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from contextlib import suppress
from typing import Any

import celery
import kombu.compression
import kombu.pools
import kombu.serialization
import structlog
from celery import Celery, _state, signals
from celery.utils.dispatch import Signal
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis

web = Celery("web", broker=os.environ["WEB_BROKER"])
web.conf.update(broker_pool_limit=37, task_always_eager=False)


@web.task
def pay() -> None:
    """A task of the web application."""


def take_snapshot() -> dict[str, object]:
    """Return what belongs to the process and not to Midwatch."""
    return {
        "kombu.aliases": dict(TRANSPORT_ALIASES),
        "kombu.transports": [str(Connection(f"{scheme}://h").get_transport_cls()) for scheme in ("redis", "rediss")],
        "kombu.patched": [(cls.__name__, name, id(value)) for cls in _classes() for name, value in vars(cls).items()],
        "kombu.pools": [kombu.pools.get_limit(), len(kombu.pools.connections), len(kombu.pools.producers)],
        "kombu.serializers": [
            sorted(kombu.serialization.registry._encoders),
            sorted(kombu.serialization.registry._decoders),
            sorted(kombu.serialization.registry._disabled_content_types),
            sorted(kombu.compression.encoders()),
        ],
        "celery.current_app": [celery.current_app.main, _state.default_app and _state.default_app.main],
        "celery.signals": {name: len(found.receivers) for name, found in vars(signals).items() if _is_signal(found)},
        "celery.web": [web.conf.broker_url, web.conf.broker_pool_limit, sorted(web.tasks), web.pool.limit],
        "logging": [
            logging.root.level,
            len(logging.root.handlers),
            logging.root.manager.disable,
            len(logging.root.filters),
        ],
        "logging.loggers": {
            name: [logger.level, handlers, logger.propagate, logger.disabled]
            for name, logger in logging.root.manager.loggerDict.items()
            if isinstance(logger, logging.Logger)
            if (handlers := _handlers(logger)) or logger.level or logger.disabled or not logger.propagate
        },
        "logging.classes": [str(logging.getLoggerClass()), str(logging.getLogRecordFactory())],
        "structlog": structlog.is_configured(),
        "warnings": [str(warnings.showwarning), [str(found) for found in warnings.filters]],
        "signals": {number.name: str(signal.getsignal(number)) for number in signal.Signals},
        "hooks": [str(sys.excepthook), str(threading.excepthook), str(sys.unraisablehook), str(sys.displayhook)],
        "path": [*sys.path, os.getcwd()],
        "environment": dict(os.environ),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "limits": [sys.getrecursionlimit(), socket.getdefaulttimeout(), gc.get_threshold(), gc.isenabled()],
    }


def _handlers(logger: logging.Logger) -> list[str]:
    """Return the handlers that write. Each module of kombu adds one that does not."""
    return [str(handler) for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]


def _classes() -> tuple[type, ...]:
    return (kombu_redis.Channel, kombu_redis.Transport, Connection, Celery, logging.Logger)


def _is_signal(value: Any) -> bool:
    return isinstance(value, Signal)


def find_changes(before: dict[str, object]) -> dict[str, list[object]]:
    """Compare the process with a snapshot."""
    after = take_snapshot()
    return {name: [before[name], after[name]] for name in before if before[name] != after[name]}


def main() -> None:
    """Import, enqueue and run, with a comparison after each."""
    pay.delay()
    before = take_snapshot()
    changed: dict[str, object] = {}
    from midwatch import Agent

    changed["import"] = find_changes(before)
    desk = Agent("desk", "claude-sonnet-4-6", "You work.")
    changed["agent"] = find_changes(before)
    handle = desk.enqueue("hello")
    changed["enqueue"] = find_changes(before)
    with suppress(TimeoutError):
        desk.run("hello", timeout_s=0.2)
    changed["run"] = find_changes(before)
    pay.delay()  # still to the web application's broker
    print(json.dumps({"job": handle.id, "changed": {when: what for when, what in changed.items() if what}}))


if __name__ == "__main__":
    main()
