"""`midwatch bench context`: replay recorded conversations in a session with a budget, and check every call."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.ports import Model
from midwatch.workers.bench.context.counting import TokenCounter, token_counter
from midwatch.workers.bench.context.needed import Tally
from midwatch.workers.bench.context.peers import PEERS, measure_peer
from midwatch.workers.bench.context.per_session import summarize_sessions
from midwatch.workers.bench.context.recorded_model import SUMMARY
from midwatch.workers.bench.context.replay import Replay, ReplayResult, Summarizer
from midwatch.workers.bench.context.transcripts import PROVIDER, Transcript, load
from midwatch.workers.bench.context.windows import Budget
from midwatch.workers.bench.measure import percentile
from midwatch.workers.local.embedded_server import EmbeddedServer
from midwatch.workers.redis_connection import connect_redis

RESERVE_TOKENS = 8_000
"""The default of `ContextBudget`."""

LEAST_TOKENS = 1_000
"""The smallest `ContextBudget`."""


def run(
    transcript: Path,
    *,
    max_tokens: int | None = None,
    fill: float | None = None,
    summarizer: str = "extractive",
    summary_model: str | None = None,
    provider: Model | None = None,
    reserve_tokens: int | None = None,
    only: str | None = None,
    peers: bool = True,
    counter: TokenCounter | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Replay every record of a file. Each record has a session on an empty server.

    Args:
        transcript: JSON or JSON Lines, `.gz` or not; see `transcripts`.
        max_tokens: budget of a call, with its answer.
        fill: alternative to `max_tokens`: the percentage of its budget that the whole record would fill.
        summarizer: `extractive`, or `model`.
        summary_model: `provider:model` that summarizes. Without it, `model` uses a stand-in, and the result says so.
        provider: model port for `summary_model`.
        reserve_tokens: part of the budget for the answer. Default: 8,000, and at most a quarter.
        only: use only the record with this id, or this number (from 1).
        peers: also trim the same conversations with other methods.
        counter: counts tokens. Default: o200k, or bytes/4 if no tokenizer is installed.
        say: called with progress messages.

    Returns:
        The totals over all calls, `per_session` (see there), `rows` (one for each call), `transcripts`
        (totals of each) and `peers`.

    Raises:
        ConfigError: the file can't be read, or an argument is invalid.
        StoreUnavailable: the embedded server did not start.

    """
    counter, writer = counter or token_counter(), _summarizer(summarizer, summary_model, provider)
    plan: list[tuple[Transcript, int, Budget]] = []
    for record in _choose(load(transcript), only):
        whole_tokens = counter.fixed(record.system, record.tools) + counter.messages(record.messages)
        plan.append((record, whole_tokens, _budget(max_tokens, fill, reserve_tokens, whole_tokens)))
    replayed: list[ReplayResult] = []
    with EmbeddedServer(append_only=None) as server, connect_redis(server.url) as client:
        for record, whole_tokens, budget in plan:
            say(f"{record.name}: {len(record.messages)} messages, {whole_tokens:,} tokens")
            client.flushdb(asynchronous=False)
            replayed.append(Replay(client, record, budget, counter, writer).run())
    stand_in = " (a stand-in: no summary_model was named)" if summarizer == "model" and not summary_model else ""
    pairs = [(record, budget) for record, _, budget in plan]
    sessions = [
        {"name": record.name, "whole_tokens": whole_tokens, **asdict(budget), **_totals([one])}
        for (record, whole_tokens, budget), one in zip(plan, replayed, strict=True)
    ]
    return {
        **_totals(replayed),
        "counted_with": counter.name,
        "summarizer": f"{summarizer}{stand_in}",
        "per_session": summarize_sessions(transcript, sessions),
        "transcripts": sessions,
        "peers": [measure_peer(peer, pairs, counter, say) for peer in PEERS] if peers else [],
        "rows": [
            {"transcript": record.name, **row.as_json()}
            for (record, _), one in zip(pairs, replayed, strict=True)
            for row in one.rows
        ],
    }


def _budget(max_tokens: int | None, fill: float | None, reserve_tokens: int | None, whole_tokens: int) -> Budget:
    """Return the given budget, or the budget that the whole conversation and its answer would fill by `fill` percent."""
    if (max_tokens is None) == (fill is None) or (fill is not None and fill <= 0):
        raise ConfigError(f"expected either max_tokens or a fill above 0, got max_tokens={max_tokens}, fill={fill}")
    reserve = RESERVE_TOKENS if reserve_tokens is None else reserve_tokens
    if fill is not None:
        reserve = reserve if reserve_tokens is not None else min(reserve, whole_tokens // 4)
        return Budget(max(LEAST_TOKENS, math.ceil((whole_tokens + reserve) * 100 / fill)), reserve)
    most = max_tokens or 0
    if most < LEAST_TOKENS:
        raise ConfigError(f"max_tokens={most}: expected at least {LEAST_TOKENS:,}; a session can't work with less")
    return Budget(most, reserve if reserve_tokens is not None else min(reserve, most // 4))


def _summarizer(kind: str, model: str | None, provider: Model | None) -> Summarizer:
    if kind not in ("extractive", "model"):
        raise ConfigError(f"summarizer={kind!r}: expected 'extractive' or 'model'")
    if kind == "extractive":
        if model:
            raise ConfigError(f"summary_model={model!r} needs summarizer='model'; give both or neither")
        return Summarizer()
    return Summarizer(model or f"{PROVIDER}:{SUMMARY}", provider)


def _choose(records: Sequence[Transcript], only: str | None) -> list[Transcript]:
    chosen = [record for number, record in enumerate(records, 1) if only in (None, record.name, str(number))]
    if not chosen:
        names = ", ".join(record.name for record in records[:20])
        raise ConfigError(f"only={only!r}: no such record; expected 1 to {len(records)}, or one of: {names}")
    return chosen


def _totals(results: Sequence[ReplayResult]) -> dict[str, Any]:
    rows = [row for one in results for row in one.rows]
    took_ms = [row.ms for row in rows]
    facts, said = sum((row.facts for row in rows), Tally()), sum((row.said for row in rows), Tally())
    tokens = sum(row.tokens for row in rows)
    return {
        "calls": len(rows),
        "over_budget": sum(row.over_budget for row in rows),
        "split_groups": sum(row.split_groups for row in rows),
        "goal_lost": sum(not row.goal_intact for row in rows),
        "system_lost": sum(not row.system_intact for row in rows),
        "facts_named": facts.named,
        "facts_needed": facts.needed,
        "facts_kept": facts.kept,
        "facts_at_hand": facts.at_hand,
        "kept_percent": round(100 * facts.kept / facts.needed, 1) if facts.needed else None,
        "said_needed": said.needed,
        "said_kept": said.kept,
        "cached_share": round(sum(row.cached_tokens for row in rows) / tokens, 3) if tokens else None,
        "compactions": sum(one.rows[-1].compactions for one in results if one.rows),
        "redis_peak_bytes": max((one.redis_peak_bytes for one in results), default=0),
        "ms_per_call_p50": round(percentile(took_ms, 0.50), 3) if took_ms else None,
        "ms_per_call_p99": round(percentile(took_ms, 0.99), 3) if took_ms else None,
        "worker_s": round(sum(took_ms) / 1_000, 2),
        "unplayed_turns": sum(one.unused_turns for one in results),
        "endings": [ending for one in results for ending in one.endings],
    }
