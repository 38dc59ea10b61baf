"""The bounds of our Redis client, by its settings: how long they last on a real outage is in tests/faults."""

from __future__ import annotations

import redis

from midwatch.workers.redis_connection import connect_redis

PROMISED_S = 5.0


def test_a_call_ends_within_five_seconds_by_its_timeouts() -> None:
    """Connecting twice, or reading once, with the longest backoff between: no timeout is tried again."""
    with connect_redis("redis://127.0.0.1:1") as client:
        given = client.connection_pool.connection_kwargs
    retry = given["retry"]
    backoff_s = retry.get_retries() * max(retry._backoff.compute(failures) for failures in range(1, 20))
    assert redis.TimeoutError not in retry._supported_errors
    assert (1 + retry.get_retries()) * given["socket_connect_timeout"] + backoff_s < PROMISED_S
    assert given["socket_timeout"] + backoff_s < PROMISED_S
