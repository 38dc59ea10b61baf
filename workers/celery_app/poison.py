"""The poison list: messages that can't become a step. A person can read them; they are never delivered again.

The list keeps a bounded number of raw messages.
"""

from __future__ import annotations

import json
import os
import socket
import time

import redis
import structlog

from midwatch.orchestration.client.new_job import new_id
from midwatch.orchestration.keyspace import KEPT_S
from midwatch.schemas.deadletter import PoisonRecord

log = structlog.get_logger("midwatch.poison")

KEPT_RECORDS = 1_000
KEPT_BYTES = 4_000


class PoisonList:
    """The poison messages of one fleet. `midwatch dlq list` shows them."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._key = key

    def __json__(self) -> str:
        """Return the key. The list is a transport option, and `celery inspect stats`, which Flower runs, sends those as JSON."""
        return self._key

    def keep(self, queue: str, body: bytes | str, reason: str) -> None:
        """Store one message. Its size is logged, its content is not, even if Redis is unavailable."""
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
        try:
            pipe = self._client.pipeline()
            pipe.lpush(self._key, entry.model_dump_json())
            pipe.ltrim(self._key, 0, KEPT_RECORDS - 1)
            pipe.expire(self._key, KEPT_S)
            pipe.execute()
        except redis.RedisError as error:
            log.error("message.poison_not_kept", poison_id=entry.poison_id, error=str(error)[:200])

    def count(self) -> int:
        """Count the poison messages that were not discarded."""
        return int(self._client.llen(self._key))

    def discard(self, poison_id: str) -> bool:
        """Remove one message. Returns False if there is none of this id, for example because it was discarded before."""
        for raw in self._client.lrange(self._key, 0, -1):
            if _read_id(raw) == poison_id:
                return bool(self._client.lrem(self._key, 1, raw))  # type: ignore[arg-type]  # bytes are sent as they are
        return False

    def discard_all(self) -> int:
        """Remove all messages that are there now. Returns how many."""
        pipe = self._client.pipeline(transaction=True)
        pipe.llen(self._key)
        pipe.delete(self._key)
        return int(pipe.execute()[0])


def _read_id(raw: bytes | str) -> object:
    """Read the id of a record that may be damaged, or of a later version."""
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found.get("poison_id") if isinstance(found, dict) else None
