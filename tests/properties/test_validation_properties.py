"""Validation returns for any input: it never raises, and never accepts what the schema refuses."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from midwatch import tool
from midwatch.orchestration.tools.toolbox import CheckedCall, RefusedCall, Toolbox
from midwatch.orchestration.validation.arguments import MAX_ARGUMENT_BYTES, parse_arguments
from midwatch.orchestration.validation.problems import MAX_PROBLEMS, MAX_SHOWN_CHARS, explain
from midwatch.schemas.message import ToolCall
from midwatch.validators import InvalidArguments, JSONSchemaValidator

NAMES = st.sampled_from(["a", "b", "c", "type", "$ref", "x/y~z"])
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-50, 50)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(10**400) | st.just({1}),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=20,
)
SCALAR_SCHEMAS = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "boolean", "null", "array", "object"])}),
    st.fixed_dictionaries({"enum": st.lists(st.text(max_size=2) | st.integers(-3, 3), min_size=1, max_size=3)}),
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "number"]), "minimum": st.integers(-20, 20)}),
    st.fixed_dictionaries({"type": st.just("string"), "maxLength": st.integers(0, 4)}),
)
SCHEMAS = st.recursive(
    SCALAR_SCHEMAS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "uniqueItems": st.booleans()}),
        st.builds(
            lambda properties, required, closed: {
                "type": "object",
                "properties": properties,
                "required": sorted(required & set(properties)),
                "additionalProperties": not closed,
            },
            st.dictionaries(NAMES, inner, max_size=4),
            st.sets(NAMES),
            st.booleans(),
        ),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
    ),
    max_leaves=6,
)


def satisfies(value: Any, schema: dict[str, Any]) -> bool:
    """Check a value with a second implementation of these few keywords."""
    types = {
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "null": value is None,
        "array": isinstance(value, list),
        "object": isinstance(value, dict),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
        "integer": isinstance(value, int | float) and not isinstance(value, bool) and value == math.floor(value),
    }
    if "anyOf" in schema:
        return any(satisfies(value, branch) for branch in schema["anyOf"])
    if "enum" in schema:
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in schema["enum"])
    if not types[schema["type"]]:
        return False
    if isinstance(value, str):
        return bool(len(value) <= schema.get("maxLength", 99))
    if isinstance(value, list):
        texts = [json.dumps(normal(item), sort_keys=True) for item in value]
        unique = len(set(texts)) == len(texts) or not schema.get("uniqueItems")
        return unique and all(satisfies(item, schema["items"]) for item in value if "items" in schema)
    if isinstance(value, dict):
        known = schema.get("properties", {})
        closed = schema.get("additionalProperties", True) is False
        return (
            all(name in value for name in schema.get("required", ()))
            and not (closed and set(value) - set(known))
            and all(satisfies(item, known[name]) for name, item in value.items() if name in known)
        )
    return value is None or isinstance(value, bool) or bool(value >= schema.get("minimum", -math.inf))


def normal(value: Any) -> Any:
    """Return a value in a normal form. 1.0 and 1 are the same number in JSON, but `json.dumps` writes them differently."""
    if isinstance(value, list):
        return [normal(item) for item in value]
    if isinstance(value, dict):
        return {key: normal(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value == math.floor(value) else value


@given(
    properties=st.dictionaries(NAMES, SCHEMAS, max_size=4),
    arguments=st.dictionaries(NAMES, JSON_VALUES, max_size=4),
    closed=st.booleans(),
)
def test_there_are_problems_exactly_for_invalid_values(
    properties: dict[str, Any], arguments: dict[str, Any], closed: bool
) -> None:
    """An implementation without the library's code gives the same result."""
    schema = {"type": "object", "properties": properties, "additionalProperties": not closed}
    problems = JSONSchemaValidator(schema).problems(arguments)
    assert (problems == ()) is satisfies(arguments, schema)
    assert len(problems) <= MAX_PROBLEMS
    assert list(problems) == sorted(problems)
    assert all(len(problem.got) <= MAX_SHOWN_CHARS for problem in problems)


@given(schema=SCHEMAS, value=ANYTHING)
def test_problems_never_raises(schema: dict[str, Any], value: object) -> None:
    """Bytes, sets, NaN, very long numbers and names that are not strings give problems."""
    validator = JSONSchemaValidator({"type": "object", "properties": {"a": schema}})
    for arguments in (value, {"a": value}):
        explain(validator.problems(arguments), validator.schema).encode(errors="surrogatepass")


@given(raw=st.text() | st.text(alphabet='{}[]",:\\u0123456789abcdefEnrtls+-. \n'), has_required=st.booleans())
@example(raw="\ud800", has_required=True)
@example(raw='{"a":' * 400_000, has_required=True)
@example(raw=" " * (MAX_ARGUMENT_BYTES + 1), has_required=False)
def test_parsing_gives_an_object_or_invalid_arguments(raw: str, has_required: bool) -> None:
    """This holds for any text. Accepted arguments can be written as JSON again."""
    found = parsed(raw, has_required)
    if isinstance(found, InvalidArguments):
        assert 0 < len(found.message) < 500
    else:
        json.dumps(found, allow_nan=False).encode()


def parsed(raw: str, has_required: bool = True) -> dict[str, Any] | InvalidArguments:
    try:
        return parse_arguments(raw, has_required=has_required)
    except InvalidArguments as error:
        return error


@given(value=st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=5), data=st.data())
def test_valid_json_is_decoded_and_a_cut_text_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    """The whole text gives the value. Any beginning of it is refused, and never gives another object."""
    raw = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    assert parse_arguments(raw, has_required=True) == value
    found = parsed(raw[: data.draw(st.integers(1, len(raw) - 1))])
    assert isinstance(found, InvalidArguments)
    assert found.kind == "cut_off"


@tool
def probe(a: int, b: list[str] | None = None) -> str:
    """Probe."""
    assert isinstance(a, int | float)
    assert b is None or all(isinstance(item, str) for item in b)
    return "ran"


BOX = Toolbox([probe])


@given(
    name=st.sampled_from(["probe", "prob", ""]),
    arguments=st.dictionaries(NAMES, JSON_VALUES, max_size=3),
    cut=st.integers(0, 3),
)
def test_a_call_is_refused_or_safe_to_run(name: str, arguments: dict[str, Any], cut: int) -> None:
    """The toolbox accepts only arguments with which the function can be called."""
    raw = json.dumps(arguments)
    found = BOX.check(ToolCall(id="", name=name, raw_arguments=raw[: len(raw) - cut]))
    if isinstance(found, CheckedCall):
        assert found.tool(**found.arguments) == "ran"
    else:
        assert isinstance(found, RefusedCall)
        assert 0 < len(found.message) < 5_000
