"""Settings of commands: every mistake gives one clear line, and no secret is printed."""

from __future__ import annotations

import json

import pytest

from midwatch.workers.cli import main
from midwatch.workers.cli.environment import find_mistyped, without_password
from midwatch.workers.settings import settings

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """Remove the variables of this package, use an empty working directory, and clear the cached settings."""
    import os

    for name in list(os.environ):
        if name.startswith("MIDWATCH_") or name.endswith(("_API_KEY", "_BASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield
    settings.cache_clear()


def listed(capsys) -> dict[str, dict[str, str]]:
    """Run `midwatch settings --json`. Returns variable -> entry."""
    assert main(["settings", "--json"]) == 0
    return {each["variable"]: each for each in json.loads(capsys.readouterr().out)["settings"]}


def test_every_setting_shows_its_source(monkeypatch, tmp_path, capsys):
    """The environment wins over the file, and the file wins over the default."""
    (tmp_path / "midwatch.toml").write_text('prefix = "filed"\nlease_ms = 5000\n')
    monkeypatch.setenv("MIDWATCH_PREFIX", "env")
    found = listed(capsys)
    assert (found["MIDWATCH_PREFIX"]["value"], found["MIDWATCH_PREFIX"]["from"]) == ("env", "environment")
    assert (found["MIDWATCH_LEASE_MS"]["value"], found["MIDWATCH_LEASE_MS"]["from"]) == ("5000", "midwatch.toml")
    assert found["MIDWATCH_SWEEP_MS"]["from"] == "default"
    assert all(each["description"] for each in found.values())


def test_limits_are_shown_in_the_form_of_the_setting(monkeypatch, tmp_path, capsys):
    """The limits that were set are shown as JSON. The environment wins over the file for each single limit."""
    (tmp_path / "midwatch.toml").write_text(
        '[limits."anthropic:claude-*"]\nrpm = 50\n[limits.jira]\nrpm = 60\ntpm = 9\n'
    )
    monkeypatch.setenv("MIDWATCH_LIMITS", '{"jira": {"rpm": 5}}')
    shown = listed(capsys)["MIDWATCH_LIMITS"]
    assert json.loads(shown["value"]) == {
        "jira": {"requests_per_minute": 5, "tokens_per_minute": 9},
        "anthropic:claude-*": {"requests_per_minute": 50},
    }
    assert shown["from"] == "environment"


def test_secrets_are_shown_as_set_or_not_set(monkeypatch, capsys):
    """Keys are `set` and passwords in URLs are stars, in the table and in JSON."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("MIDWATCH_REDIS_URL", f"redis://user:{SECRET}@localhost:6379/0?password={SECRET}")
    found = listed(capsys)
    assert found["ANTHROPIC_API_KEY"]["value"] == "set"
    assert found["OPENAI_API_KEY"]["value"] == "not set"
    assert found["MIDWATCH_REDIS_URL"]["value"] == "redis://user:***@localhost:6379/0?password=***"
    assert main(["settings"]) == 0
    assert SECRET not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost/0", "redis://localhost/0"),
        ("redis://:pw@h/0", "redis://:***@h/0"),
        ("amqp://u:p:w@h//", "amqp://u:***@h//"),
        ("redis://:p/w@h@host/0", "redis://:***@host/0"),
        ("redis://h/0?db=1&password=pw&x=1", "redis://h/0?db=1&password=***&x=1"),
    ],
)
def test_a_password_in_a_url_is_hidden(url, shown):
    """It is hidden in every place of the URL."""
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("MIDWATCH_PREFIX", "a b", "MIDWATCH_PREFIX: should match"),
        ("MIDWATCH_EVENTS", "maybe", "MIDWATCH_EVENTS: should be a valid boolean"),
        ("MIDWATCH_LEASE_MS", "1", "MIDWATCH_LEASE_MS: should be greater than or equal to 500"),
        ("MIDWATCH_REDIS_URL", "localhost:6379", "MIDWATCH_REDIS_URL: expected redis://HOST:PORT/DB"),
        ("MIDWATCH_REDIS_URL", "redis://h:port/0", "MIDWATCH_REDIS_URL: not a URL: Port"),
        ("MIDWATCH_LIMITS", '{"jira": {"rpm": 60}', "MIDWATCH_LIMITS: not valid JSON: Expecting"),
        ("MIDWATCH_LIMITS", '{"jira": {"rmp": 60}}', "MIDWATCH_LIMITS.jira: unknown limit 'rmp'; did you mean 'rpm'?"),
        ("MIDWATCH_LIMITS", '{"jira": {"rpm": -1}}', "MIDWATCH_LIMITS.jira.rpm: should be greater than 0, got -1"),
    ],
)
def test_a_bad_variable_gives_one_line(monkeypatch, capsys, variable, value, message):
    """The line names the variable, the expected value and the actual value. Every command exits with 2."""
    monkeypatch.setenv(variable, value)
    assert main(["jobs", "list"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"midwatch: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('redis_ulr = "x"', "midwatch.toml: unknown setting 'redis_ulr'; did you mean 'redis_url'?"),
        ("colour = 1", "midwatch.toml: unknown setting 'colour'; expected one of: agents, anthropic_api_key, "),
        ('prefix = "a b"', "midwatch.toml: prefix: should match"),
        ('prefix = "a', "midwatch.toml: not valid TOML"),
        ("[limits.jira]\nburst = 5", "midwatch.toml: limits.jira: unknown limit 'burst'; did you mean 'burst_s'?"),
        ('[limits."a:b"]\nrpm = "x"', 'midwatch.toml: limits."a:b".rpm: should be a valid number'),
        ("[limits.jira]\nopen_s = 20", "midwatch.toml: limits.jira: open_max_s=10.0 is below open_s=20.0; raise it"),
    ],
)
def test_a_bad_file_gives_one_line(tmp_path, capsys, text, message):
    """The line names the file, and suggests the right setting."""
    (tmp_path / "midwatch.toml").write_text(text)
    assert main(["settings"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"midwatch: {message}")
    assert err.count("\n") == 1


def test_a_bad_secret_is_not_printed(tmp_path, capsys):
    """An error never holds the value of a key, even if it has the wrong type."""
    (tmp_path / "midwatch.toml").write_text(f'anthropic_api_key = ["{SECRET}"]')
    assert main(["settings"]) == 2
    err = capsys.readouterr().err
    assert "anthropic_api_key" in err.lower()
    assert SECRET not in err


def test_a_mistyped_variable_gives_a_warning(monkeypatch, capsys):
    """Without the warning the default would be used silently. The demo's variables give no warning."""
    monkeypatch.setenv("MIDWATCH_REDIS_ULR", "redis://h/0")
    monkeypatch.setenv("MIDWATCH_DEMO_SEED", "1")
    assert find_mistyped() == ["MIDWATCH_REDIS_ULR is not a setting; did you mean 'MIDWATCH_REDIS_URL'?"]
    assert main(["settings"]) == 0
    assert "warning: MIDWATCH_REDIS_ULR" in capsys.readouterr().err
