"""Settings as commands read them: every mistake is one clear line, and no secret is shown."""

from __future__ import annotations

import json

import pytest

from midwatch.workers.cli import main
from midwatch.workers.cli.environment import mistyped, without_password
from midwatch.workers.settings import settings

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    """An environment without our variables, an empty working directory, nothing remembered."""
    import os

    for name in list(os.environ):
        if name.startswith("MIDWATCH_") or name.endswith(("_API_KEY", "_BASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield
    settings.cache_clear()


def listed(capsys) -> dict[str, dict[str, str]]:
    """`midwatch settings --json`, by variable."""
    assert main(["settings", "--json"]) == 0
    return {each["variable"]: each for each in json.loads(capsys.readouterr().out)["settings"]}


def test_every_setting_tells_where_it_comes_from(monkeypatch, tmp_path, capsys):
    """The environment wins over the file, the file over the default."""
    (tmp_path / "midwatch.toml").write_text('prefix = "filed"\nlease_ms = 5000\n')
    monkeypatch.setenv("MIDWATCH_PREFIX", "env")
    found = listed(capsys)
    assert (found["MIDWATCH_PREFIX"]["value"], found["MIDWATCH_PREFIX"]["from"]) == ("env", "environment")
    assert (found["MIDWATCH_LEASE_MS"]["value"], found["MIDWATCH_LEASE_MS"]["from"]) == ("5000", "midwatch.toml")
    assert found["MIDWATCH_SWEEP_MS"]["from"] == "default"
    assert all(each["description"] for each in found.values())


def test_limits_are_shown_as_they_may_be_set(monkeypatch, tmp_path, capsys):
    """Of each downstream what was said, as JSON; the environment wins over the file limit by limit."""
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


def test_secrets_are_said_to_be_there_and_not_shown(monkeypatch, capsys):
    """Keys are `set`, passwords in addresses are stars, in the table and in JSON."""
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
def test_a_password_in_an_address_is_hidden(url, shown):
    """Wherever it stands in it."""
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MIDWATCH_PREFIX", "a b", "MIDWATCH_PREFIX: should match"),
        ("MIDWATCH_EVENTS", "maybe", "MIDWATCH_EVENTS: should be a valid boolean"),
        ("MIDWATCH_LEASE_MS", "1", "MIDWATCH_LEASE_MS: should be greater than or equal to 500"),
        ("MIDWATCH_REDIS_URL", "localhost:6379", "MIDWATCH_REDIS_URL: expected redis://HOST:PORT/DB"),
        ("MIDWATCH_REDIS_URL", "redis://h:port/0", "MIDWATCH_REDIS_URL: 'redis://h:port/0' is no URL"),
        ("MIDWATCH_LIMITS", '{"jira": {"rpm": 60}', "MIDWATCH_LIMITS: not valid JSON: Expecting"),
        ("MIDWATCH_LIMITS", '{"jira": {"rmp": 60}}', "MIDWATCH_LIMITS.jira: unknown limit 'rmp'; did you mean 'rpm'?"),
        ("MIDWATCH_LIMITS", '{"jira": {"rpm": -1}}', "MIDWATCH_LIMITS.jira.rpm: should be greater than 0, got -1"),
    ],
)
def test_a_bad_variable_is_one_line(monkeypatch, capsys, variable, value, said):
    """Names the variable, what was expected, what came; exit code 2 for whatever command."""
    monkeypatch.setenv(variable, value)
    assert main(["jobs", "list"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"midwatch: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
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
def test_a_bad_file_is_one_line(tmp_path, capsys, text, said):
    """Names the file, and the setting that was meant."""
    (tmp_path / "midwatch.toml").write_text(text)
    assert main(["settings"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"midwatch: {said}")
    assert err.count("\n") == 1


def test_a_bad_secret_is_not_repeated(tmp_path, capsys):
    """The value of a key is never in an error, not even of the wrong type."""
    (tmp_path / "midwatch.toml").write_text(f'anthropic_api_key = ["{SECRET}"]')
    assert main(["settings"]) == 2
    err = capsys.readouterr().err
    assert "anthropic_api_key" in err.lower()
    assert SECRET not in err


def test_a_mistyped_variable_is_noticed(monkeypatch, capsys):
    """It would pass for the default otherwise. The demo's own variables are no settings."""
    monkeypatch.setenv("MIDWATCH_REDIS_ULR", "redis://h/0")
    monkeypatch.setenv("MIDWATCH_DEMO_SEED", "1")
    assert mistyped() == ["MIDWATCH_REDIS_ULR is no setting; did you mean 'MIDWATCH_REDIS_URL'?"]
    assert main(["settings"]) == 0
    assert "warning: MIDWATCH_REDIS_ULR" in capsys.readouterr().err
