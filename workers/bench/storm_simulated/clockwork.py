"""Simulated time for the coordinator's scripts: they are the shipped ones, but for where they read the clock."""

from __future__ import annotations

from typing import Any, cast

import redis
from redis.client import Pipeline

from midwatch.orchestration.admission.functions import COORDINATOR, SHARED, FunctionLibrary
from midwatch.orchestration.errors import ConfigError
from midwatch.workers.bench.storm_simulated.simulation import Simulation

CLOCK = "redis.call('TIME')"
"""How the coordinator asks for the time. It answers seconds and microseconds."""

ASKING = ("prelude", "due")
"""The files that do."""

SAID = "{ 0, NOW }"
"""What they read instead: the client says the microseconds, as the last argument of every call."""

CALLS = ("FCALL", "EVALSHA")
BEGIN_US = 1_800_000_000_000_000
"""When the simulated time begins: today's times have as many digits."""


class SimulatedLibrary(FunctionLibrary):
    """The coordinator's library with a clock that is told."""

    def read(self, name: str) -> str:
        """A file as it is shipped, but for where it asks for the time."""
        text = super().read(name)
        if text.count(CLOCK) != (name in ASKING):
            raise ConfigError(
                f"{name}.lua asks for the time {text.count(CLOCK)} times; expected: once in {ASKING}, else never"
            )
        said = text.replace(CLOCK, SAID)
        return said if name in SHARED else f"NOW = ARGV[#ARGV]\n{said}"


SIMULATED = SimulatedLibrary(COORDINATOR.package, f"local NOW\n{COORDINATOR.header}", COORDINATOR.bare)


class _SimulatedPipeline(Pipeline):
    simulation: Simulation

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return super().execute_command(*_timed(args, self.simulation), **options)  # type: ignore[no-untyped-call]


class SimulatedClient(redis.Redis):
    """A client that says the simulated time with every call of the library."""

    simulation: Simulation

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """One command."""
        return super().execute_command(*_timed(args, self.simulation), **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Commands in one round trip."""
        pipe = _SimulatedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.simulation = self.simulation
        return pipe


def connect_simulated(redis_url: str, simulation: Simulation) -> SimulatedClient:
    """A client whose server lives in the simulated time."""
    client = cast(SimulatedClient, SimulatedClient.from_url(redis_url, single_connection_client=True))
    client.simulation = simulation
    return client


def _timed(command: tuple[Any, ...], simulation: Simulation) -> tuple[Any, ...]:
    return (*command, BEGIN_US + round(simulation.now_s * 1_000_000)) if command[0] in CALLS else command
