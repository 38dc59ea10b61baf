"""The storm simulator: a fleet and a failing provider in simulated time, with the real coordinator.

Thousands of calls and minutes of outage take seconds here, and the same seed gives the same figures. Provider, workers and
clock are simulated. The shipped coordinator makes every decision, on a real server.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.keyspace import Keyspace
from midwatch.schemas.limits import Limits
from midwatch.workers.bench.storm_simulated.clockwork import connect_simulated
from midwatch.workers.bench.storm_simulated.figures import Figures, Path, Progress, compute_figures, medians
from midwatch.workers.bench.storm_simulated.fleet import CoordinatedFleet
from midwatch.workers.bench.storm_simulated.provider import Provider
from midwatch.workers.bench.storm_simulated.scenarios import SCENARIOS, Scenario
from midwatch.workers.bench.storm_simulated.simulation import Simulation, Slots
from midwatch.workers.bench.storm_simulated.strategies import STRATEGIES, NaiveFleet
from midwatch.workers.bench.storm_simulated.targets import drain_bound_s, find_missed
from midwatch.workers.local.embedded_server import EmbeddedServer

__all__ = ["COORDINATED", "SCENARIOS", "STRATEGIES", "Figures", "run_simulation", "simulate"]

COORDINATED = {"midwatch": 1.0, "midwatch-2x": 2.0}
"""Name -> factor of the limit: the product, and the product with a limit that is set twice too high."""


def run_simulation(
    *,
    scenarios: Sequence[str] = (),
    seeds: int = 3,
    strategies: Sequence[str] = (),
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run every scenario with every strategy. Empty sequences mean all. Figures are medians over the seeds.

    Returns:
        `rows`, one for each scenario and strategy, with figures. Rows of the product also have the missed targets.

    Raises:
        ConfigError: a scenario or strategy is unknown.

    """
    chosen = [_look_up("scenario", name, SCENARIOS) for name in scenarios or SCENARIOS]
    known = [*COORDINATED, *STRATEGIES]
    names = [_look_up("strategy", name, dict.fromkeys(known, name)) for name in strategies or known]
    rows = []
    with EmbeddedServer(append_only=None) as server:
        for scenario in chosen:
            for name in names:
                say(f"{scenario.name}: {name}")
                runs = [simulate(scenario, name, seed, server.url) for seed in range(seeds)]
                rows.append(make_row(scenario, name, medians(runs)))
    return {"rows": rows, "seeds": seeds}


def simulate(scenario: Scenario, strategy: str, seed: int, redis_url: str, limits: Limits | None = None) -> Figures:
    """Simulate one run. The product uses `limits` (None: its defaults) with the scenario's rate."""
    simulation, rng, progress = Simulation(), random.Random(seed), Progress()
    provider, slots = Provider(scenario.provider, simulation, rng), Slots(scenario.load.slots)
    keys = Keyspace(f"storm-{secrets.token_hex(4)}")
    with closing(connect_simulated(redis_url, simulation)) as client:
        fleet: NaiveFleet | CoordinatedFleet
        if strategy in COORDINATED:
            rate = {"requests_per_minute": scenario.provider.limit_per_s * 60 * COORDINATED[strategy]}
            fixed = (limits or Limits()).model_copy(update=rate)
            fleet = CoordinatedFleet(scenario.load, simulation, provider, slots, progress, rng, client, keys, fixed)
        else:
            fleet = NaiveFleet(STRATEGIES[strategy], scenario.load, simulation, provider, slots, progress, rng)
        _start(scenario, simulation, fleet, progress, rng)
        simulation.run(scenario.load.within_s)
        if strategy in COORDINATED:
            client.delete(*client.scan_iter(match=f"{keys.prefix}:*", count=1_000))
    return compute_figures(scenario, provider, progress)


def _start(
    scenario: Scenario,
    simulation: Simulation,
    fleet: NaiveFleet | CoordinatedFleet,
    progress: Progress,
    rng: random.Random,
) -> None:
    def count_ended(succeeded: bool) -> None:
        progress.lineages_ended_s.append(simulation.now_s)
        progress.lineages_lost += not succeeded
        if len(progress.lineages_ended_s) == scenario.load.lineages:
            simulation.stop()

    def start(path: Path) -> None:
        simulation.start(fleet.run_subtree(path), count_ended)

    for lineage in range(scenario.load.lineages):
        simulation.call_later(rng.uniform(0, scenario.load.start_within_s), start, (lineage,))


def make_row(scenario: Scenario, strategy: str, figures: Figures) -> dict[str, Any]:
    """Make one row of the result. An unfinished drain is None."""
    values = {**asdict(figures), "drain_bound_s": drain_bound_s(figures)}
    rounded = {name: round(value, 3) if value < float("inf") else None for name, value in values.items()}
    targets = {}
    if strategy in COORDINATED:
        targets["missed"] = find_missed(scenario, figures, limit_is_right=COORDINATED[strategy] == 1)
    return {"scenario": scenario.name, "strategy": strategy, **rounded, **targets}


def _look_up(what: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise ConfigError(f"no {what} {name!r}; there are: {', '.join(known)}")
    return known[name]
