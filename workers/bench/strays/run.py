"""`midwatch bench strays`: how much of a downstream's capacity a fleet uses when 429s come by chance, or from an unnamed limit.

The shipped coordinator makes every decision, in simulated time. Calls arrive one by one, and each is a separate job.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from midwatch.orchestration.keyspace import Keyspace
from midwatch.schemas.failure import FailureKind
from midwatch.schemas.limits import Limits
from midwatch.workers.bench.storm_simulated.clockwork import connect_simulated
from midwatch.workers.bench.storm_simulated.figures import Progress
from midwatch.workers.bench.storm_simulated.fleet import CoordinatedFleet
from midwatch.workers.bench.storm_simulated.scenarios import Load
from midwatch.workers.bench.storm_simulated.simulation import Simulation, Slots
from midwatch.workers.bench.strays.cells import Cell, make_cells
from midwatch.workers.bench.strays.downstream import StrayDownstream
from midwatch.workers.local.embedded_server import EmbeddedServer

SLOTS = 100_000
"""No call waits for a worker."""


def run(
    *,
    seconds: float = 300.0,
    seed: int = 0,
    cells: Sequence[Cell] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Simulate every cell for this many seconds. Returns one row for each cell."""
    rows = []
    with EmbeddedServer(append_only=None) as server:
        for cell in make_cells() if cells is None else cells:
            say(f"{cell.offered:,.0f} a minute, {cell.share:.1%} strays, limit {cell.limit or '-'}")
            rows.append(simulate(cell, seed, server.url, seconds))
    return {"rows": rows, "seconds": seconds, "seed": seed}


def simulate(cell: Cell, seed: int, redis_url: str, seconds: float) -> dict[str, Any]:
    """Simulate one cell. Returns its row.

    `used` is the share of the possible calls that were answered, `refused` the 429s for each answer, and `guess` the limit
    a minute that the coordinator had guessed at the end.
    """
    simulation, rng, progress = Simulation(), random.Random(seed), Progress()
    downstream = StrayDownstream(cell, simulation, rng)
    keys = Keyspace(f"strays-{secrets.token_hex(4)}")
    with closing(connect_simulated(redis_url, simulation)) as client:
        fleet = CoordinatedFleet(
            Load(lineages=1, children=0, depth=0), simulation, downstream, Slots(SLOTS), progress, rng, client, keys,
            Limits(requests_per_minute=cell.told),
        )  # fmt: skip
        arrivals = _arrive(cell, simulation, fleet, rng, seconds)
        simulation.run(seconds)
        state = fleet.board.status()[0]
        client.delete(*client.scan_iter(match=f"{keys.prefix}:*", count=1_000))
    answered = len(progress.done_s)
    refused = downstream.answers[FailureKind.RATE_LIMITED]
    possible = min(arrivals, cell.most(seconds))
    return {
        "offered": cell.offered, "strays": cell.share, "limit": cell.limit, "burst_s": cell.burst_s if cell.limit else None,
        "told": cell.told, "used": round(answered / possible, 3), "refused": round(refused / max(1, answered), 4),
        "guess": round(state.limits["requests"]) if state.guessed else None,
    }  # fmt: skip


def _arrive(cell: Cell, simulation: Simulation, fleet: CoordinatedFleet, rng: random.Random, seconds: float) -> int:
    """Let calls arrive at random times. Returns how many there are."""
    count, at_s = 0, rng.expovariate(cell.offered / 60)
    while at_s < seconds:
        simulation.call_later(at_s, lambda number=count: simulation.start(fleet.run_subtree((number,))))
        count, at_s = count + 1, at_s + rng.expovariate(cell.offered / 60)
    return count
