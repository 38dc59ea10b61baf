"""The checks of `midwatch doctor`, on what a server may say of itself."""

from __future__ import annotations

import pytest

from midwatch.orchestration.dialects import rules
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.cli.commands import checkup

SCHEMAS = [{"type": "object", "anyOf": [{"properties": {name: {"type": "string"}}}, {}]} for name in "ab"]


@pytest.mark.parametrize(
    ("info", "result"),
    [
        ({"valkey_version": "9.1.1", "redis_version": "7.2.4"}, "ok"),
        ({"valkey_version": "9.1.0", "redis_version": "7.2.4"}, "warn"),
        ({"valkey_version": "9.2.0-rc1", "redis_version": "7.2.4"}, "warn"),
        ({"redis_version": "8.6.3"}, "ok"),
        ({"redis_version": "8.10.0"}, "ok"),
        ({"redis_version": "8.6.2"}, "warn"),
        ({"redis_version": "7.4.2"}, "warn"),
        ({}, "warn"),
    ],
)
def test_versions_with_known_holes_are_warned_about(info, result):
    """Valkey from 9.1.1, Redis from 8.6.3; what can't be read is not taken for safe."""
    assert checkup.version(info).result == result


@pytest.mark.parametrize(
    ("info", "snapshots", "result"),
    [
        ({"aof_enabled": 1}, "", "ok"),
        ({"aof_enabled": 0}, "3600 1", "warn"),
        ({"aof_enabled": 0}, None, "warn"),
        ({"aof_enabled": 0}, "", "fail"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, "", "fail"),
        ({"aof_enabled": 1, "rdb_last_bgsave_status": "err"}, "", "fail"),
    ],
)
def test_a_server_that_forgets_is_unsafe(info, snapshots, result):
    """No file at all, or one that can't be written, fails; snapshots alone are warned about."""
    assert checkup.persistence(info, snapshots).result == result


@pytest.mark.parametrize(
    ("info", "result"),
    [
        ({"maxmemory_policy": "noeviction", "maxmemory": 100}, "ok"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 0}, "warn"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": 100}, "fail"),
        ({"maxmemory_policy": "volatile-lru", "maxmemory": 100}, "fail"),
    ],
)
def test_a_server_that_evicts_is_unsafe(info, result):
    """Any policy but noeviction throws jobs away once memory is short: all keys here have a time to live."""
    assert checkup.eviction(info).result == result


@pytest.mark.parametrize(
    ("url", "result"),
    [
        ("redis://127.0.0.1:6379/0", "ok"),
        ("unix:///run/valkey.sock", "ok"),
        ("redis://cache.internal/0", "warn"),
        ("redis://:secret@cache.internal/0", "warn"),
        ("rediss://:secret@cache.internal/0", "ok"),
    ],
)
def test_a_server_on_the_network_wants_a_password_and_encryption(url, result):
    """And no check shows the password."""
    check = checkup.access(url)
    assert check.result == result
    assert "secret" not in f"{check.found} {check.advice}"


def test_a_replica_is_unsafe():
    """It takes no writes."""
    assert checkup.role({"role": "slave"}).result == "fail"
    assert checkup.role({"role": "master"}).result == "ok"


def test_whatever_is_not_fine_says_what_to_do():
    """Every warning and failure has advice."""
    checks = [
        checkup.version({}),
        checkup.role({"role": "slave"}),
        checkup.persistence({}, ""),
        checkup.persistence({}, "60 1"),
        checkup.eviction({"maxmemory_policy": "allkeys-lru", "maxmemory": 9}),
        checkup.access("redis://elsewhere/0"),
    ]
    assert all(check.advice for check in checks)


def test_what_a_provider_takes_otherwise_is_shown():
    """One line for each rule of a provider: what is mended is fine, what makes a model guess is warned about."""
    tools = [ToolSpec(name=f"find_{n}", description="Find.", input_schema=schema) for n, schema in enumerate(SCHEMAS)]
    first, second, third = checkup.taken_otherwise("clerk", rules.check_all(["openai", "gemini"], tools, None))
    assert (first.name, first.result, first.advice) == ("schema root", "ok", "")
    assert first.found.startswith("clerk, find_0 and 1 more: openai: anyOf at the top level: sent as one object")
    assert second.found.startswith("clerk, find_0 and 1 more: gemini: anyOf")
    assert (third.name, third.result) == ("schema optional", "warn")
    assert third.advice
    assert checkup.taken_otherwise("clerk", ()) == []
