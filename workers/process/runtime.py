"""The composition root: policies wired to machinery, once per process."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from functools import cache

from midwatch.orchestration.admission.redis_gate import RedisGate
from midwatch.orchestration.agents.registry import Registry, load_agents
from midwatch.orchestration.client.client import Client
from midwatch.orchestration.ports import Model
from midwatch.orchestration.steps.leases import LeaseKeeper
from midwatch.orchestration.steps.runner import StepRunner
from midwatch.workers.celery_app.dispatch import client_of
from midwatch.workers.celery_app.flower_events import JobEvents
from midwatch.workers.providers import Credentials
from midwatch.workers.providers import load as load_provider
from midwatch.workers.settings import Settings, settings


class SystemClock:
    """`ports.Clock` of a real process."""

    def monotonic_ms(self) -> int:
        """See `ports.Clock`."""
        return time.monotonic_ns() // 1_000_000

    def sleep_ms(self, ms: int) -> None:
        """See `ports.Clock`."""
        if ms > 0:  # a sleep of nothing gives the processor away all the same
            time.sleep(ms / 1000)


class Runtime:
    """Everything a worker process holds: connections and clients are made once and kept."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker = f"{socket.gethostname()}.{os.getpid()}"
        self.client: Client = client_of(settings)
        self.agents: Registry = agents(settings.agents)
        clock = SystemClock()
        self.leases = LeaseKeeper(self.client.store.renew, clock, settings.lease_ms)
        self.runner = StepRunner(
            store=self.client.store,
            agents=self.agents,
            model=models(settings),
            gate=RedisGate(
                self.client.store.client,
                self.client.operations.keys,
                settings.limits,
                settings.limits_version,
                sleep_ms=clock.sleep_ms,
            ),
            leases=self.leases,
            clock=clock,
            worker=self.worker,
        )
        self.runner.compact_beside = lambda ref: self.client.operations.publish((ref,))
        if settings.events:
            self.runner.observe = JobEvents().observe


@cache
def agents(specs: tuple[str, ...]) -> Registry:
    """The agents of `MIDWATCH_AGENTS`, imported once: in the main process before it forks, where an error ends the boot."""
    return load_agents(specs)


def models(settings: Settings) -> Callable[[str], Model]:
    """The provider of a name, its client kept."""
    credentials = Credentials(
        anthropic_api_key=_secret(settings.anthropic_api_key),
        anthropic_base_url=settings.anthropic_base_url,
        openai_api_key=_secret(settings.openai_api_key),
        openai_base_url=settings.openai_base_url,
        gemini_api_key=_secret(settings.gemini_api_key),
        gemini_base_url=settings.gemini_base_url,
    )
    return lambda provider: load_provider(provider, credentials)


def _secret(value: object) -> str | None:
    reveal = getattr(value, "get_secret_value", None)
    return reveal() if reveal else None


_lock = threading.Lock()
_runtimes: dict[int, Runtime] = {}


def runtime() -> Runtime:
    """This process's runtime. A forked child makes its own: connections and threads don't survive a fork."""
    pid = os.getpid()
    current = _runtimes.get(pid)
    if current is None:
        with _lock:
            current = _runtimes.get(pid)
            if current is None:
                _runtimes.clear()
                current = _runtimes[pid] = Runtime(settings())
    return current
