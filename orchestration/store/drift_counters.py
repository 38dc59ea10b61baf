"""Read the drift counters and add them up over the partitions."""

from __future__ import annotations

import redis

from midwatch.orchestration.keyspace import PARTITIONS, Keyspace
from midwatch.orchestration.store.scripts import UNAVAILABLE, unread


def read(client: redis.Redis, keys: Keyspace, hours: int) -> dict[tuple[int, str], int]:
    """Read the counters of the last `hours` hours with the current one, by hour (since the epoch, server's clock) and name.

    Raises:
        StoreUnavailable: Redis can't be reached.

    """
    try:
        seconds, _ = client.time()
        newest = seconds // 3_600
        wanted = range(newest - hours + 1, newest + 1)
        pipe = client.pipeline(transaction=False)
        for hour in wanted:
            for p in range(PARTITIONS):
                pipe.hgetall(keys.index(p, f"drift:{hour}"))
        replies = pipe.execute()
    except UNAVAILABLE as error:
        raise unread(error) from error
    found: dict[tuple[int, str], int] = {}
    for place, reply in enumerate(replies):
        for name, count in reply.items():
            key = (wanted[place // PARTITIONS], name.decode())
            found[key] = found.get(key, 0) + int(count)
    return found
