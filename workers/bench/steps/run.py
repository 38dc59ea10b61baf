"""`midwatch bench steps`: the cost of a step, compared with the bare Celery loop in the same run."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from midwatch.workers.bench.steps.baseline import BaselineResult, BaselineRun
from midwatch.workers.bench.steps.fleet_run import FleetResult, FleetRun
from midwatch.workers.local.embedded_server import EmbeddedServer

SHAPES = ((200, 10), (10, 200))


def run(*, rounds: int = 3, quick: bool = False, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Run baseline and product in turn on one server. Every figure is the median of its rounds.

    Returns:
        `rows`, one for each kind of tool and number of steps, and the machine's load.
    """
    shapes = ((40, 10),) if quick else SHAPES
    rows = []
    with EmbeddedServer(append_only="everysec") as server:
        for tool in ("inline", "task"):
            for jobs, steps in shapes:
                base: list[BaselineResult] = []
                ours: list[FleetResult] = []
                for n in range(1 if quick else rounds):
                    say(f"{tool}, {jobs} jobs x {steps} steps, round {n + 1}: bare Celery")
                    base.append(BaselineRun(server, jobs, steps).run())
                    say(f"{tool}, {jobs} jobs x {steps} steps, round {n + 1}: Midwatch")
                    ours.append(FleetRun(server, jobs, steps, tool).run())
                rows.append(make_row(jobs, steps, tool, base, ours))
    return {"rows": rows, "load_1m": os.getloadavg()[0], "cpus": os.cpu_count()}


def median_of(results: Sequence[FleetResult]) -> FleetResult:
    """Return the median of each field."""
    return FleetResult(**{name: statistics.median(getattr(r, name) for r in results) for name in asdict(results[0])})


def make_row(
    jobs: int, steps: int, tool: str, base: Sequence[BaselineResult], ours: Sequence[FleetResult]
) -> dict[str, Any]:
    """Make one row. A ratio is the median of the ratios of all rounds, so a change of the machine's speed cancels out."""
    mine = median_of(ours)
    return {
        "jobs": jobs,
        "steps_per_job": steps,
        "tool": tool,
        "steps_per_s": round(mine.steps_per_s, 1),
        "baseline_steps_per_s": round(statistics.median(b.steps_per_s for b in base), 1),
        "ratio": round(statistics.median(o.steps_per_s / b.steps_per_s for o, b in zip(ours, base, strict=True)), 3),
        "cpu_ms_per_step": round(mine.cpu_ms_per_step, 3),
        "baseline_cpu_ms_per_step": round(statistics.median(b.cpu_ms_per_step for b in base), 3),
        "cpu_ratio": round(
            statistics.median(o.cpu_ms_per_step / b.cpu_ms_per_step for o, b in zip(ours, base, strict=True)), 3
        ),
        "server_cpu_ms_per_step": round(mine.server_cpu_ms_per_step, 3),
        "baseline_server_cpu_ms_per_step": round(statistics.median(b.server_cpu_ms_per_step for b in base), 3),
        "p50_ms": round(mine.p50_ms, 2),
        "p99_ms": round(mine.p99_ms, 2),
        "baseline_p50_ms": round(statistics.median(b.p50_ms for b in base), 2),
        "baseline_p99_ms": round(statistics.median(b.p99_ms for b in base), 2),
        "redis_commands_per_step": round(mine.redis_commands_per_step, 1),
        "round_trips_per_step": round(mine.round_trips_per_step, 2),
        "kb_per_step": round(mine.kb_per_step, 2),
        "growth_10_to_200": round(mine.growth, 3) if steps >= 200 else None,
    }
