"""Simulated time for the coordinator's scripts. They are the shipped scripts; only the reading of the clock is replaced."""

from __future__ import annotations

from typing import Any, cast

import redis
from redis.client import Pipeline

from midwatch.orchestration.admission.functions import COORDINATOR, SHARED, FunctionLibrary
from midwatch.orchestration.errors import ConfigError
from midwatch.workers.bench.storm_simulated.simulation import Simulation

CLOCK = "redis.call('TIME')"
"""How the coordinator reads the time. The reply is seconds and microseconds."""

FILES_WITH_CLOCK = ("prelude", "due")
"""The files that read the time."""

SIMULATED_CLOCK = "{ 0, NOW }"
"""The replacement. The client sends the simulated microseconds as the last argument of every call."""

CALLS = ("FCALL", "EVALSHA")
BEGIN_US = 1_800_000_000_000_000
"""Start of the simulated time. It has as many digits as a real time of today."""


class SimulatedLibrary(FunctionLibrary):
    """The coordinator's library with the simulated clock."""

    def read(self, name: str) -> str:
        """Return the shipped file with its clock replaced."""
        text = super().read(name)
        if text.count(CLOCK) != (name in FILES_WITH_CLOCK):
            raise ConfigError(
                f"{name}.lua reads the time {text.count(CLOCK)} times; expected: once in {FILES_WITH_CLOCK}, else never"
            )
        simulated = text.replace(CLOCK, SIMULATED_CLOCK)
        return simulated if name in SHARED else f"NOW = ARGV[#ARGV]\n{simulated}"


SIMULATED = SimulatedLibrary(COORDINATOR.package, f"local NOW\n{COORDINATOR.header}", COORDINATOR.bare)


class _SimulatedPipeline(Pipeline):
    simulation: Simulation

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return super().execute_command(*_add_time(args, self.simulation), **options)  # type: ignore[no-untyped-call]


class SimulatedClient(redis.Redis):
    """A client that adds the simulated time to every call of the library."""

    simulation: Simulation

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Run one command."""
        return super().execute_command(*_add_time(args, self.simulation), **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline with the simulated time."""
        pipe = _SimulatedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.simulation = self.simulation
        return pipe


def connect_simulated(redis_url: str, simulation: Simulation) -> SimulatedClient:
    """Return a client that uses the simulated time."""
    client = cast(SimulatedClient, SimulatedClient.from_url(redis_url, single_connection_client=True))
    client.simulation = simulation
    return client


def _add_time(command: tuple[Any, ...], simulation: Simulation) -> tuple[Any, ...]:
    return (*command, BEGIN_US + round(simulation.now_s * 1_000_000)) if command[0] in CALLS else command
