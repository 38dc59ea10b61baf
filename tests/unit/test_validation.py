"""JSONSchemaValidator: what it refuses to be made of, what it lets through, what it says."""

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
    """What satisfies the schema passes, optional parts given or not."""
    validator = JSONSchemaValidator(TICKETS)
    assert validator.problems({"query": "printer"}) == ()
    assert validator.problems({"query": "printer", "status": "open", "limit": None, "tags": ["a", "b"]}) == ()


def test_every_problem_says_where_what_and_what_came() -> None:
    """One problem a fault, sorted by place: pointer, expectation, value, with a hint where a near miss is plain."""
    came = {"status": "opn", "limit": 500, "tags": ["a", 1, "a"], "qery": "x"}
    problems = JSONSchemaValidator(TICKETS).problems(came)
    assert [str(problem) for problem in problems] == [
        "/limit: expected at most 100; got 500",
        "/qery: expected no such property, did you mean 'query'?; got \"x\"",
        "/query: expected string (it is required); got nothing",
        '/status: expected one of "open", "closed" (did you mean "open"?); got "opn"',
        "/tags/1: expected string; got 1",
        '/tags/2: expected an item that is not there already; got "a"',
    ]


def test_the_explanation_ends_with_what_the_schema_asks_for() -> None:
    """The model is told the whole input in one line, because it may never have read the schema well."""
    problems = JSONSchemaValidator(TICKETS).problems({})
    assert explain(problems, TICKETS).splitlines() == [
        "/query: expected string (it is required); got nothing",
        'Required: query (string). Optional: status (one of "open", "closed"), limit (integer or null), tags (array).',
    ]


def test_at_most_ten_problems_are_listed_and_that_is_said() -> None:
    """A list of a thousand wrong items is answered in ten lines, not in a thousand."""
    validator = JSONSchemaValidator(one_property({"type": "array", "items": {"type": "string"}}))
    problems = validator.problems({"x": list(range(1000))})
    assert len(problems) == 10
    assert "Only the first 10 problems are listed." in explain(problems, validator.schema)


def test_what_came_is_bounded() -> None:
    """A megabyte in the wrong place is shown by its first 200 characters."""
    (problem,) = problems_of({"type": "integer"}, "y" * 1_000_000)
    assert len(problem.got) == 200
    assert problem.got.endswith("…")


def test_pointers_are_escaped() -> None:
    """RFC 6901: `~` and `/` in a name don't look like levels."""
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
    """Each keyword has its words; a model reads them better than the library's."""
    whole = one_property(schema) | {"$defs": {"port": {"minimum": 1}}}
    (problem,) = JSONSchemaValidator(whole).problems({"x": value})
    assert problem.expected == expected


def test_a_union_is_explained_by_the_alternative_that_was_meant() -> None:
    """Of several shapes, the one whose type fits is explained; with more than one, what would be right is listed."""
    schema = {"anyOf": [{"type": "object", "required": ["id"]}, {"type": "null"}]}
    (problem,) = problems_of(schema, {})
    assert (problem.pointer, problem.keyword) == ("/x/id", "required")


def test_shapes_told_apart_by_one_property_are_explained_by_it() -> None:
    """`expected object; got {...}` would help nobody: what is wrong is the property that says which shape it is."""
    shapes = [{"type": "object", "properties": {"kind": {"const": kind}}} for kind in ("page", "block")]
    (problem,) = problems_of({"oneOf": shapes}, {"kind": "pge"})
    assert str(problem) == '/x/kind: expected one of "page", "block"; got "pge"'


@pytest.mark.parametrize(
    ("schema", "finding"),
    [
        ([], "expected a dict"),
        ({"type": "array"}, 'expected "object" (arguments are named), got "array"'),
        ({"order": {"type": "string"}}, 'expected "object" (arguments are named), got nothing'),
        (one_property({"type": "dict"}), "did you mean 'object'?"),
        (one_property({"type": "float"}), "did you mean 'number'?"),
        (one_property({"type": "any"}), "leave `type` out"),
        (one_property({"type": "strng"}), "did you mean 'string'?"),
        (one_property({"type": ["int", "null"]}), "did you mean 'integer'?"),
        (one_property({"minimum": "1"}), "schema /properties/x/minimum"),
        (one_property({"pattern": r"^\p{L}+$"}), "bad escape"),
        (one_property({"pattern": "^(a+)+$"}), "exponential time"),
        ({"type": "object", "patternProperties": {"^(a|aa)+$": {}}}, "exponential time"),
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
def test_a_schema_that_can_not_be_used_is_refused_at_once(schema: Any, finding: str) -> None:
    """One finding, where the schema is declared: never at the third step of a job."""
    with pytest.raises(ConfigError, match=r"^schema") as refused:
        JSONSchemaValidator(schema)
    assert finding in str(refused.value)
    assert len(str(refused.value)) < 1_000


def test_a_schema_nested_too_deep_is_refused_without_falling_in() -> None:
    """Depth is bounded, in nesting and in a structure that contains itself."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(100_000):
        deep = {"not": deep}
    endless: dict[str, Any] = {"type": "object"}
    endless["properties"] = {"x": endless, "y": endless}
    for schema in (one_property(deep), endless):
        with pytest.raises(ConfigError, match="nested deeper than 64 levels"):
            JSONSchemaValidator(schema)
    while "not" in deep:  # taken apart by hand: the interpreter would free it by recursion
        deep = deep.pop("not")


def test_a_schema_that_doubles_itself_is_refused() -> None:
    """Thirty lines in which every `allOf` applies the next twice would judge one value 2^30 times."""
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(30)}
    defs["d30"] = {"type": "string"}
    with pytest.raises(ConfigError, match="apply to one value"):
        JSONSchemaValidator(one_property({"$ref": "#/$defs/d0"}) | {"$defs": defs})


def test_a_recursive_schema_works() -> None:
    """A reference that looks deeper into the value each time is what trees are made of."""
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "kids": {"type": "array", "items": {"$ref": "#"}}},
    }
    for schema in (tree, tree | {"$schema": "https://json-schema.org/draft/2020-12/schema"}):
        validator = JSONSchemaValidator(schema)
        assert validator.problems({"name": "a", "kids": [{"name": "b", "kids": []}]}) == ()
        (problem,) = validator.problems({"kids": [{"kids": [{"name": 1}]}]})
        assert problem.pointer == "/kids/0/kids/0/name"


def test_draft_7_is_honoured_when_the_schema_says_so() -> None:
    """A list of `items` is a tuple in draft-07, and an error in 2020-12."""
    pair = one_property({"items": [{"type": "string"}, {"type": "integer"}]})
    validator = JSONSchemaValidator(pair | {"$schema": "http://json-schema.org/draft-07/schema#"})
    assert validator.problems({"x": ["a", 1]}) == ()
    assert validator.problems({"x": [1, "a"]})
    with pytest.raises(ConfigError):
        JSONSchemaValidator(pair)


def test_the_schema_is_a_copy() -> None:
    """Changing the dict that a validator was made of changes nothing."""
    schema = one_property({"type": "string"})
    validator = JSONSchemaValidator(schema)
    schema["properties"]["x"]["type"] = "integer"
    assert validator.problems({"x": "text"}) == ()
    assert validator.schema["properties"]["x"] == {"type": "string"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_never_pass(value: float) -> None:
    """NaN passes `minimum` and `maximum` in the library, because every comparison with it is false."""
    for schema in (True, {"type": "number"}, {"type": "number", "minimum": 0, "maximum": 1}):
        (problem,) = problems_of(schema, value)
        assert problem.expected == "a finite number"
        assert JSONSchemaValidator({"type": "object"}).problems({"deep": [{"er": value}]})


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", (1, 2), object(), 10**5000, 1j], ids=type)
def test_what_is_no_json_value_is_refused_not_raised(value: object) -> None:
    """Python values that no JSON text can give don't reach the library, which would raise on them."""
    assert problems_of(True, value)
    assert problems_of({"multipleOf": 0.5, "minimum": 1}, value)


def test_arguments_nested_too_deep_are_refused() -> None:
    """A hundred thousand levels are refused by counting, not by recursion."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    (problem,) = JSONSchemaValidator({"type": "object"}).problems({"x": deep})
    assert problem.keyword == "depth"
    while deep:
        deep = deep.pop()


def test_what_is_no_object_is_a_problem_not_an_error() -> None:
    """A list or null in place of the arguments is answered like any other mistake."""
    values: list[object] = [[], None, "text", 3]
    for value in values:
        (problem,) = JSONSchemaValidator(TICKETS).problems(value)
        assert (problem.pointer, problem.expected) == ("", "object")


def test_unique_items_of_many_objects_take_no_time() -> None:
    """5,000 different objects: pair by pair that took 100 seconds."""
    rows = [{"id": number, "tags": [number]} for number in range(5_000)]
    assert problems_of({"type": "array", "uniqueItems": True}, rows) == ()
    (problem,) = problems_of({"type": "array", "uniqueItems": True}, [*rows, {"tags": [7.0], "id": 7}])
    assert problem.pointer == "/x/5000"
    assert problems_of({"uniqueItems": True}, [1, True, 0, False, "1", None]) == ()


def test_prices_are_multiples_of_a_cent() -> None:
    """19.99 is a multiple of 0.01 in decimal, though not in binary floating point."""
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
def test_formats_are_asserted(name: str, good: str, bad: str) -> None:
    """`format` is a check, not a remark, and only of strings."""
    assert problems_of({"format": name}, good) == ()
    assert problems_of({"format": name}, bad)
    assert problems_of({"format": name}, 5) == ()


@pytest.mark.parametrize("hostile", ["(" * 5_000, "a{99999999999999999999}", "[", "a" * 100_000], ids=len)
def test_a_format_that_raises_refuses(hostile: str) -> None:
    """`format: regex` compiles what the model wrote; whatever that raises, the answer is a problem or none."""
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
def test_has_required_is_whether_an_empty_object_would_do(schema: dict[str, Any], needs: bool) -> None:
    """It decides what an empty text of arguments means, so it must see what is behind `allOf`, too."""
    assert JSONSchemaValidator(schema).has_required is needs
