"""`midwatch settings`: list every setting with its value and its source. Secrets are shown as set or not set."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from midwatch.workers.cli import options
from midwatch.workers.cli.environment import FILE, find_mistyped, read_settings, source_of, without_password
from midwatch.workers.cli.tables import Column, print_table
from midwatch.workers.dev_address import NAME as DEV_FILE
from midwatch.workers.dev_address import dev_folder, find_address
from midwatch.workers.views.output import print_json, printable, say

if TYPE_CHECKING:
    from midwatch.workers.settings import Settings

VALUE_COLUMNS = 40
"""Most characters of a value on a terminal. `--json` prints the whole value."""


@click.command()
@options.as_json
def settings(as_json: bool) -> None:
    """List every setting with its value and its source.

    The environment wins over `midwatch.toml` in the working directory. The address of a `midwatch dev` that runs in this
    folder comes after both. Secrets are shown as set or not set.
    """
    found = list_settings(read_settings())
    if as_json:
        print_json({"settings": found})
    else:
        columns = [Column("SETTING"), Column("VALUE"), Column("FROM", kind="spare"), Column("DESCRIPTION", kind="long")]
        width = VALUE_COLUMNS if sys.stdout.isatty() else None
        rows = [(e["variable"], printable(e["value"], width), e["from"], e["description"]) for e in found]
        print_table(columns, rows, whole=True, empty="")
    for problem in find_mistyped():
        say(f"warning: {problem}")


def list_settings(current: Settings) -> list[dict[str, str]]:
    """Return one entry for each setting: name, variable, value, from, description."""
    in_file, dev = _read_file_keys(), find_address()
    found = []
    for name, field in type(current).model_fields.items():
        variable = source_of(name)
        file_or_default = FILE if name in in_file or variable in in_file else "default"
        origin = "environment" if variable in os.environ else file_or_default
        if origin == "default" and name in dev and dev[name] == getattr(current, name):
            origin = str(dev_folder() / DEV_FILE)
        found.append(
            {
                "name": name,
                "variable": variable,
                "value": format_value(getattr(current, name)),
                "from": origin,
                "description": field.description or "",
            }
        )
    return found


def format_value(value: object) -> str:
    """Format a setting's value without secrets."""
    from pydantic import SecretStr

    if value is None:
        return "not set"
    if isinstance(value, SecretStr):
        return "set"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        limits = {name: each.model_dump(mode="json", exclude_unset=True) for name, each in value.items()}
        return json.dumps(limits) if limits else "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return without_password(str(value))


def _read_file_keys() -> frozenset[str]:
    import tomllib

    path = Path(FILE)
    return frozenset(tomllib.loads(path.read_text("utf-8"))) if path.is_file() else frozenset()
