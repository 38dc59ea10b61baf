"""The messages of the check before a worker starts, and the list of commands that it tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis import exceptions as redis_errors

from midwatch.orchestration.errors import ConfigError, StoreUnavailable
from midwatch.workers.process import boot_check
from midwatch.workers.process.boot_commands import BY_SCRIPTS

LUA = list((Path(__file__).parents[2] / "orchestration").rglob("*.lua"))
CALL = re.compile(r"redis\.p?call\(\s*['\"](\w+)['\"]")


def test_the_rehearsal_has_every_command_of_the_scripts() -> None:
    """A right that is missing for one of them would be noticed only when a step needs it."""
    called = {name.upper() for path in LUA for name in CALL.findall(path.read_text())}
    assert len(called) > 20
    missing = called - {"TIME"} - set(BY_SCRIPTS)
    assert not missing, f"add them to workers/process/boot_commands.py, with arguments: {sorted(missing)}"


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (redis_errors.AuthenticationError("WRONGPASS invalid username-password pair"), ConfigError, "the password"),
        (redis_errors.AuthenticationError("HELLO must be called with the client"), ConfigError, "requires a login"),
        (redis_errors.NoPermissionError("no permissions to run 'fcall'"), ConfigError, "lacks a right"),
        (redis_errors.ResponseError("unknown command 'FUNCTION'"), ConfigError, "too old"),
        (redis_errors.ResponseError("something new"), ConfigError, "refuses this worker"),
        (redis_errors.ConnectionError("Error 1 [SSL: CERTIFICATE_VERIFY_FAILED]"), ConfigError, "ssl_cert_reqs=none"),
        (redis_errors.ReadOnlyError("You can't write against a read only replica."), StoreUnavailable, "its primary"),
        (redis_errors.ReadOnlyError("Errors writing to the AOF file: No space left"), StoreUnavailable, "its disk"),
        (redis_errors.OutOfMemoryError("command not allowed when used memory"), StoreUnavailable, "memory is full"),
        (redis_errors.BusyLoadingError("Redis is loading the dataset"), StoreUnavailable, "loads its data"),
        (redis_errors.ConnectionError("Error 111. Connection refused."), StoreUnavailable, "can't be reached"),
        (OSError(111, "Connection refused"), StoreUnavailable, "can't be reached"),
    ],
)
def test_an_error_is_said_with_the_setting_and_what_to_do(error: Exception, kind: type[Exception], said: str) -> None:
    """A server that may recover is waited for. Every other error ends the start."""
    found = boot_check.describe(error, "MIDWATCH_REDIS_URL")
    assert type(found) is kind
    assert str(found).startswith("MIDWATCH_REDIS_URL: ")
    assert said in str(found)


def test_a_worker_without_any_credentials_is_refused() -> None:
    """With some, it starts: its other agents can work."""
    missing = {"anthropic": "set ANTHROPIC_API_KEY", "openai": "set OPENAI_API_KEY"}
    with pytest.raises(ConfigError, match="anthropic: set ANTHROPIC_API_KEY; openai: set OPENAI_API_KEY"):
        boot_check.refuse_without_credentials(["anthropic", "openai"], missing)
    boot_check.refuse_without_credentials(["anthropic", "openai"], {"openai": "set OPENAI_API_KEY"})
    boot_check.refuse_without_credentials([], {})
