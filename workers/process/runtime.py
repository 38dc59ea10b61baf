"""The composition root: connects a process's settings, agents, providers and store. Built once per process."""

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
from midwatch.orchestration.steps.services import Services
from midwatch.orchestration.store.damage.data_watch import DataWatch
from midwatch.workers.celery_app.dispatch import make_client
from midwatch.workers.celery_app.flower_events import JobEvents
from midwatch.workers.process.isolation.run_alone import Isolation
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
        if ms > 0:  # time.sleep(0) would still yield the CPU
            time.sleep(ms / 1000)


class Runtime:
    """The objects that one worker process keeps. Connections and clients are made once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.worker = f"{socket.gethostname()}.{os.getpid()}"
        self.client: Client = make_client(settings)
        self.agents: Registry = import_agents(settings.agents)
        clock = SystemClock()
        self.leases = LeaseKeeper(self.client.store.renew, clock, settings.lease_ms)
        self.runner = StepRunner(
            Services(
                store=self.client.store,
                agents=self.agents,
                model=make_model_loader(settings),
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
                isolate=Isolation(),
            )
        )
        self.runner.services.request_compaction = lambda ref: self.client.operations.publish((ref,))
        self.data_watch = DataWatch(self.client.store.client, self.client.operations.keys)
        self.runner.services.note_begin = self.data_watch.note_begin
        self.runner.services.look_at_data = self.data_watch.look
        if settings.events:
            self.runner.services.observe = JobEvents().observe


@cache
def import_agents(specs: tuple[str, ...]) -> Registry:
    """Import the agents of `MIDWATCH_AGENTS` once.

    The main process does this before it forks, so an error in an agent ends the start.
    """
    return load_agents(specs)


def make_model_loader(settings: Settings) -> Callable[[str], Model]:
    """Return a function from a provider's name to its model port, with the credentials of the settings."""
    credentials = Credentials.from_settings(settings)
    return lambda provider: load_provider(provider, credentials)


_lock = threading.Lock()
_runtimes: dict[int, Runtime] = {}


def runtime() -> Runtime:
    """Return this process's runtime. A forked child makes a new one: connections and threads don't survive a fork."""
    pid = os.getpid()
    current = _runtimes.get(pid)
    if current is None:
        with _lock:
            current = _runtimes.get(pid)
            if current is None:
                _runtimes.clear()
                current = _runtimes[pid] = Runtime(settings())
    return current
