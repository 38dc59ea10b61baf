"""The checks of `midwatch doctor`, with different answers of a server."""

from __future__ import annotations

import pytest

from midwatch.orchestration.dialects import rules
from midwatch.schemas.tools import ToolSpec
from midwatch.workers.cli.commands import doctor_checks

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
def test_versions_with_security_holes_give_a_warning(info, result):
    """Valkey is safe from 9.1.1, Redis from 8.6.3. An unreadable version is not safe."""
    assert doctor_checks.check_version(info).result == result


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
def test_a_server_without_persistence_is_unsafe(info, snapshots, result):
    """No file, or a file that can't be written, is a failure. Snapshots alone give a warning."""
    assert doctor_checks.check_persistence(info, snapshots).result == result


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
    """Any policy except noeviction deletes jobs when memory is short, because all keys have a time to live."""
    assert doctor_checks.check_eviction(info).result == result


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
def test_a_server_on_the_network_needs_password_and_encryption(url, result):
    """No check prints the password."""
    check = doctor_checks.check_access(url)
    assert check.result == result
    assert "secret" not in f"{check.found} {check.advice}"


def test_a_replica_is_unsafe():
    """A replica refuses writes."""
    assert doctor_checks.check_role({"role": "slave"}).result == "fail"
    assert doctor_checks.check_role({"role": "master"}).result == "ok"


def test_every_warning_and_failure_has_advice():
    """The advice says what to do."""
    checks = [
        doctor_checks.check_version({}),
        doctor_checks.check_role({"role": "slave"}),
        doctor_checks.check_persistence({}, ""),
        doctor_checks.check_persistence({}, "60 1"),
        doctor_checks.check_eviction({"maxmemory_policy": "allkeys-lru", "maxmemory": 9}),
        doctor_checks.check_access("redis://elsewhere/0"),
    ]
    assert all(check.advice for check in checks)


def test_schema_differences_give_one_line_per_rule():
    """A difference that the runtime corrects is ok. A difference that makes the model guess gives a warning."""
    tools = [ToolSpec(name=f"find_{n}", description="Find.", input_schema=schema) for n, schema in enumerate(SCHEMAS)]
    first, second, third = doctor_checks.check_schemas("clerk", rules.check_all(["openai", "gemini"], tools, None))
    assert (first.name, first.result, first.advice) == ("schema root", "ok", "")
    assert first.found.startswith("clerk, find_0 and 1 more: openai: anyOf at the top level: sent as one object")
    assert second.found.startswith("clerk, find_0 and 1 more: gemini: anyOf")
    assert (third.name, third.result) == ("schema optional", "warn")
    assert third.advice
    assert doctor_checks.check_schemas("clerk", ()) == []


def test_missing_credentials_are_a_warning_that_names_the_variable():
    """It is no failure: `doctor` also runs where only tools run, as a health check."""
    (check,) = doctor_checks.check_credentials({"ANTHROPIC_API_KEY": ["clerk", "judge"]})
    assert (check.result, check.found) == ("warn", "ANTHROPIC_API_KEY is not set; needed by clerk, judge")
    assert doctor_checks.check_credentials({}) == []
