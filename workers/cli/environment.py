"""Settings and a client for commands. Each mistake in a setting gives one clear line."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pydantic import ValidationError

    from midwatch.orchestration.client.client import Client
    from midwatch.workers.settings import Settings

FILE = "midwatch.toml"
PREFIX = "MIDWATCH_"
OTHER_PREFIXES = ("MIDWATCH_DEMO_", "MIDWATCH_DEV_", "MIDWATCH_TEST_", "MIDWATCH_REQUIRE_")
"""Prefixes of variables that belong to the demo, to `dev` or to the tests."""

_PASSWORD = re.compile(r"(?<=://)([^/@:]*:).*(?=@)|(?<=://:).*|(?<=[?&]password=)[^&]*")
"""Matches up to the last @, because a password may contain @ or a slash. Without a user and an @, all that follows may be one."""


class BadSetting(click.ClickException):
    """Raised when the environment or `midwatch.toml` is wrong."""

    exit_code = 2


def read_settings() -> Settings:
    """Return the settings of this process.

    Raises:
        BadSetting: names the setting, the expected value and the actual value.

    """
    from tomllib import TOMLDecodeError

    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from midwatch.workers.settings import settings

    try:
        current = settings()
    except ValidationError as error:
        raise BadSetting(_describe_problem(error)) from error
    except SettingsError as error:
        raise BadSetting(_describe_bad_json(error)) from error
    except TOMLDecodeError as error:
        raise BadSetting(f"{FILE}: not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise BadSetting(f"{FILE}: not UTF-8 text: {error}") from error
    return current


def connect() -> Client:
    """Return a client of the fleet that the settings describe. It connects at its first command.

    Raises:
        BadSetting: see `read_settings`.

    """
    current = read_settings()
    from midwatch.orchestration.logs import log_to_stderr
    from midwatch.workers.celery_app.dispatch import make_client

    log_to_stderr()
    return make_client(current)


def server_ms(client: Client) -> int:
    """Return the server's time in ms. Records hold server times, and this machine's clock may be wrong."""
    seconds, micros = client.store.client.time()
    return int(seconds) * 1_000 + int(micros) // 1_000


def source_of(name: str) -> str:
    """Return the environment variable of a setting."""
    from midwatch.workers.settings import Settings

    alias = Settings.model_fields[name].validation_alias
    return alias if isinstance(alias, str) else PREFIX + name.upper()


def without_password(value: str) -> str:
    """Return the URL with its password replaced by `***`."""
    return _PASSWORD.sub(lambda found: f"{found[1] or ''}***", value)


def find_mistyped() -> list[str]:
    """Return a line for each variable that looks like a setting but is none.

    Without this check a typo in a variable's name would silently leave the default in force.
    """
    from midwatch.workers.settings import Settings

    known = {source_of(name) for name in Settings.model_fields}
    found = (name for name in os.environ if name.startswith(PREFIX) and not name.startswith(OTHER_PREFIXES))
    return [f"{name} is not a setting{_hint(name, known)}" for name in sorted(found) if name not in known]


def _describe_problem(error: ValidationError) -> str:
    """Describe the first problem. The value is left out if it may be a secret."""
    from midwatch.workers.settings import Settings

    problem = error.errors(include_url=False)[0]
    key = str(problem["loc"][0]) if problem["loc"] else ""
    by_source = {source_of(name): name for name in Settings.model_fields}
    name = by_source.get(key, key)
    if problem["type"] == "extra_forbidden" and len(problem["loc"]) == 1:
        return f"{FILE}: unknown setting {key!r}{_hint(key, Settings.model_fields)}"
    if name not in Settings.model_fields:
        return f"settings: {_expected(problem['msg'])}"
    source = source_of(name)
    where = source if source in os.environ else f"{FILE}: {name}"
    if len(problem["loc"]) > 1:
        return _describe_problem_in_table(where, problem)
    secret = "Secret" in str(Settings.model_fields[name].annotation)
    got = "" if secret else f", got {without_password(str(problem['input']))!r}"
    about = (Settings.model_fields[name].description or "").rstrip(".")
    return f"{where}: {_expected(problem['msg'])}{got} ({about})"


def _describe_problem_in_table(where: str, problem: Any) -> str:
    """Describe a problem inside a table, such as a limit of one downstream."""
    from midwatch.workers.cli.assignments import field_names

    *path, last = (str(part) for part in problem["loc"][1:] if part != "[key]")
    where = ".".join([where, *(part if part.isidentifier() else json.dumps(part) for part in path)])
    if problem["type"] == "extra_forbidden":
        return f"{where}: unknown limit {last!r}{_hint(last, field_names(), 0.6)}"
    last = last if last.isidentifier() else json.dumps(last)
    got = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"
    return f"{where}.{last}: {_expected(problem['msg'])}{got}"


def _describe_bad_json(error: Exception) -> str:
    """Describe a variable with invalid JSON. Tables are written as JSON in the environment."""
    found = re.search(r'field "(\w+)"', str(error))
    where = source_of(found[1]) if found else "settings"
    return f'{where}: not valid JSON: {error.__cause__}; expected for example {{"jira": {{"rpm": 60}}}}'


def _expected(message: str) -> str:
    """Shorten Pydantic's message."""
    return re.sub(r"^Value error, ", "", re.sub(r"^(Input|String) should ", "should ", message))


def _hint(name: str, known: Iterable[str], cutoff: float = 0.7) -> str:
    near = difflib.get_close_matches(name, list(known), 1, cutoff)
    return f"; did you mean {near[0]!r}?" if near else f"; expected one of: {', '.join(sorted(known))}"
