"""The agents of `bench steps`. They do the same work as the bare loop, with the tool inline or as a separate task."""

from __future__ import annotations

import os
import time
from pathlib import Path

from midwatch import Agent, RunLimits, ToolContext, tool
from midwatch.workers import providers
from midwatch.workers.bench.steps.bare_loop import search_tickets as search

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
    """Write the idempotency key to a file, slowly. A key that is already in the file is not written again."""
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
