"""The agents of `bench steps`: the same work as the bare loop's, the tool inline or as its own task."""

from __future__ import annotations

import os
import time
from pathlib import Path

from midwatch import Agent, RunLimits, ToolContext, tool
from midwatch.workers import providers
from midwatch.workers.bench.steps.bare import search_tickets as search

if "bench" not in providers.names():
    providers.register("bench", "midwatch.workers.bench.steps.zero_model:connect")


@tool(idempotent=True, inline=True)
def search_inline(query: str, status: str) -> str:
    """Search support tickets by keyword and status."""
    return search(query, status)


@tool(idempotent=True)
def search_task(query: str, status: str) -> str:
    """Search support tickets by keyword and status."""
    return search(query, status)


@tool(idempotent=True)
def record_effect(context: ToolContext, query: str, status: str) -> str:
    """Do something that leaves a trace outside, slowly; a key that was seen before does nothing."""
    path = Path(os.environ["BENCH_EFFECTS"])
    time.sleep(0.15)
    if not path.exists() or context.idempotency_key not in path.read_text():
        with path.open("a") as file:
            file.write(f"{context.idempotency_key}\n")
    time.sleep(0.15)
    return search(query, status)


LIMITS = RunLimits(max_steps=10_000)
inline = Agent("bench-inline", "bench:zero", "You search tickets.", [search_inline], limits=LIMITS)
task = Agent("bench-task", "bench:zero", "You search tickets.", [search_task], limits=LIMITS)
slow = Agent("bench-slow", "bench:slow", "You search tickets.", [record_effect], limits=LIMITS)
