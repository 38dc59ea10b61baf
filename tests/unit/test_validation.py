"""JSONSchemaValidator: which schemas it refuses, which arguments it accepts, and how it describes problems."""

from __future__ import annotations

import math
from typing import Any

import pytest

from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.validation.problems import explain
from midwatch.validators import JSONSchemaValidator, Problem

TICKETS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "minLength": 2},
        "status": {"enum": ["open", "closed"]},
        "limit": {"anyOf": [{"type": "integer", "maximum": 100}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
    },
    "required": ["query"],
    "additionalProperties": False,
}


def one_property(schema: object) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": schema}}


def problems_of(schema: object, value: object) -> tuple[Problem, ...]:
    return JSONSchemaValidator(one_property(schema)).problems({"x": value})


def test_valid_arguments_have_no_problems() -> None:
    """Arguments that satisfy the schema pass, with or without optional properties."""
    validator = JSONSchemaValidator(TICKETS)
    assert validator.problems({"query": "printer"}) == ()
    assert validator.problems({"query": "printer", "status": "open", "limit": None, "tags": ["a", "b"]}) == ()


def test_a_problem_names_place_expectation_and_value() -> None:
    """There is one problem for each mistake, sorted by place. A near miss gets a hint."""
    came = {"status": "opn", "limit": 500, "tags": ["a", 1, "a"], "qery": "x"}
    problems = JSONSchemaValidator(TICKETS).problems(came)
    assert [str(problem) for problem in problems] == [
        "/limit: expected at most 100; got 500",
        '/qery: expected no such property, did you mean "query"?; got "x"',
        "/query: expected string (it is required); got nothing",
        '/status: expected one of "open", "closed" (did you mean "open"?); got "opn"',
        "/tags/1: expected string; got 1",
        '/tags/2: expected an item that is not there already; got "a"',
    ]


def test_the_explanation_ends_with_all_properties() -> None:
    """One line lists the whole input, since the model may have misread the schema."""
    problems = JSONSchemaValidator(TICKETS).problems({})
    assert explain(problems, TICKETS).splitlines() == [
        "/query: expected string (it is required); got nothing",
        'Required: query (string). Optional: status (one of "open", "closed"), limit (integer or null), tags (array).',
    ]


def test_at_most_ten_problems_are_listed() -> None:
    """A thousand wrong items give ten lines and a note that there are more."""
    validator = JSONSchemaValidator(one_property({"type": "array", "items": {"type": "string"}}))
    problems = validator.problems({"x": list(range(1000))})
    assert len(problems) == 10
    assert "Only the first 10 problems are listed." in explain(problems, validator.schema)


def test_a_shown_value_is_limited() -> None:
    """Of a megabyte only the first 200 characters are shown."""
    (problem,) = problems_of({"type": "integer"}, "y" * 1_000_000)
    assert len(problem.got) == 200
    assert problem.got.endswith("…")


def test_pointers_are_escaped() -> None:
    """By RFC 6901, `~` and `/` in a name must not look like levels."""
    (problem,) = JSONSchemaValidator({"type": "object", "additionalProperties": {"type": "string"}}).problems(
        {"a/b~c": 1}
    )
    assert problem.pointer == "/a~1b~0c"


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"const": 3}, 4, "3"),
        ({"type": ["string", "null"]}, 1, "string or null"),
        ({"exclusiveMinimum": 0}, 0, "more than 0"),
        ({"multipleOf": 5}, 7, "a multiple of 5"),
        ({"pattern": "^a$"}, "b", 'text that matches "^a$"'),
        ({"format": "date"}, "yesterday", "text in the format date"),
        ({"minItems": 1}, [], "at least 1 items"),
        ({"not": {"type": "string"}}, "s", "a value that the schema's `not` does not describe"),
        (False, 1, "nothing here"),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, [], "string or integer"),
        ({"$ref": "#/$defs/port", "$defs": {}}, 0, "at least 1"),
    ],
)
def test_expectations_are_in_plain_words(schema: Any, value: object, expected: str) -> None:
    """Each keyword has its own text, which a model understands better than the library's."""
    whole = one_property(schema) | {"$defs": {"port": {"minimum": 1}}}
    (problem,) = JSONSchemaValidator(whole).problems({"x": value})
    assert problem.expected == expected


def test_a_union_is_explained_by_the_meant_alternative() -> None:
    """If one alternative has the value's type, its problems are shown. If several have, all are listed."""
    schema = {"anyOf": [{"type": "object", "required": ["id"]}, {"type": "null"}]}
    (problem,) = problems_of(schema, {})
    assert (problem.pointer, problem.keyword) == ("/x/id", "required")


def test_a_union_with_a_tag_property_is_explained_by_the_tag() -> None:
    """`expected object; got {...}` would not help. The wrong value is the property that selects the alternative."""
    shapes = [{"type": "object", "properties": {"kind": {"const": kind}}} for kind in ("page", "block")]
    (problem,) = problems_of({"oneOf": shapes}, {"kind": "pge"})
    assert str(problem) == '/x/kind: expected one of "page", "block"; got "pge"'


@pytest.mark.parametrize(
    ("schema", "finding"),
    [
        ([], "expected a dict"),
        ({"type": "array"}, 'expected "object" (arguments are named), got "array"'),
        ({"order": {"type": "string"}}, 'expected "object" (arguments are named), got nothing'),
        (one_property({"type": "dict"}), 'did you mean "object"?'),
        (one_property({"type": "float"}), 'did you mean "number"?'),
        (one_property({"type": "any"}), "leave `type` out"),
        (one_property({"type": "strng"}), 'did you mean "string"?'),
        (one_property({"type": ["int", "null"]}), 'did you mean "integer"?'),
        (one_property({"minimum": "1"}), "schema /properties/x/minimum"),
        (one_property({"pattern": r"^[a-z"}), "not a regular expression of ECMA-262"),
        ({"type": "object", "patternProperties": {r"(?:(?:(?=a)|b){0,9999}){0,9999}c": {}}}, "too expensive"),
        (one_property({"enum": [math.nan]}), "expected JSON values only"),
        (one_property({"enum": [{1}]}), "expected JSON values only"),
        (one_property({"description": "x" * 300_000}), "split the tool"),
        (one_property({"$ref": "https://example.com/x.json"}), "nothing is fetched"),
        (one_property({"$ref": "file:///etc/hostname"}), "nothing is fetched"),
        (one_property({"$ref": "#/$defs/nowhere"}), "does not point to a place inside"),
        (one_property({"$ref": "https://json-schema.org/draft/2020-12/schema"}), "nothing is fetched"),
        ({"type": "object", "$schema": "http://json-schema.org/draft-04/schema#"}, "2020-12"),
        ({"type": "object", "$schema": 7}, "2020-12"),
        (one_property({"$schema": "http://json-schema.org/draft-07/schema#"}), "only one `$schema`"),
        ({"type": "object", "allOf": [{"$ref": "#"}]}, "leads back to itself"),
        (one_property({"$ref": "#/properties/x"}), "leads back to itself"),
    ],
)
def test_an_unusable_schema_is_refused_at_declaration(schema: Any, finding: str) -> None:
    """The error names the first problem, and comes before any job runs."""
    with pytest.raises(ConfigError, match=r"^schema") as refused:
        JSONSchemaValidator(schema)
    assert finding in str(refused.value)
    assert len(str(refused.value)) < 1_000


def test_a_schema_nested_too_deeply_is_refused() -> None:
    """The check uses no recursion. It also refuses a structure that contains itself."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(100_000):
        deep = {"not": deep}
    endless: dict[str, Any] = {"type": "object"}
    endless["properties"] = {"x": endless, "y": endless}
    for schema in (one_property(deep), endless):
        with pytest.raises(ConfigError, match="nested deeper than 64 levels"):
            JSONSchemaValidator(schema)
    while "not" in deep:  # taken apart in a loop, since the interpreter would free it by recursion
        deep = deep.pop("not")


def test_a_schema_of_exponential_size_is_refused() -> None:
    """In thirty lines, each applying the next twice, 2^30 subschemas would apply to one value."""
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    defs["d30"] = {"type": "string"}
    with pytest.raises(ConfigError, match="apply to one value"):
        JSONSchemaValidator(one_property({"$ref": "#/$defs/d0"}) | {"$defs": defs})


def test_a_recursive_schema_works() -> None:
    """The schema of a tree refers to itself. This is accepted, because each reference leads to a deeper value."""
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#"}}},
    }
    for schema in (tree, tree | {"$schema": "https://json-schema.org/draft/2020-12/schema"}):
        validator = JSONSchemaValidator(schema)
        assert validator.problems({"name": "a", "kids": [{"name": "b", "kids": []}]}) == ()
        (problem,) = validator.problems({"kids": [{"kids": [{"name": 1}]}]})
        assert problem.pointer == "/kids/0/kids/0/name"


def test_draft_7_is_used_if_the_schema_names_it() -> None:
    """A list as `items` is a tuple in draft-07, and an error in 2020-12."""
    pair = one_property({"items": [{"type": "string"}, {"type": "integer"}]})
    validator = JSONSchemaValidator(pair | {"$schema": "http://json-schema.org/draft-07/schema#"})
    assert validator.problems({"x": ["a", 1]}) == ()
    assert validator.problems({"x": [1, "a"]})
    with pytest.raises(ConfigError):
        JSONSchemaValidator(pair)


def test_the_schema_is_a_copy() -> None:
    """A later change of the given dict has no effect."""
    schema = one_property({"type": "string"})
    validator = JSONSchemaValidator(schema)
    schema["properties"]["x"]["type"] = "integer"
    assert validator.problems({"x": "text"}) == ()
    assert validator.schema["properties"]["x"] == {"type": "string"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_never_pass(value: float) -> None:
    """The library would accept NaN for `minimum` and `maximum`, since every comparison with NaN is false."""
    for schema in (True, {"type": "number"}, {"type": "number", "minimum": 0, "maximum": 1}):
        (problem,) = problems_of(schema, value)
        assert problem.expected == "a finite number"
        assert JSONSchemaValidator({"type": "object"}).problems({"deep": [{"er": value}]})


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", (1, 2), object(), 10**5000, 1j], ids=type)
def test_a_value_that_is_not_json_is_refused(value: object) -> None:
    """Such Python values don't reach the library, which would raise."""
    assert problems_of(True, value)
    assert problems_of({"multipleOf": 0.5, "minimum": 1}, value)


def test_arguments_nested_too_deeply_are_refused() -> None:
    """A hundred thousand levels are counted without recursion."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    (problem,) = JSONSchemaValidator({"type": "object"}).problems({"x": deep})
    assert problem.keyword == "depth"
    while deep:
        deep = deep.pop()


def test_arguments_that_are_no_object_are_a_problem() -> None:
    """A list or null gives a problem like any other mistake, and no exception."""
    values: list[object] = [[], None, "text", 3]
    for value in values:
        (problem,) = JSONSchemaValidator(TICKETS).problems(value)
        assert (problem.pointer, problem.expected) == ("", "object")


def test_unique_items_of_many_objects_are_fast() -> None:
    """5,000 objects, compared pair by pair, took 100 seconds."""
    rows = [{"id": number, "tags": [number]} for number in range(5_000)]
    assert problems_of({"type": "array", "uniqueItems": True}, rows) == ()
    (problem,) = problems_of({"type": "array", "uniqueItems": True}, [*rows, {"tags": [7.0], "id": 7}])
    assert problem.pointer == "/x/5000"
    assert problems_of({"uniqueItems": True}, [1, True, 0, False, "1", None]) == ()


def test_multiple_of_is_exact_for_decimals() -> None:
    """19.99 is a multiple of 0.01, but not in binary floating point."""
    assert problems_of({"multipleOf": 0.01}, 19.99) == ()
    assert problems_of({"multipleOf": 0.01}, 19.999)
    assert problems_of({"multipleOf": 1e-8}, 12391239123) == ()
    assert problems_of({"multipleOf": 2}, True) == ()


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date-time", "2026-11-24T09:30:00Z", "2026-11-24 09:30"),
        ("date-time", "2026-03-01T00:59:60.5+01:00", "2026-02-30T10:00:00Z"),
        ("time", "09:30:00.5-05:00", "25:00:00Z"),
        ("date", "2026-11-24", "24.11.2026"),
        ("uri", "https://example.com/a?b=c", "example.com/a b"),
        ("email", "someone@example.com", "someone"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567"),
        ("ipv4", "10.0.0.1", "10.0.0.256"),
    ],
)
def test_formats_are_checked(name: str, good: str, bad: str) -> None:
    """`format` is checked, but only for strings."""
    assert problems_of({"format": name}, good) == ()
    assert problems_of({"format": name}, bad)
    assert problems_of({"format": name}, 5) == ()


@pytest.mark.parametrize("hostile", ["(" * 5_000, "a{99999999999999999999}", "[", "a" * 100_000], ids=len)
def test_a_format_check_that_raises_gives_a_problem(hostile: str) -> None:
    """`format: regex` compiles the model's text. Any exception becomes a problem."""
    problems_of({"format": "regex"}, hostile)


@pytest.mark.parametrize(
    ("schema", "needs"),
    [
        ({"type": "object"}, False),
        (TICKETS, True),
        ({"type": "object", "minProperties": 1}, True),
        ({"type": "object", "allOf": [{"required": ["a"]}]}, True),
        ({"type": "object", "required": []}, False),
    ],
)
def test_has_required_is_false_if_an_empty_object_is_valid(schema: dict[str, Any], needs: bool) -> None:
    """It decides what an empty text means, so it must include requirements behind `allOf`."""
    assert JSONSchemaValidator(schema).has_required is needs
