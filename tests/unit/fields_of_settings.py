"""What each setting does: one probe a setting."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock, patch

from midwatch.schemas.limits import Limits
from midwatch.schemas.step import Priority
from midwatch.workers import telemetry
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.celery_app.fleet_app import make_app
from midwatch.workers.process import redrive as redrive_module
from midwatch.workers.process import runtime
from midwatch.workers.process.redrive import RedriveThread
from midwatch.workers.process.steward import Steward
from midwatch.workers.providers import Credentials
from midwatch.workers.settings import Settings
from tests.unit.field_stage import Probe, differs, shown_by

REDIS = "redis://127.0.0.1:7001/0"


def made(field: str, read: Any, one: Any, other: Any) -> Probe:
    """Two values of a setting make two different objects."""
    return differs(lambda value: read(Settings(**{field: value})), one, other)


def address_of(settings: Settings) -> tuple[Any, ...]:
    """Where the client of the state connects to."""
    pool = make_client(settings).store.client.connection_pool
    return pool.connection_kwargs["host"], pool.connection_kwargs["port"]


def does_hand_off(settings: Settings) -> bool:
    """Do commits push the next message?"""
    return make_client(settings).operations._dispatcher.hand_off(Priority.NORMAL) is not None


def wait_of_steward(settings: Settings) -> int:
    """How long a steward waits if nothing is due."""
    steward = Steward.__new__(Steward)
    steward._runtime = type("Fake", (), {"settings": settings})()  # type: ignore[assignment]
    steward._after_outage = False
    with patch.object(Steward, "sweep", lambda self: -1):
        return steward._sweep_and_wait_ms()


def first_wait_of_redriver(settings: Settings) -> float:
    """How long a redriver waits before it first looks at the letters."""
    waits: list[float] = []
    thread = RedriveThread(MagicMock(settings=settings))
    thread._stop = MagicMock(is_set=lambda: bool(waits), wait=lambda seconds: waits.append(seconds) or True)
    with patch.object(redrive_module.random, "uniform", lambda low, high: 1.0):
        thread._run()
    return waits[0]


@contextmanager
def logging_of(settings: Settings) -> Iterator[logging.Logger]:
    """The root logger as these settings configure it. It is restored afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        with patch.object(telemetry.structlog, "configure"):
            telemetry.configure(settings)
        yield root
    finally:
        root.handlers[:], root.level = handlers, level


def level_of(settings: Settings) -> int:
    """The level of the log."""
    with logging_of(settings) as root:
        return root.level


def line_of(settings: Settings) -> str:
    """One line of the log, without its time."""
    with logging_of(settings) as root:
        record = logging.LogRecord("midwatch", logging.INFO, __file__, 1, "Hello.", None, None)
        return root.handlers[0].format(record)[:1]


def credentials_of(settings: Settings) -> Credentials:
    """What the providers get."""
    found: list[Credentials] = []
    with patch.object(runtime, "load_provider", lambda provider, credentials: found.append(credentials)):
        runtime.make_model_loader(settings)("anthropic")
    return found[0]


def agents_of(settings: Settings) -> int:
    """The number of agents that a process loads."""
    return len(list(runtime.import_agents(settings.agents)))


def credential(field: str) -> Probe:
    """A key or an address of a vendor reaches its provider."""
    return made(field, credentials_of, "one", "two")


SETTINGS: Mapping[str, Probe] = {
    "redis_url": made("redis_url", address_of, REDIS, "redis://127.0.0.1:7002/0"),
    "broker_url": made("broker_url", lambda one: make_app(one).conf.broker_url, REDIS, "redis://127.0.0.1:7002/0"),
    "agents": made("agents", agents_of, "midwatch.workers.demo.hello", "midwatch.workers.demo.desk.agents"),
    "prefix": made("prefix", lambda one: make_client(one).operations.keys.prefix, "mw", "other"),
    "hand_off": made("hand_off", does_hand_off, True, False),
    "events": made("events", lambda one: make_app(one).conf.worker_send_task_events, True, False),
    "lease_ms": made("lease_ms", lambda one: make_client(one).store.lease_ms, 3_000, 4_000),
    "session_originals_bytes": made(
        "session_originals_bytes", lambda one: make_client(one).store.originals_bytes, 100_000, 200_000
    ),
    "sweep_ms": made("sweep_ms", wait_of_steward, 500, 900),
    "redrive_ms": made("redrive_ms", first_wait_of_redriver, 500, 900),
    "log_level": made("log_level", level_of, "INFO", "DEBUG"),
    "log_format": made("log_format", line_of, "json", "console"),
    "limits": made(
        "limits", lambda one: one.limits.get("jira", Limits()).requests_per_minute, {}, {"jira": {"rpm": 60}}
    ),
    "anthropic_api_key": credential("anthropic_api_key"),
    "anthropic_base_url": credential("anthropic_base_url"),
    "openai_api_key": credential("openai_api_key"),
    "openai_base_url": credential("openai_base_url"),
    "gemini_api_key": credential("gemini_api_key"),
    "gemini_base_url": credential("gemini_base_url"),
}

LIMITS_OF_A_FILE: Probe = shown_by("tests/contract/test_gate_feedback.py::test_the_newest_limits_win")
