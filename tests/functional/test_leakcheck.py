"""The key-leak check finds planted leaks on a real server, and accepts correct keys."""

from __future__ import annotations

import os

import pytest

from midwatch.orchestration.keyspace import Key, Keyspace
from tests.leakcheck import expand

EXTRA = Key("{prefix}:made:{name}", "STRING", "a row that a test adds for keys of its own", "kept")


@pytest.fixture
def plant(lend_prefix, connect_redis, server):
    """Run a function with a client and a Keyspace under a separate prefix. Return what the check then reports."""
    client = connect_redis(server.url)

    def run(make, *extra):
        try:
            with lend_prefix(*extra) as prefix:
                make(client, Keyspace(prefix))
        except AssertionError as error:
            return str(error).replace(prefix, "mw")
        finally:
            assert not [name for name in client.scan_iter() if prefix.encode() in name], "keys are deleted in any case"
        return ""

    return run


def test_keys_of_the_catalogue_with_a_time_to_live_pass(plant):
    """Jobs and sessions expire. For indexes and queues a row says why they don't. Kombu's own keys pass too."""

    def make(client, keys):
        client.set(keys.job_pointer("j:1"), "s", ex=60)
        for name in (keys.session("s"), keys.job("s", "j:1"), keys.steps("s", "j:1")):
            client.hset(name, "field", "value")
            client.expire(name, 60)
        client.rpush(keys.log("s"), "message")
        client.expire(keys.log("s"), 60)
        client.zadd(keys.index(3, "due"), {"step": 1})
        client.rpush(keys.queue("model"), "message")
        client.rpush(keys.queue("tools") + "\x06\x163", "message")
        client.sadd("_kombu.binding." + keys.queue("model"), "member")

    assert plant(make) == ""


def test_a_key_without_a_time_to_live_is_reported(plant):
    """The catalogue says that it is kept for a limited time, but it would stay forever."""
    said = plant(lambda client, keys: client.hset(keys.job("s", "j1"), "status", "queued"))
    assert "1 leaked key(s)" in said
    assert "job:j1' never expires; the catalogue says 'kept" in said


def test_a_key_that_is_not_in_the_catalogue_is_reported(plant):
    """A key that was not built in keyspace.py is reported, even if it expires."""
    said = plant(lambda client, keys: client.set(keys.prefix + ":scratch", "1", ex=60))
    assert "'mw:scratch' (string) is in no row of Keyspace.CATALOGUE" in said


def test_a_key_with_a_wrong_partition_tag_is_reported(plant):
    """Without the hash tag a cluster would refuse the script."""
    said = plant(lambda client, keys: client.zadd(f"{keys.prefix}:03:due", {"step": 1}))
    assert "'mw:03:due' (zset) is in no row" in said


def test_a_key_of_another_type_is_reported(plant):
    """The type in the catalogue is checked against the server."""
    said = plant(lambda client, keys: client.set(keys.log("s"), "not a list", ex=60))
    assert "is a string; the catalogue says LIST" in said


def test_a_key_outside_every_prefix_is_reported_once(plant, connect_redis, server):
    """Two fleets on one server must not share a key. The key is then deleted, so the next test does not fail too."""
    said = plant(lambda client, keys: client.set("stray", "1", ex=60))
    assert "'stray' lies outside every prefix" in said
    assert not connect_redis(server.url).exists("stray")


def test_keys_of_two_fleets_are_checked_separately(plant, lend_prefix):
    """A second prefix that a test borrowed is not reported as foreign to the first."""

    def make(client, keys):
        with lend_prefix() as other:
            client.zadd(Keyspace(other).index(0, "owed"), {"step": 1})
            client.zadd(keys.index(0, "owed"), {"step": 1})

    assert plant(make) == ""


def test_rows_can_be_added_for_a_test(plant):
    """A test that makes extra keys adds a row for them, and the check then uses the row."""
    assert plant(lambda client, keys: client.set(keys.prefix + ":made:one", "1", ex=60), EXTRA) == ""
    assert "never expires" in plant(lambda client, keys: client.set(keys.prefix + ":made:one", "1"), EXTRA)


def test_the_catalogue_describes_every_key_that_keyspace_builds():
    """The regular expressions made from the catalogue match every key that Keyspace builds."""
    keys = Keyspace("mw")
    built = [
        keys.job_pointer("j"),
        *(keys.session("s"), keys.log("s"), keys.waiting("s"), keys.results("s")),
        *(keys.job("s", "j"), keys.steps("s", "j"), keys.trace("s", "j")),
        *(keys.index(7, name) for name in ("due", "owed", "jobs", "dead", "letters", "counters")),
        *(keys.poison(), keys.queue("model"), keys.queue("tools"), keys.queue("maintenance") + "\x06\x169"),
        "_kombu.binding.mw.model",
    ]
    unmatched = [name for name in built if not any(expand(row.pattern, "mw").fullmatch(name) for row in keys.CATALOGUE)]
    assert unmatched == []


def test_the_prefix_reaches_processes_that_a_test_starts(prefix, redis, server):
    """MIDWATCH_PREFIX and MIDWATCH_REDIS_URL are set, so neither a test nor its processes use a developer's Redis."""
    assert os.environ["MIDWATCH_PREFIX"] == prefix
    assert os.environ["MIDWATCH_REDIS_URL"] == server.url
    redis.zadd(Keyspace(prefix).index(0, "due"), {"step": 1})
    assert redis.zcard(Keyspace(prefix).index(0, "due")) == 1
