"""The commands that a worker sends to its Redis, each with arguments that have the right form.

`tests/unit/test_boot_check.py` checks that the list has every command of the Lua files. The commands of kombu's
transport (5.7) are below.
"""

from __future__ import annotations

from midwatch.orchestration.keyspace import Keyspace

Command = tuple[str | int, ...]

BY_SCRIPTS: dict[str, Command] = {
    "DEL": (), "EXISTS": (), "EXPIRE": (60,), "GET": (), "HDEL": ("f",), "HEXISTS": ("f",), "HGET": ("f",),
    "HGETALL": (), "HINCRBY": ("f", 1), "HINCRBYFLOAT": ("f", 1), "HKEYS": (), "HMGET": ("f",), "HSET": ("f", "v"),
    "HLEN": (), "HSETNX": ("f", "v"), "HSTRLEN": ("f",), "LINDEX": (0,), "LLEN": (), "LPOP": (), "LPUSH": ("v",),
    "LRANGE": (0, 0), "LREM": (0, "v"), "LSET": (0, "v"), "LTRIM": (0, 0), "PEXPIRE": (60_000,), "RPUSH": ("v",), "SET": ("v",),
    "TTL": (), "TYPE": (), "ZADD": (1, "m"), "ZCARD": (), "ZRANGE": (0, 0), "ZRANGEBYLEX": ("-", "+"),
    "ZRANGEBYSCORE": (0, 0), "ZREM": ("m",), "ZREVRANGE": (0, 0),
    "ZREMRANGEBYSCORE": (0, 0), "ZSCORE": ("m",),
}  # fmt: skip
"""Command -> its arguments after the key. Lua files use these, and so does Python code."""

DIGEST = "0" * 40


def list_commands(keys: Keyspace, *, is_state: bool) -> list[Command]:
    """Return the commands of a worker whose state is on this server, or which takes its messages from it."""
    queue = keys.queue("model")
    broker: list[Command] = [
        ("BRPOP", queue, 1),
        ("LPUSH", queue, "v"),
        ("LLEN", queue),
        ("WATCH", keys.later()),
        ("ZADD", keys.later(), 1, "m"),
        ("ZRANGEBYSCORE", keys.later(), 0, 0),
        ("ZREM", keys.later(), "m"),
        ("SADD", f"_kombu.binding.{queue}", "v"),
        ("SMEMBERS", f"_kombu.binding.{queue}"),
        ("PUBLISH", "/0.celeryev/worker.heartbeat", "v"),
        ("SUBSCRIBE", "/0.celery.pidbox"),
    ]
    if not is_state:
        return broker
    key = keys.tools_served()
    scripts: list[Command] = [(name, key, *arguments) for name, arguments in BY_SCRIPTS.items()]
    calls: list[Command] = [
        ("TIME",),
        ("RENAMENX", key, key),
        ("EVALSHA", DIGEST, 1, key),
        ("SCRIPT", "LOAD", "return 1"),
        ("FCALL", "midwatch_probe", 1, key),
        ("FUNCTION", "LOAD", "REPLACE", "#!lua name=midwatch_probe\n"),
    ]
    return [*scripts, *calls, *broker]
