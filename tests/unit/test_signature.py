"""Signature: from a function to a JSON Schema, and from validated JSON to the function's arguments."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, Field

from midwatch import ToolContext
from midwatch.orchestration.errors import ConfigError
from midwatch.orchestration.tools.docstrings import read_docstring
from midwatch.orchestration.tools.signature import Signature

if TYPE_CHECKING:
    from collections import OrderedDict as OnlyForCheckers


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Filter(BaseModel):
    field: str
    title: str = "any"
    since: dt.date | None = None


@dataclass
class Address:
    street: str
    number: int


class Tree(TypedDict):
    name: str
    kids: list[Tree]


class Row(TypedDict):
    id: int
    name: str


def lowercase(text: str) -> str:
    if text != text.lower():
        raise ValueError("must be lower case")
    return text


def schema_of(function: Callable[..., Any], **descriptions: str) -> dict[str, Any]:
    return Signature.of(function, schema_given=False).schema(descriptions)


def test_plain_parameters() -> None:
    """Types, defaults and required properties come from the signature. The object is closed and has no titles."""

    def search(
        query: str, limit: int = 20, status: Literal["open", "closed"] = "open", tags: list[str] | None = None
    ) -> str:
        return ""

    assert schema_of(search, query="Words to look for.") == {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "Words to look for."},
            "limit": {"type": "integer", "default": 20},
            "status": {"type": "string", "enum": ["open", "closed"], "default": "open"},
            "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}], "default": None},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def test_constraints_and_descriptions_in_annotated() -> None:
    """`Field` gives both. A plain string is a description, too. Otherwise the docstring is used."""

    def read(
        path: Annotated[str, Field(pattern="^/", description="Absolute path.")],
        lines: Annotated[int, "How many."] = 10,
        start: Annotated[int, Field(ge=1)] = 1,
    ) -> str:
        return ""

    properties = schema_of(read, path="not used", start="First line.")["properties"]
    assert properties["path"] == {"type": "string", "pattern": "^/", "description": "Absolute path."}
    assert properties["lines"]["description"] == "How many."
    assert properties["start"] == {"type": "integer", "minimum": 1, "description": "First line.", "default": 1}


def test_models_share_definitions_and_keep_a_property_named_title() -> None:
    """Nested models go to `$defs`. Only pydantic's generated titles are dropped."""

    def search(where: Filter, unless: Filter | None = None, title: str = "x") -> str:
        return ""

    schema = schema_of(search)
    assert schema["properties"]["where"] == {"$ref": "#/$defs/Filter"}
    assert set(schema["$defs"]["Filter"]["properties"]) == {"field", "title", "since"}
    assert "title" not in schema["$defs"]["Filter"]
    assert schema["properties"]["title"] == {"type": "string", "default": "x"}


def test_parameter_names_that_pydantic_reserves_work() -> None:
    """`schema`, `json`, `copy` and a leading underscore are ordinary parameter names."""

    def save(schema: str, json: int, copy: bool = False, _private: str = "") -> str:
        return ""

    assert list(schema_of(save)["properties"]) == ["schema", "json", "copy", "_private"]


def test_a_default_outside_its_own_annotation_is_left_out() -> None:
    """`name: str = None` is allowed in Python, but a schema must not contradict itself."""

    def greet(name: str = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
        return ""

    assert schema_of(greet)["properties"]["name"] == {"type": "string"}


def test_the_context_is_never_in_the_schema() -> None:
    """The runtime fills in a parameter annotated ToolContext, at any position."""

    def send(to: str, context: ToolContext, body: str = "") -> str:
        return ""

    def maybe(to: str, body: str, context: ToolContext | None = None) -> str:
        return ""

    for function in (send, maybe):
        signature = Signature.of(function, schema_given=False)
        assert signature.takes_context == "context"
        assert list(signature.schema({})["properties"]) == ["to", "body"]


@pytest.mark.parametrize(
    ("annotation", "given", "becomes"),
    [
        (Colour, "red", Colour.RED),
        (Filter, {"field": "a", "since": "2026-11-24"}, Filter(field="a", since=dt.date(2026, 11, 24))),
        (Address, {"street": "High", "number": 3}, Address("High", 3)),
        (dt.datetime, "2026-11-24T10:00:00Z", dt.datetime(2026, 11, 24, 10, tzinfo=dt.UTC)),
        (list[dt.date], ["2026-11-24"], [dt.date(2026, 11, 24)]),
        (UUID, "123e4567-e89b-12d3-a456-426614174000", UUID("123e4567-e89b-12d3-a456-426614174000")),
        (Decimal, "1.10", Decimal("1.10")),
        (set[str], ["a"], {"a"}),
        (tuple[int, str], [1, "a"], (1, "a")),
        (Annotated[str, AfterValidator(lowercase)], "abc", "abc"),
        (Colour | None, None, None),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0],
)
def test_values_of_non_json_types_are_converted(annotation: Any, given: object, becomes: object) -> None:
    """The function gets models, dataclasses, enums, dates and similar types."""

    def take(x: Any) -> None: ...

    take.__annotations__["x"] = annotation
    values, problems = Signature.of(take, schema_given=False).convert({"x": given})
    assert problems == []
    assert values["x"] == becomes
    assert type(values["x"]) is type(becomes)


@pytest.mark.parametrize(
    "annotation",
    [str, int, float, bool, None, Any, object, dict, list, list[str], dict[str, int], Literal["a", 1], str | None, Row,
     Annotated[str, "words"], Annotated[int, Field(ge=1)], Annotated[str, Field(pattern="a")], list[Row], Tree],
    ids=lambda value: str(value).partition(" at 0x")[0],
)  # fmt: skip
def test_plain_json_is_passed_unchanged(annotation: Any) -> None:
    """There is no coercion and no copy: the function gets the object that was validated."""

    def take(x: Any) -> None: ...

    take.__annotations__["x"] = annotation
    given = {"x": [1, {"a": 2.0}]}
    values, problems = Signature.of(take, schema_given=False).convert(given)
    assert problems == []
    assert values["x"] is given["x"]


def test_a_failed_conversion_is_a_problem_with_its_place() -> None:
    """Conversion is strict: a string is not a number. The pointer leads into the model."""

    def take(where: Filter, colour: Colour, text: Annotated[str, AfterValidator(lowercase)]) -> None: ...

    _, problems = Signature.of(take, schema_given=False).convert(
        {"where": {"field": 1}, "colour": "green", "text": "ABC"}
    )
    assert [problem.pointer for problem in problems] == ["/where/field", "/colour", "/text"]
    assert "lower case" in problems[2].expected


def test_a_validator_that_raises_anything_is_a_problem() -> None:
    """The author's own validator may have a bug. The call is refused, and the worker goes on."""

    def broken(value: str) -> str:
        raise KeyError("bug")

    def take(x: Any) -> None: ...

    take.__annotations__["x"] = Annotated[str, AfterValidator(broken)]
    _, problems = Signature.of(take, schema_given=False).convert({"x": "a"})
    assert "KeyError" in problems[0].got


def _positional(a: str, /) -> None: ...
def _star(*words: str) -> None: ...
def _untyped(a) -> None: ...  # type: ignore[no-untyped-def]
def _open(**arguments: Any) -> None: ...
def _field_default(a: str = Field(description="x")) -> None: ...
def _checkers_only(a: OnlyForCheckers) -> None: ...  # type: ignore[type-arg]
def _two(a: ToolContext, b: ToolContext) -> None: ...
def _callback(a: Callable[[int], int]) -> None: ...
def _file(a: Annotated[Any, 1] = 0, *, b: type(open)) -> None: ...  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_positional, "can't be passed by name"),
        (_star, "can't be passed by name"),
        (_untyped, "has no type hint"),
        (_open, "give it a validator"),
        (_field_default, "Annotated[..., Field(...)]"),
        (_checkers_only, "not under TYPE_CHECKING"),
        (_two, "keep one"),
        (_callback, "parameter"),
        (_file, "no JSON value can be converted"),
    ],
)
def test_an_incomplete_signature_is_refused(function: Callable[..., Any], says: str) -> None:
    """The error comes at declaration, and says what to do."""
    with pytest.raises(ConfigError) as refused:
        schema_of(function)
    assert says in str(refused.value)


def test_with_a_schema_given_hints_are_optional() -> None:
    """An author who writes the schema need not annotate. A hint that can't be evaluated is then not an error."""
    assert list(Signature.of(_untyped, schema_given=True).parameters) == ["a"]
    assert list(Signature.of(_checkers_only, schema_given=True).parameters) == ["a"]
    assert Signature.of(_open, schema_given=True).takes_any


def test_methods_partials_and_callable_objects() -> None:
    """Any callable with named parameters can be a tool."""

    class Desk:
        def find(self, order: str) -> str:
            """Find an order."""
            return order

        def __call__(self, order: str) -> str:
            return order

    def both(a: str, b: int) -> str:
        return a

    assert list(schema_of(Desk().find)["properties"]) == ["order"]
    assert list(schema_of(Desk())["properties"]) == ["order"]
    assert schema_of(partial(both, b=1))["required"] == ["a"]


@pytest.mark.parametrize(
    "text",
    [
        """Book a berth
        in a harbour.

        Longer talk.

        Parameters
        ----------
        harbour : str
            Where, with
            its country.
        nights, days : int, optional
            How long.

        Returns
        -------
        str
            harbour : not an argument
        """,
        """Book a berth
        in a harbour.

        :param str harbour: Where, with
            its country.
        :param nights: How long.
        :type nights: int
        :param days: How long.
        :returns: harbour
        """,
        """Book a berth
        in a harbour.
        @param harbour: Where, with its country.
        @param nights: How long.
        @param days: How long.
        @return: harbour
        """,
        """Book a berth
        in a harbour.

        Arguments:
            harbour: Where, with
                its country.
            nights (int): How long.
            days (int, optional): How long.

        Raises:
            ValueError: harbour: unknown
        """,
    ],
    ids=["numpy", "sphinx", "epytext", "google"],
)
def test_a_docstring_of_each_usual_style_describes_the_parameters(text: str) -> None:
    """The styles of NumPy, Sphinx and Epytext were ignored, so the model did not learn what a parameter means."""
    found = read_docstring(text)
    assert found.summary == "Book a berth in a harbour."
    assert found.parameters == {"harbour": "Where, with its country.", "nights": "How long.", "days": "How long."}


@pytest.mark.parametrize(
    "text", ["", ":param", "Args:", "Parameters\n---", "A.\n\n:param x", "@param :", "Args:\n\n\n  x"]
)
def test_an_odd_docstring_is_never_an_error(text: str) -> None:
    """What can't be read is ignored."""
    assert read_docstring(text).parameters == {}


def test_google_style_docstrings() -> None:
    """The first paragraph and the `Args:` entries are read, with continuation lines. Later sections are not entries."""
    found = read_docstring("""Look up an order
    by its number.

    Longer talk: not part of the summary.

    Args:
        order (str): The number,
            with its letter.
        **rest: Ignored.
        quiet:

    Returns:
        order: not an argument
    """)
    assert found.summary == "Look up an order by its number."
    assert found.parameters == {"order": "The number, with its letter.", "rest": "Ignored."}
    assert read_docstring(None).summary == ""
