"""The checks of `midwatch doctor`: each looks at one property of the server or of an agent's schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from midwatch.orchestration.client.presence import WorkerReport
    from midwatch.orchestration.dialects.rules import SchemaDifference

VALKEY_FROM = (9, 1, 1)
"""In older versions closing a TLS client or loading a corrupt stream could corrupt memory (CVE-2026-56684,
CVE-2026-63639)."""

REDIS_FROM = (8, 6, 3)
"""In older versions unblocking a client that waits in BRPOP could overwrite freed memory (CVE-2026-23479). Every Celery
worker waits in BRPOP."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Check:
    """One line of `midwatch doctor`."""

    name: str
    result: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""


def check_schemas(agent: str, differences: Iterable[SchemaDifference]) -> list[Check]:
    """Check an agent's JSON Schemas against its providers' support. Returns one line for each rule of a provider."""
    by_rule: dict[tuple[str, str], list[SchemaDifference]] = {}
    for difference in differences:
        by_rule.setdefault((difference.message.partition(":")[0], difference.rule), []).append(difference)
    checks: list[Check] = []
    for (_, rule), found in by_rule.items():
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        text, rewritten = f"{agent}, {found[0].where}{more}: {found[0].message}", found[0].rewritten
        advice = "" if rewritten else "agent.schema_differences lists every place"
        checks.append(Check(f"schema {rule}", "ok" if rewritten else "warn", text, advice))
    return checks


def check_model_ends(agent: str, ends: Iterable[tuple[str, date]], today: date) -> list[Check]:
    """Check whether the vendors have announced when they will refuse an agent's models."""
    advice = "move to a newer model, and compare the results before"
    return [
        Check("model ends", "fail", f"{agent}: {model} was retired on {day}", advice)
        if day <= today
        else Check("model ends", "warn", f"{agent}: {model} will be retired on {day}", advice)
        for model, day in ends
    ]


def check_credentials(missing: Mapping[str, Sequence[str]]) -> list[Check]:
    """Check that each provider has what it needs. `missing` is variable -> the agents that need it.

    It is a warning, because a machine that only runs tools needs no keys.
    """
    advice = "set it where the workers of the model queue run: without it their jobs become dead letters"
    return [
        Check("credentials", "warn", f"{variable} is not set; needed by {', '.join(agents)}", advice)
        for variable, agents in missing.items()
    ]


def check_workers(workers: Sequence[WorkerReport], needed: Mapping[str, int]) -> list[Check]:
    """Check that each queue has a worker. `needed` is queue -> the number of jobs that wait for it.

    It is a warning, because a worker's health check must not fail for the lack of another worker.
    """
    served = {queue for worker in workers for queue in worker.queues}
    missing = [queue for queue in ("model", "tools", "maintenance") if queue not in served]
    checks = []
    if workers:
        checks.append(Check("workers", "ok", f"{len(workers)}, serving {', '.join(sorted(served))}"))
    for queue in missing:
        jobs = f"; jobs that wait for it: {needed[queue]}" if needed.get(queue) else ""
        advice = f"start one: midwatch worker --queues {queue}"
        checks.append(Check("workers", "warn", f"no worker serves the queue {queue}{jobs}", advice))
    return checks


Info = Mapping[str, object]
"""The reply to INFO: names and values."""


def check_version(info: Info) -> Check:
    """Is the server free of known security holes that affect a fleet?"""
    valkey = info.get("valkey_version")
    name, text, least = ("Valkey", valkey, VALKEY_FROM) if valkey else ("Redis", info.get("redis_version"), REDIS_FROM)
    found = f"{name} {text or 'of unknown version'}"
    numbers = tuple(int(part) for part in str(text or "").split(".")[:3] if part.isdecimal())
    if len(numbers) == 3 and numbers >= least:
        return Check("version", "ok", found)
    wanted = ".".join(map(str, least))
    return Check(
        "version", "warn", found, f"use {name} {wanted} or newer: it fixes memory errors that clients can trigger"
    )


def check_role(info: Info) -> Check:
    """Does the server accept writes?"""
    found = str(info.get("role", "unknown"))
    if found in ("slave", "replica"):
        return Check("role", "fail", "a replica, which refuses writes", "name its primary in MIDWATCH_REDIS_URL")
    return Check("role", "ok", "accepts writes")


def check_persistence(info: Info, snapshots: str | None) -> Check:
    """Do commits survive a restart? `snapshots` is the server's `save` setting, None if it is not readable."""
    for name, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(name, "ok") != "ok":
            return Check(
                "persistence", "fail", f"the last write of the {what} failed", "check the server's disk and log"
            )
    if info.get("aof_enabled") in (1, "1"):
        return Check("persistence", "ok", "append-only file")
    advice = "set `appendonly yes`: jobs are stored in Redis only"
    if snapshots is None:
        return Check("persistence", "warn", "no append-only file; whether it makes snapshots is unknown", advice)
    if snapshots:
        return Check(
            "persistence", "warn", f"snapshots only ({snapshots}): a crash loses all changes since the last one", advice
        )
    return Check("persistence", "fail", "none: a restart loses every job", advice)


def check_eviction(info: Info) -> Check:
    """Does the server keep all jobs when memory is short?"""
    policy, limit_bytes = str(info.get("maxmemory_policy", "unknown")), int(str(info.get("maxmemory", 0)))
    if policy == "noeviction":
        return Check("eviction", "ok", policy)
    advice = "set `maxmemory-policy noeviction`: an evicted key is a lost job"
    if limit_bytes == 0:
        return Check("eviction", "warn", f"{policy}, without effect while maxmemory is 0", advice)
    return Check("eviction", "fail", f"{policy} above {limit_bytes:,} bytes", advice)


def check_data(lost_ms: int, moved_ms: int) -> Check:
    """Have workers noticed that data were lost? The times are 0 if not."""
    if lost_ms:
        advice = "find out why: a flush, a restart without its file. Enqueue the lost jobs again, with the same keys"
        return Check("data", "warn", f"workers noticed at {_clock(lost_ms)} that all data were lost", advice)
    if moved_ms:
        advice = "if it was a failover, its last writes may be missing: look for dead letters of kind record_lost"
        return Check("data", "warn", f"workers noticed another server, or its restart, at {_clock(moved_ms)}", advice)
    return Check("data", "ok", "no worker has noticed a loss in the last 7 days")


def _clock(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def check_access(url: str) -> Check:
    """Is the server protected from other users of the network?"""
    parts = urlsplit(url)
    if parts.scheme == "unix" or parts.hostname in LOOPBACK:
        return Check("access", "ok", "this machine only")
    if not parts.password:
        return Check("access", "warn", "no password in the URL", "require a password: sessions hold users' texts")
    if parts.scheme != "rediss":
        return Check("access", "warn", "password, unencrypted", "use rediss:// unless the network is private")
    return Check("access", "ok", "password, encrypted")


def check_poison(count: int) -> Check:
    """Are there poison messages that a person has not discarded?"""
    if not count:
        return Check("poison", "ok", "no poison messages")
    return Check("poison", "warn", f"{count:,} poison messages", "look with `dlq list`, then `dlq discard --poison`")
