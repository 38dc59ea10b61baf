"""docs/coordinator.md against the code: every limit with its default, every constant, every reason that a step may meet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from midwatch.orchestration.admission import answers, configuration, redis_gate
from midwatch.schemas.limits import Limits
from midwatch.workers.cli.assignments import field_names

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "coordinator.md").read_text(encoding="utf-8")
SCRIPTS = {path.stem: path.read_text() for path in (ROOT / "orchestration" / "admission" / "lua").glob("*.lua")}


def rows(*cells: str) -> list[tuple[str, ...]]:
    """Return the rows of the table with these column titles."""
    title = re.escape(f"| {' | '.join(cells)} |")
    table = re.search(rf"^{title}\n\|[-|]+\|\n((?:\|.*\|\n)+)", PAGE, re.MULTILINE)
    assert table, f"no table {cells}"
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table[1].splitlines()]


def default(field: str) -> str:
    """Format the default of a limit as the page does."""
    value = Limits.model_fields[field].get_default(call_default_factory=True)
    if isinstance(value, Mapping):
        return ", ".join(f"{part} {weight:g}" for part, weight in value.items()) or "none"
    if value is None or value is True:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def test_every_limit_is_listed_with_its_default():
    """The page also lists every short name of a limit."""
    listed = {cell: value for cell, value, _ in rows("limit", "default", "is")}
    known = field_names()
    assert {name for cell in listed for name in re.findall(r"`(\w+)`", cell)} == set(known)
    for cell, value in listed.items():
        assert value == default(known[cell.split("`")[1]]), cell


def constants() -> dict[str, Any]:
    """Return name -> value of the scripts' constants and the gate's constants."""
    modules = {**vars(redis_gate), **vars(answers)}
    gate = {name: value for name, value in modules.items() if name.isupper() and isinstance(value, (int, tuple))}
    del gate["KEPT_S"]  # it is a constant of the keyspace
    return configuration.CONSTANTS | gate


@pytest.mark.parametrize("cell", [cell for cell, *_ in rows("constant", "is", "because")])
def test_the_constants_are_those_of_the_code(cell):
    """Each constant on the page has the value that the code has."""
    for name, said in re.findall(r"`(\w+)`([^`]*)", cell):
        value = constants()[name]
        values = value if isinstance(value, tuple) else (value,)
        assert said.strip(" ,").split(", ") == [str(each) for each in values], name


def test_the_page_lists_every_constant():
    """The table has each constant that the scripts get, and each constant of the gate."""
    listed = " ".join(cell for cell, *_ in rows("constant", "is", "because"))
    assert set(re.findall(r"`(\w+)`", listed)) == set(constants())


def test_every_reason_to_wait_is_explained():
    """The page lists every reason that the script may give with `wait`."""
    script = SCRIPTS["admit"]
    in_line = re.findall(r"return wait\([^\n]*'(\w+)'", script)
    outside = re.findall(r"return wait_outside_lines\([^\n]*'(\w+)'", script)
    assert {*in_line, *outside} == {cell.strip("`") for cell, *_ in rows("reason", "waits for", "if it lasts")}


def test_every_denial_is_named():
    """The page names every reason that the script may give with `deny`, also those of a lineage's limits."""
    reasons = re.findall(r"return deny\('(\w+)'", SCRIPTS["admit"]) + re.findall(
        r"return '(\w+)', \{", SCRIPTS["members"]
    )
    assert set(reasons) == {"blocked", *answers.DENIED}
    for reason in reasons:
        assert f"`{reason}`" in PAGE
