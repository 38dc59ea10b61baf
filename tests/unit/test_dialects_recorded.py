"""Schemas from elsewhere, in the form in which each provider gets them."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from midwatch.orchestration.dialects.root import COMPOSED, NotOneObject, to_one_object
from midwatch.orchestration.dialects.rules import check
from midwatch.orchestration.dialects.vendor_form import to_vendor_tool
from midwatch.orchestration.errors import ConfigError
from midwatch.schemas.tools import ToolSpec
from midwatch.validators import JSONSchemaValidator

DATA = Path(__file__).parents[3] / "shared" / "data"

if not DATA.is_dir():
    if os.environ.get("CI"):
        raise FileNotFoundError("recorded data: expected ../shared/data beside the repository, CI needs it")
    pytest.skip("no recorded data in ../shared/data beside the repository", allow_module_level=True)

RENAMED = {
    "dict": "object", "HashMap": "object", "Hashtable": "object", "float": "number", "double": "number", "long": "integer",
    "int": "integer", "byte": "integer", "short": "integer", "Bigint": "integer", "list": "array", "tuple": "array",
    "Array": "array", "ArrayList": "array", "Queue": "array", "Stack": "array", "set": "array", "String": "string",
    "char": "string", "Boolean": "boolean", "bool": "boolean",
}  # fmt: skip


def load(name: str) -> Any:
    return json.loads(gzip.decompress((DATA / name).read_bytes()))


def specs(schemas: list[Any]) -> Iterator[ToolSpec]:
    """The schemas that can be declared."""
    for schema in schemas:
        try:
            declared = JSONSchemaValidator(schema).schema
        except ConfigError:
            continue
        yield ToolSpec(name="probe", description="A probe.", input_schema=declared)


def ended(provider: str, tool: ToolSpec) -> str:
    """`as written`, `rewritten` or `refused`. Checks that the sent form breaks no rule of the vendor."""
    try:
        found = check(provider, [tool])
    except ConfigError:
        return "refused"
    sent = to_vendor_tool(provider, tool)
    if provider != "gemini":  # its adapter rewrites the rest
        assert check(provider, [sent]) == ()
        assert (sent is tool) is (found == ())
    return "rewritten" if any(difference.rewritten for difference in found) else "as written"


def test_no_tool_of_a_real_server_is_refused() -> None:
    """133 tools of ten MCP servers are accepted."""
    tools = list(
        specs([one["inputSchema"] for box in load("mcp_server_tools.json.gz")["servers"].values() for one in box])
    )
    assert len(tools) == 133
    found = {
        provider: Counter(ended(provider, tool) for tool in tools) for provider in ("anthropic", "openai", "gemini")
    }
    assert found == {
        "anthropic": {"as written": 133},
        "openai": {"as written": 120, "rewritten": 13},
        "gemini": {"rewritten": 133},
    }


def renamed(value: Any) -> Any:
    """The function docs with the types that the error message suggests. `any` is not a type."""
    if isinstance(value, list):
        return [renamed(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: one for key, one in value.items() if (key, one) != ("type", "any")}
    return {
        key: RENAMED.get(one, one) if key == "type" and isinstance(one, str) else renamed(one)
        for key, one in kept.items()
    }


def test_function_docs_are_accepted_after_fixing_their_types() -> None:
    """Of 1,248 docs, 100 have a default that breaks its own schema, and are refused."""
    lines = gzip.decompress((DATA / "bfcl_function_docs.jsonl.gz").read_bytes()).splitlines()
    tools = list(specs([renamed(json.loads(line)["function"]["parameters"]) for line in lines]))
    assert (len(lines), len(tools)) == (1_248, 1_148)
    for provider in ("anthropic", "openai"):
        assert Counter(ended(provider, tool) for tool in tools) == {"as written": 1_148}


def test_one_object_accepts_all_that_the_standards_cases_accept() -> None:
    """For each schema with alternatives at its top level, its valid objects are valid for the one object, too."""
    seen: Counter[str] = Counter()
    for name, kind in (("draft2020-12", Draft202012Validator), ("draft7", Draft7Validator)):
        groups = [one for file, found in load(f"json_schema_test_suite/{name}.json.gz").items()
                  if "optional" not in file for one in found]  # fmt: skip
        for group in groups:
            schema = group["schema"]
            if not isinstance(schema, dict) or not set(COMPOSED) & set(schema):
                continue
            valid = [test["data"] for test in group["tests"] if isinstance(test["data"], dict) and test["valid"]]
            try:
                sent = to_one_object(schema).schema
            except NotOneObject as error:
                seen["said to be impossible, and possible"] += bool(valid and "no object" in str(error))
                continue
            seen["schemas"] += 1
            for call in valid:
                seen["objects"] += 1
                assert kind(sent).is_valid(call), (group["description"], sent, call)
    assert seen == {"schemas": 79, "objects": 56, "said to be impossible, and possible": 0}
