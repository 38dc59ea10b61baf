"""Messages that could not become a step: kept raw and bounded for a person to look at, never delivered again."""

from __future__ import annotations

import os
import socket
import time

import structlog

from orchestration.jobs import new_id
from orchestration.keyspace import KEPT_S, Keyspace
from orchestration.store.scripts import UNAVAILABLE
from schemas.deadletter import PoisonRecord

log = structlog.get_logger("midwatch.poison")

KEPT_RECORDS = 1_000
KEPT_BYTES = 4_000


def record(queue: str, body: bytes | str, reason: str) -> None:
    """Keep the message where `dlq list` shows it. A failure to do so is logged: the message is in the log then, by size only."""
    from workers.runtime import runtime

    raw = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")
    entry = PoisonRecord(
        poison_id=new_id("poison"),
        queue=queue,
        reason=reason[:300],
        body=raw[:KEPT_BYTES].decode("utf-8", "backslashreplace"),
        size_bytes=len(raw),
        seen_ms=time.time_ns() // 1_000_000,
        worker=f"{socket.gethostname()}.{os.getpid()}",
    )
    log.error(
        "message.poison", queue=queue, reason=entry.reason, size_bytes=entry.size_bytes, poison_id=entry.poison_id
    )
    current = runtime()
    key = Keyspace(current.settings.prefix).poison()
    try:
        pipe = current.client.store.client.pipeline()
        pipe.lpush(key, entry.model_dump_json())
        pipe.ltrim(key, 0, KEPT_RECORDS - 1)
        pipe.expire(key, KEPT_S)
        pipe.execute()
    except UNAVAILABLE as error:
        log.error("message.poison_not_kept", poison_id=entry.poison_id, error=str(error)[:200])
