"""Messages with an `eta` or a `countdown`, kept until their time has come.

Celery keeps such a message in the memory of one worker, and loses it with that worker, because messages on Redis are not
acknowledged. So the channel puts it into a sorted set, and every worker's steward moves what is due back to its queue. Other
brokers keep the message until Celery acknowledges it, so there Celery's own way is safe.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import redis
from redis import exceptions as redis_errors

from midwatch.orchestration.keyspace import KEPT_S
from midwatch.workers.celery_app.write_message import numbered_key

LONGEST_S = 90 * 24 * 3600
"""The farthest time. A job record would not be kept as long as its message."""

AT_ONCE = 100
"""Most messages that one look moves."""


def read_time(value: Any, what: str) -> float:
    """Read a time of a header, in seconds since the epoch. Celery writes ISO 8601. A time without a zone is in UTC.

    Raises:
        ValueError: it is no time.

    """
    if not isinstance(value, str):
        raise ValueError(f"{what}: expected a time in ISO 8601, got a {type(value).__name__}")
    try:
        read = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{what}: expected a time in ISO 8601, got {value[:40]!r}") from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


class LaterMessages:
    """The messages of one fleet whose time has not come. They are on the broker's server."""

    def __init__(self, client: redis.Redis, key: str) -> None:
        self._client = client
        self._key = key

    def __json__(self) -> str:
        """Return the key. See `PoisonList`."""
        return self._key

    def keep(self, queue: str, number: int, raw: bytes, eta_s: float) -> None:
        """Keep a message. It is delivered without its eta when the time has come."""
        frame = json.loads(raw)
        frame["headers"] = {**frame["headers"], "eta": None}
        entry = json.dumps({"list": numbered_key(queue, number), "message": json.dumps(frame)})
        kept_s = KEPT_S + max(0, int(eta_s - time.time()))
        pipe = self._client.pipeline()
        pipe.zadd(self._key, {entry: eta_s})
        pipe.expire(self._key, kept_s, nx=True)
        pipe.expire(self._key, kept_s, gt=True)
        pipe.execute()

    def deliver_due(self) -> int:
        """Move due messages to their queues. Returns how many. If two workers do this at once, one does nothing."""
        if not self._client.zrangebyscore(self._key, "-inf", time.time(), start=0, num=1):
            return 0  # every sweep of every worker ends here: one command instead of a transaction
        transaction: Any = self._client.pipeline()  # its `watch` is untyped
        with transaction as pipe:
            try:
                pipe.watch(self._key)
                due: Any = pipe.zrangebyscore(self._key, "-inf", time.time(), start=0, num=AT_ONCE)
                if not due:
                    return 0
                pipe.multi()
                pipe.zrem(self._key, *due)
                for entry in due:
                    found = json.loads(entry)
                    pipe.lpush(found["list"], found["message"])
                pipe.execute()
                return len(due)
            except redis_errors.WatchError:
                return 0
