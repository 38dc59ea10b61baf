"""Schemas and calls from elsewhere: the standard's test suite, real MCP servers, recorded sessions of models."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from referencing import Registry
from referencing.exceptions import Unresolvable

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.arguments import parse_arguments
from midwatch.orchestration.validation.formats import NAMES
from midwatch.orchestration.validation.keywords import DRAFTS, LATEST
from midwatch.validators import InvalidArguments, JSONSchemaValidator
from midwatch.workers.bench.validation import run

DATA = Path(__file__).parents[3] / "shared" / "data"

if not DATA.is_dir():
    if os.environ.get("CI"):
        raise FileNotFoundError("recorded data: expected ../shared/data beside the repository, CI needs it")
    pytest.skip("no recorded data in ../shared/data beside the repository", allow_module_level=True)


def load(name: str) -> Any:
    path = DATA / name
    return json.loads(gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes())


def rows(name: str) -> Iterator[dict[str, Any]]:
    with gzip.open(DATA / name, "rt") as lines:
        yield from map(json.loads, lines)


def calls(session: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for message in session["messages"]:
        for call in message.get("tool_calls") or ():
            yield call["function"]["name"], call["function"]["arguments"]


def finding(schema: Any) -> str:
    """'' if the schema is accepted, else the first problem."""
    try:
        JSONSchemaValidator(schema)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("suite", ["tau_retail", "tau_airline"])
def test_every_recorded_call_of_a_good_model_passes(suite: str) -> None:
    """GPT-4o's 100 tickets contain no invalid call, so the validator must refuse none."""
    tools = {
        tool["function"]["name"]: JSONSchemaValidator(tool["function"]["parameters"])
        for tool in load(f"{suite}/tools.json")
    }
    seen = 0
    for session in rows(f"{suite}/trajectories.jsonl.gz"):
        for name, raw in calls(session):
            arguments = parse_arguments(raw, has_required=tools[name].has_required)
            assert tools[name].problems(arguments) == ()
            seen += 1
    assert seen > 250


def test_schemas_made_by_pydantic_are_accepted() -> None:
    """74 tools of four suites, with `$defs`, `anyOf` with null, and titles."""
    found = [
        finding(tool["input_schema"]) for suite in load("agentdojo_tools.json")["suites"].values() for tool in suite
    ]
    assert len(found) == 74
    assert not any(found)


def test_real_servers_tools_are_accepted() -> None:
    """133 tools of ten MCP servers. 13 of one server have only `$schema`, without type and parameters."""
    found = [
        finding(tool["inputSchema"]) for tools in load("mcp_server_tools.json.gz")["servers"].values() for tool in tools
    ]
    assert Counter(found) == {"": 133}
    assert JSONSchemaValidator({"$schema": "http://json-schema.org/draft-07/schema#"}).schema["type"] == "object"


def test_foreign_types_are_refused_with_the_right_name() -> None:
    """1,248 function docs with `dict`, `float` and Java's types are refused at declaration. Each error is one line."""
    for row in rows("bfcl_function_docs.jsonl.gz"):
        found = finding(row["function"]["parameters"])
        assert found.startswith("schema ")
        assert "\n" not in found
        assert len(found) < 600
    assert 'did you mean "object"?' in finding({"type": "dict", "properties": {}})


def test_cut_off_and_invalid_arguments_are_distinguished() -> None:
    """The two need different advice. All other recorded calls decode."""
    found: Counter[str] = Counter()
    for session in rows("toolathlon_sessions.jsonl.gz"):
        for _, raw in calls(session):
            try:
                parse_arguments(raw, has_required=False)
                found["fine"] += 1
            except InvalidArguments as error:
                found[error.kind] += 1
    assert found == {"fine": 386, "not_json": 3, "cut_off": 2}


@pytest.mark.parametrize(
    ("dialect", "suite", "least"),
    [(LATEST, "draft2020-12", 1_240), ("http://json-schema.org/draft-07/schema", "draft7", 900)],
)
def test_the_standards_own_suite_passes(dialect: str, suite: str, least: int) -> None:
    """Every core test passes, except those that need a remote schema or another metaschema."""
    passed = 0
    files = load(f"json_schema_test_suite/{suite}.json.gz")
    for groups in (files[name] for name in files if name != "vocabulary.json" and not name.startswith("optional/")):
        for group in groups:
            schema = group["schema"]
            if isinstance(schema, dict):
                schema = {key: value for key, value in schema.items() if key != "$schema"}
            validator = DRAFTS[dialect](schema, registry=Registry())
            for case in group["tests"]:
                try:
                    valid = validator.is_valid(case["data"])
                except Unresolvable:  # remote schemas are not fetched
                    continue
                assert valid is case["valid"], (group["description"], case["description"])
                passed += 1
    assert passed >= least


def test_no_object_of_the_standards_suite_gets_a_wrong_verdict() -> None:
    """Of 742 tests whose data are an object, 662 are judged and none wrongly. Every refusal has a documented reason."""
    suites = [DATA / f"json_schema_test_suite/{name}.json.gz" for name in ("draft2020-12", "draft7")]
    found = run(None, lambda _: None, suites)
    assert found["cases"] == 742
    assert found["wrong_verdicts"] == []
    assert found["refusals"] == {"reference": 41, "default": 14, "object": 14, "json": 8, "draft": 3}


@pytest.mark.parametrize("name", [*NAMES, "ecmascript-regex", "unknown"])
def test_the_standards_suite_of_formats_passes(name: str) -> None:
    """Every case of every format passes: 764 in all."""
    for group in load("json_schema_test_suite/draft2020-12.json.gz")[f"optional/format/{name}.json"]:
        schema = {"type": "object", "properties": {"x": {"format": group["schema"]["format"]}}}
        validator = JSONSchemaValidator(schema)
        for case in group["tests"]:
            assert (validator.problems({"x": case["data"]}) == ()) is case["valid"], case
