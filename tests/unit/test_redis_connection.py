"""The timeouts of our Redis client, computed from its settings. `tests/faults` measures them in a real outage."""

from __future__ import annotations

import redis

from midwatch.workers.redis_connection import connect_redis

PROMISED_S = 5.0


def test_a_call_ends_within_five_seconds_by_its_timeouts() -> None:
    """The longest command connects twice, or reads once, with the longest backoff. A timeout is not tried again."""
    with connect_redis("redis://127.0.0.1:1") as client:
        given = client.connection_pool.connection_kwargs
    retry = given["retry"]
    backoff_s = retry.get_retries() * max(retry._backoff.compute(failures) for failures in range(1, 20))
    assert redis.TimeoutError not in retry._supported_errors
    assert (1 + retry.get_retries()) * given["socket_connect_timeout"] + backoff_s < PROMISED_S
    assert given["socket_timeout"] + backoff_s < PROMISED_S
