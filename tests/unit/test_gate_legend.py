"""The coordinator's scripts against `legend.py`, and against the typed functions that call them."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import pytest

from midwatch.orchestration.admission import legend, script_calls
from midwatch.orchestration.admission.ancestry import encode_bounds
from midwatch.orchestration.admission.configuration import CONSTANTS, configuration
from midwatch.orchestration.admission.functions import COORDINATOR, FUNCTIONS, SHARED
from midwatch.orchestration.admission.legend import (
    BOUNDS,
    CALL,
    LINEAGE,
    OWN,
    PAST,
    STATE,
    SUM,
    with_stored_names,
)
from midwatch.orchestration.admission.legend_of_configuration import CONFIG, Field
from midwatch.schemas.limits import Limits
from midwatch.schemas.lineage import Bounds

FOLDER = Path(legend.__file__).parent / "lua"
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.lua")}
CODE = {name: re.sub(r"--.*", "", text) for name, text in SOURCES.items()}
ALL_CODE = "\n".join(CODE.values())

RELEASED = {
    "state": "br bu cap cb cf ck cl cr cs ct cu ev f fc ft g gb gp gs guess la lf lim live lv na name no nq nx p9 pa pb pf pg pk "
    "pl po pp pq pr ps pu pw px rb rn rr sk sr ss ta tb tf th tr ts tw nt v vb w wa wb wf wg wk wn wo wr ws",
    "call": "at bh fc fe fr g hr i lane li lo lx m o p pt root s tag tr w y",
    "past": "a l n o u",
    "own": "a b c f k l n t w",
    "sum": "c n t",
    "bounds": "c i o s t w",
    "lineage": "bi bo n ri ro t u ui uo uu",
    "config": "brake_ms burst_ms cold cold_after_ms count_cached cut cut_gap_ms f_min fail_ratio headroom i in_a_row "
    "min_calls name o open_max_ms open_ms pause_max_ms priorities probe_max_ms probe_min_ms probe_ok probes q ramp_ms "
    "recover_ms reserve_output retry_cap retry_floor retry_ratio said sick_ms sick_ratio t tenants throttle_pause_ms "
    "trial_gap_ms version window_ms",
}
"""The stored names that other releases read and write. A name is added here with its field, and never leaves."""


def words(*tables: str) -> set[str]:
    """Every word that the Lua code writes for a field of these tables."""
    names = "|".join(tables)
    found = set(re.findall(rf"\b(?:{names})\.(\w+)", ALL_CODE))
    for body in re.findall(rf"\b(?:{names}) = \{{([^{{}}]*)\}}", ALL_CODE):
        found |= set(re.findall(r"\b(\w+)(?= = )", body))
    return found


def test_the_legend_lists_every_field_of_the_state_and_no_other():
    """Each field of a downstream's state that the functions read or write is listed."""
    assert words("state") == set(STATE)


def test_the_legend_lists_every_field_of_a_call_and_no_other():
    """Each field of a call's record that the functions read or write is listed."""
    assert words("call", "known") == set(CALL)
    assert words("past") == set(PAST)


BY_RESOURCE = {f"{name}_per_minute" for name in legend.RESOURCES}
"""Fields of the configuration that the functions read as `config[resource]`."""


def test_the_legend_lists_every_field_of_the_configuration_and_no_other():
    """Each field that Python writes is listed, and the functions read no other."""
    written = set(re.findall(r'"(\w+)":', configuration("jira", Limits(), 1).partition('"said"')[0]))
    stored = {field.stored for field in CONFIG.values()}
    assert written - {"high", "normal", "low"} == stored - {"said"}
    assert words("config", "before") <= set(CONFIG)
    assert set(CONFIG) - words("config", "before") <= BY_RESOURCE | WEIGHTS
    assert set(CONSTANTS) <= set(CONFIG)


WEIGHTS = {"priorities", "tenants"}
"""Read from the field `weights`."""


def test_the_legend_lists_every_field_of_a_lineage_and_no_other():
    """`lineage.lua` alone reads and writes them, and the legend lists each. `members.lua` has the fields of single jobs."""
    fields = {found for line in CODE["lineage"].splitlines() for found in re.findall(r"'([a-z]{1,2})'", line)}
    assert fields == {field.stored for field in LINEAGE.values()}
    others = "\n".join(text for name, text in CODE.items() if name not in ("lineage", "members"))
    assert not re.search(r"redis\.call\([^)]*\b(LINEAGE|lineage)\b", others)


@pytest.mark.parametrize(("table", "fields"), [("own", OWN), ("sum", SUM)])
def test_the_legend_lists_every_field_of_a_job_of_a_lineage(table: str, fields: dict[str, Field]):
    """What a job has used, and what it and its descendants have used."""
    assert words(table) == set(fields)


def test_every_limit_of_a_job_of_a_lineage_is_sent_by_its_stored_name():
    """Python writes the limits of `legend.BOUNDS`, and the functions read no other."""
    every = Bounds(max_steps=1, max_tool_calls=1, max_input_tokens=1, max_output_tokens=1, max_children=1)
    sent = {**encode_bounds(every), **encode_bounds(Bounds(max_tool_calls={"add": 1}))}
    assert set(sent) == {field.stored for field in BOUNDS.values()}
    assert words("bounds") == set(BOUNDS)


@pytest.mark.parametrize("table", RELEASED)
def test_stored_names_are_those_of_the_releases_before(table: str):
    """While a fleet is upgraded, workers of two releases share one state."""
    others = {"past": PAST, "own": OWN, "sum": SUM, "bounds": BOUNDS}
    fields = {"state": STATE, "call": CALL, "lineage": LINEAGE, "config": CONFIG, **others}[table]
    assert {field.stored for field in fields.values()} == set(RELEASED[table].split())


@pytest.mark.parametrize("fields", [STATE, CALL, LINEAGE, PAST, CONFIG, OWN, SUM, BOUNDS])
def test_every_field_has_a_unit_and_a_meaning(fields: dict[str, Field]):
    """No two fields share a stored name, except two of a call that never exist together."""
    assert all(field.unit and field.meaning for field in fields.values())
    stored = [field.stored for word, field in fields.items() if (fields, word) != (CALL, "reason")]
    assert len(stored) == len(set(stored))


def test_letters_of_the_scripts_are_those_of_the_legend():
    """Resources, call states and lines have the same names and letters in Lua and in Python."""
    named = dict(zip(*assignment("REQUESTS"), strict=True))
    assert list(named.values()) == list(legend.RESOURCES.values())
    assert dict(zip(*assignment("WAITING"), strict=True)) == legend.CALL_STATES
    assert dict(zip(*assignment("HIGH_LANE"), strict=True)) == legend.LANES


def assignment(first: str) -> tuple[list[str], list[str]]:
    """Names and letters of the line `local FIRST, ... = 'x', ...`."""
    found = re.search(rf"^local ({first}\b.*) = (.*)$", CODE["prelude"], re.MULTILINE)
    assert found
    return found[1].split(", "), re.findall(r"'(\w+)'", found[2])


def test_a_word_that_is_not_in_the_legend_is_refused():
    """A misspelt field fails when the library is loaded, not in a decision."""
    with pytest.raises(KeyError):
        with_stored_names("state.paused_untill = 0")


def test_the_loader_puts_stored_names_in_place_of_words():
    """It replaces fields, and keys of new tables. A local variable of the same name stays."""
    lua = (
        "local fence = 1\nlocal call = { state = LIVE, fence = fence }\nif state.paused_until > call.starts_at then end"
    )
    assert (
        with_stored_names(lua)
        == "local fence = 1\nlocal call = { s = LIVE, fe = fence }\nif state.pu > call.at then end"
    )


def test_every_file_is_a_function_or_shared():
    """Each function has a typed Python function of the same name."""
    functions = {*FUNCTIONS, *COORDINATOR.bare}
    assert set(SOURCES) == functions | set(SHARED)
    assert all(callable(getattr(script_calls, name)) for name in functions)


def parameters(function: Callable[..., Any]) -> list[str]:
    """The keyword arguments, in order."""
    return [name for name, each in signature(function).parameters.items() if each.kind is Parameter.KEYWORD_ONLY]


@pytest.mark.parametrize("name", [*FUNCTIONS, *COORDINATOR.bare])
def test_a_scripts_arguments_are_those_of_its_python_function(name: str):
    """Names and order agree in the contract comment, in the Lua code and in Python."""
    comment = re.search(r"^-- ARGV:.*\n((?:--   .*\n)*)", SOURCES[name], re.MULTILINE)
    assert comment
    promised = re.findall(r"^--   (\w+)  +\S", comment[1], re.MULTILINE)
    assert promised == parameters(getattr(script_calls, name))
    unpacked = re.search(r"^local ([\w,\s]+?) = unpack\(ARGV\)$", CODE[name], re.MULTILINE)
    assert (re.split(r",\s+", unpacked[1]) if unpacked else []) == promised
    assert not re.search(r"ARGV\[", CODE[name]), "arguments have names"


@pytest.mark.parametrize("name", ["admit", "settle", "release", "control", "due"])
def test_arguments_are_sent_in_the_order_of_the_signature(name: str):
    """Each argument arrives at the place where the script reads it."""
    function = getattr(script_calls, name)
    values = {each: f"<{each}>" for each in parameters(function)}
    sent = {**values, "headers": None} if "headers" in values else values
    expected = {**values, "headers": ""} if "headers" in values else values
    assert list(function(["key"], **sent).args) == list(expected.values())
