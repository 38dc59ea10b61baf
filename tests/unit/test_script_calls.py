"""A script and its Python function agree: the same name, the same arguments in the same order, the same keys."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from midwatch.orchestration.keyspace import Keyspace
from midwatch.orchestration.store.script_calls import (
    begin_work,
    bring_back,
    commit_work,
    first_steps,
    operate,
    put_aside,
    redrive,
    script_call,
    shorten,
)
from midwatch.orchestration.store.script_library import STEP_MACHINE, add_called
from midwatch.orchestration.store.step_keys import StepKeys
from midwatch.schemas.model import Usage

LUA = Path(script_call.__file__).parents[1] / "lua"
SHARED = {
    "arguments",
    "endings",
    "first_steps",
    "job_clock",
    "losses",
    "lost",
    "model_turn",
    "names",
    "originals",
    "prelude",
}
MODEL_TURN = (LUA / "model_turn.lua").read_text()
MODULES: tuple[ModuleType, ...] = (
    begin_work, bring_back, commit_work, first_steps, operate, put_aside, redrive, shorten,
)  # fmt: skip
ROWS = {"calls": commit_work.CallOfTurn, "results": commit_work.ResultOfCall}
"""Lists whose items are rows with names."""


class Argument(NamedTuple):
    """One argument in the contract of a script: `step`, or `calls[](step, started)`."""

    name: str
    is_list: bool
    fields: tuple[str, ...]


def section(text: str, title: str) -> list[str]:
    """The lines of one part of a contract: `-- ARGV:`, then one line for each."""
    lines = iter(text.splitlines())
    found = []
    for line in lines:
        if line == f"-- {title}:":
            break
    for line in lines:
        if not line.startswith("--   "):
            break
        found.append(line.removeprefix("--   "))
    return found


def contract(text: str) -> list[Argument]:
    """The arguments that a script's contract names."""
    found = []
    for line in section(text, "ARGV"):
        match = re.match(r"(\w+)(\[\])?(?:\(([\w, ]+)\))?(?:  |$)", line)
        assert match, f"an argument is a name, then two spaces and what it is: {line!r}"
        name, is_list, fields = match.groups()
        found.append(Argument(name, bool(is_list), tuple(fields.split(", ")) if fields else ()))
    return found


def names(text: str) -> list[str]:
    return re.split(r",\s*", text.strip())


def bound(text: str) -> list[Argument]:
    """The arguments that a script binds to names."""
    single = re.search(r"^local ([\w,\s]+?) = (?:unpack\(ARGV\)|take\((\d+)\))$", text, re.MULTILINE)
    found = [Argument(name, False, ()) for name in names(single[1])] if single else []
    if single and single[2]:
        assert int(single[2]) == len(found), "take(n) takes as many as it names"
    lists = re.search(r"^local ([\w,\s]+?) = (take_list.*)$", text, re.MULTILINE)
    if lists:
        widths = re.findall(r"take_list\((\d*)\)", lists[2])
        for name, width in zip(names(lists[1]), widths, strict=True):
            found.append(Argument(name, True, ("",) * int(width or 0)))
    return found


def loops(text: str) -> Iterator[tuple[list[str], str, int]]:
    """Yield each loop of a script over a list of rows: the loop's variables, the list, and the number of fields in a row."""
    for variables, name, width in re.findall(r"for ([\w, ]+) in rows_of\((\w+), (\d+)\)", text):
        yield names(variables), name, int(width)


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in MODULES:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                yield name, function


FUNCTIONS = dict(functions())
SCRIPTS = {path.stem: path.read_text() for path in sorted(LUA.glob("*.lua")) if path.stem not in SHARED}


def test_every_script_has_one_function_and_every_function_a_script():
    """The file `claim.lua` is called by the function `claim`."""
    assert set(FUNCTIONS) == set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_function_takes_the_arguments_of_the_contract_in_order(script):
    """The keyword arguments of the function have the names and the order of the script's contract."""
    parameters = inspect.signature(FUNCTIONS[script]).parameters.values()
    assert [one.name for one in parameters if one.kind is one.KEYWORD_ONLY] == [
        argument.name for argument in contract(SCRIPTS[script])
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_binds_the_arguments_of_its_contract_in_order(script):
    """The script's first lines bind the names of its contract. A list has the number of fields that the contract gives it."""
    declared, taken = contract(SCRIPTS[script]), bound(SCRIPTS[script])
    assert [argument[:2] for argument in taken] == [argument[:2] for argument in declared]
    assert [len(argument.fields) for argument in taken] == [len(argument.fields) for argument in declared]
    assert "ARGV[" not in SCRIPTS[script]


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_reads_the_rows_of_a_list_with_the_fields_of_its_contract(script):
    """A loop over the rows of a list has one variable for each field in the contract, and reads that number of fields."""
    widths = {argument.name: len(argument.fields) or 1 for argument in contract(SCRIPTS[script]) if argument.is_list}
    for variables, name, width in loops(SCRIPTS[script]):
        assert len(variables) == width == widths[name]


def test_shared_loops_have_as_many_variables_as_fields():
    """Shared functions that read a list have one variable for each field, as the scripts' contracts say."""
    found = {name: len(variables) for variables, name, width in loops(MODEL_TURN) if len(variables) == width}
    assert found == {"usage": 2, "names": 1}


def test_script_is_sent_with_only_the_functions_that_it_calls():
    """Functions that it calls directly or through another function are sent. A name in a comment is not a call."""
    shared = "local FIRST = 1\nlocal function a() end\n\n-- b\nlocal function b() a() end\nlocal function c() end\n"
    without_c, only_first = add_called(shared, "b() -- c\n"), add_called(shared, "-- a, c\n")
    assert re.findall(r"function (\w+)", without_c) == ["a", "b"]
    assert only_first == "local FIRST = 1\n-- a, c\n"


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_defines_every_function_that_it_calls(script):
    """A script that does not name a shared file in its line `-- Shared:` lacks the functions of that file."""
    text = STEP_MACHINE.source(script)
    shared = {
        name
        for file in SHARED
        for name in re.findall(r"^local function (\w+)", (LUA / f"{file}.lua").read_text(), re.M)
    }
    called = set(re.findall(r"(?<![\w.'])(\w+)\(", re.sub(r"--.*", "", text))) & shared
    assert called <= set(re.findall(r"^local function (\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("script", SCRIPTS)
def test_function_encodes_its_arguments_in_the_order_of_its_signature(script):
    """The arguments of `in_order`, first single values and then lists, are in the order of the function's parameters."""
    tree = ast.parse(inspect.getsource(FUNCTIONS[script]))
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "in_order"
    )
    assigned = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    used = []
    values, *lists = call.args
    assert isinstance(values, ast.Tuple)
    for value in [*values.elts, *lists]:
        source = assigned.get(value.id, value) if isinstance(value, ast.Name) else value
        used.append({node.id for node in ast.walk(source) if isinstance(node, ast.Name)})
    declared = [argument.name for argument in contract(SCRIPTS[script])]
    assert len(used) == len(declared)
    assert [name for name, inside in zip(declared, used, strict=True) if name not in inside] == []


def test_rows_of_a_list_have_the_fields_of_the_contract():
    """The fields of a row in Python are those of the contract, in the same order."""
    for script in SCRIPTS.values():
        for argument in contract(script):
            if argument.name in ROWS:
                assert ROWS[argument.name]._fields == argument.fields


def test_the_keys_of_a_step_are_those_of_the_prelude_in_order():
    """KEYS, their names in Lua, and `StepKeys` agree."""
    prelude = (LUA / "prelude.lua").read_text()
    declared = [line.split()[0] for line in section(prelude, "KEYS")]
    (in_lua,) = re.findall(r"^local ([\w,\s]+) = unpack\(KEYS\)$", prelude, re.MULTILINE)
    assert [name.lower() for name in names(in_lua)] == declared
    assert list(StepKeys._fields) == declared


@pytest.mark.parametrize(
    ("script", "call"),
    [
        ("sweep", lambda keys: bring_back.sweep(
            keys, 3, limit=1, patience_ms=1, stale_ms=1, model_queue_idle=True, tools_queue_idle=True
        )),
        ("wake", lambda keys: bring_back.wake(keys, 3, members=["normal|s1|job-1|1"])),
        ("compact_begin", lambda keys: shorten.compact_begin(keys, "s1", nonce="n", lock_ms=1, job="")),
        ("compact", lambda keys: shorten.compact(
            keys, "s1", "job", nonce="n", epoch=0, known_length=1, known_digest="", kept_s=1, new_memory=None, most_bytes=1,
            archived=(), replaced=(), kept_results=(), removed=(), usage=Usage(),
        )),
        ("keep_result", lambda keys: shorten.keep_result(keys, "s1", kept_s=1, most_bytes=1, handle="h", body=b"")),
        ("forget", lambda keys: shorten.forget(keys, (), session_id="s1", detail="")),
    ],
)  # fmt: skip
def test_a_script_with_other_keys_is_given_those_it_names(script, call):
    """The keys are in the order of the contract. Each key ends with its name in the contract."""
    declared = [line.split()[0] for line in section(SCRIPTS[script], "KEYS") if not line.startswith("then ")]
    keys = call(Keyspace("mw")).keys
    assert [key.rpartition(":")[2] for key in keys] == [name.replace("session", "s1") for name in declared]


def test_list_is_sent_as_its_length_and_its_items():
    """Items of several fields are sent one field after the other; single values are sent as they are."""
    assert script_call.in_order(("1", 7, b"x")) == ["1", 7, b"x"]
    assert script_call.in_order((), [], ("a", "b"), [("c", 1), ("d", 2)]) == [0, 2, "a", "b", 2, "c", 1, "d", 2]


def test_contract_of_another_order_is_found():
    """This shows that the check works: the script has another order of names than its contract, and a list of other width."""
    text = "-- ARGV:\n--   step\n--   fence   of the claim\n--   calls[](step, member)\n-- Output: 1\n"
    script = text + "local fence, step = take(2)\nlocal calls = take_list(3)\n"
    assert contract(script) == [
        Argument("step", False, ()), Argument("fence", False, ()), Argument("calls", True, ("step", "member")),
    ]  # fmt: skip
    assert [argument.name for argument in bound(script)] == ["fence", "step", "calls"]
    assert len(bound(script)[2].fields) == 3
