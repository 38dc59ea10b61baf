"""Describe problems of a tool's arguments for a model: where, what was expected, and what was given."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from jsonschema import ValidationError

from midwatch.schemas.contract import JsonObject

MAX_PROBLEMS = 10
MAX_SHOWN_CHARS = 200
MAX_NAME_CHARS = 80
MAX_LIST_CHARS = 300
MAX_HINTS = 100
"""Most names that are compared for "did you mean"."""
MAX_CHOICES = MAX_LIST_CHARS
"""Most choices that can be listed, since each takes at least one character."""


@dataclass(frozen=True, order=True)
class Problem:
    """One problem. `pointer` is a JSON pointer into the arguments; it is empty for the arguments as a whole."""

    pointer: str
    expected: str
    got: str
    keyword: str
    """The keyword of the schema that refused the value, such as `enum`."""

    def __str__(self) -> str:
        return f"{self.pointer or 'the arguments'}: expected {self.expected}; got {self.got}"


def explain(problems: Iterable[Problem], schema: JsonObject) -> str:
    """The message to the model: one line for each problem, then the properties of the schema."""
    lines = [str(problem) for problem in problems]
    if len(lines) >= MAX_PROBLEMS:
        lines.append(f"Only the first {MAX_PROBLEMS} problems are listed.")
    return "\n".join([*lines, properties_line(schema)])


def properties_line(schema: JsonObject) -> str:
    """The properties of a schema, in one line of limited length."""
    known = schema.get("properties", {})
    required = [name for name in schema.get("required", ()) if isinstance(name, str)]
    optional = [name for name in known if name not in required]
    if not required and not optional:
        return "The input is an object."
    words = [
        f"{label}: " + _join([f"{name} ({describe(known.get(name, True))})" for name in names])
        for label, names in (("Required", required), ("Optional", optional))
        if names
    ]
    return ". ".join(words) + "."


def show(value: object) -> str:
    """A value as JSON, cut at 200 characters. Only the shown part is encoded."""
    shown = ""
    try:
        for chunk in _ENCODER.iterencode(value):
            shown += chunk[: MAX_SHOWN_CHARS + 1]
            if len(shown) > MAX_SHOWN_CHARS:
                break
    except (ValueError, RecursionError):
        return f"a value that can't be shown ({type(value).__name__})"
    return shown if len(shown) <= MAX_SHOWN_CHARS else shown[: MAX_SHOWN_CHARS - 1] + "…"


_ENCODER = json.JSONEncoder(default=lambda value: f"<{type(value).__name__}>", skipkeys=True)


def pointer(path: Iterable[object]) -> str:
    """A JSON pointer (RFC 6901). Long names are cut."""
    return "".join("/" + str(step)[:MAX_NAME_CHARS].replace("~", "~0").replace("/", "~1") for step in path)


def describe(schema: object) -> str:
    """Describe a schema in a few words: its type or its choices."""
    if not isinstance(schema, dict):
        return "nothing" if schema is False else "any value"
    if "const" in schema:
        return show(schema["const"])
    if isinstance(schema.get("enum"), list):
        return "one of " + _join([show(choice) for choice in schema["enum"][:MAX_CHOICES]], of=len(schema["enum"]))
    kind = schema.get("type")
    if isinstance(kind, str):
        return kind
    if isinstance(kind, list):
        return " or ".join(map(str, kind))
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            return _join(list(dict.fromkeys(describe(branch) for branch in schema[keyword])), " or ")
    return str(schema["$ref"]).rpartition("/")[2] if "$ref" in schema else "any value"


def from_error(error: ValidationError) -> Iterator[Problem]:
    """Turn an error of the library into problems: one for each missing or unknown property."""
    where = pointer(error.absolute_path)
    keyword = str(error.validator)
    if keyword == "required":
        yield from _missing(where, error)
    elif keyword in ("additionalProperties", "unevaluatedProperties") and isinstance(error.instance, dict):
        yield from _unknown(where, error)
    elif keyword in ("anyOf", "oneOf"):
        yield from _alternatives(where, keyword, error)
    else:
        words = _EXPECTED.get(keyword)
        expected = words(error.validator_value) if words else f"a value that satisfies {keyword}"
        if keyword == "enum":
            expected += _near(error.instance, error.validator_value)
        yield Problem(where, expected, show(error.instance), keyword)


def _missing(where: str, error: ValidationError) -> Iterator[Problem]:
    wanted = error.schema.get("properties", {}) if isinstance(error.schema, Mapping) else {}
    names: Any = error.validator_value
    name = next((name for name in names if error.message.startswith(repr(name))), None)
    if name is None:
        yield Problem(where, "its required properties", show(error.instance), "required")
        return
    yield Problem(
        f"{where}{pointer([name])}", f"{describe(wanted.get(name, True))} (it is required)", "nothing", "required"
    )


def _unknown(where: str, error: ValidationError) -> Iterator[Problem]:
    schema: Any = error.schema if isinstance(error.schema, Mapping) else {}
    known = list(schema.get("properties", {}))
    came: Any = error.instance
    extras: Iterable[str] = getattr(error, "names", ())
    for name in islice(extras, MAX_PROBLEMS):
        close = _close(name, known)
        hint = f", did you mean {show(close[0])}?" if close else (f", known are {_join(known)}" if known else "")
        yield Problem(
            f"{where}{pointer([name])}",
            f"no such property{hint}",
            show(came[name]),
            str(error.validator),
        )


def _alternatives(where: str, keyword: str, error: ValidationError) -> Iterator[Problem]:
    """Explain a failed `anyOf` or `oneOf`. If only one alternative has the value's type, show its problems; else list all."""
    branches: dict[object, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0] if inner.schema_path else None, []).append(inner)
    meant = [found for found in branches.values() if not any(one.validator == "type" and not one.path for one in found)]
    if len(meant) == 1 and keyword in ("anyOf", "oneOf"):
        for inner in meant[0]:
            yield from from_error(inner)
        return
    marked = _find_tag_problem(meant)
    if marked is not None:
        yield marked
        return
    one_only = " (just one of them)" if keyword == "oneOf" and not branches else ""
    yield Problem(where, describe({keyword: error.validator_value}) + one_only, show(error.instance), keyword)


def _find_tag_problem(meant: list[list[ValidationError]]) -> Problem | None:
    """The problem of a property that selects the alternative (`"kind": {"const": ...}`), if its value selects none."""
    marks = [{tuple(one.absolute_path): one for one in found if one.validator in ("const", "enum")} for found in meant]
    shared = set.intersection(*map(set, marks)) if marks else set()
    if not shared:
        return None
    place = min(shared, key=len)
    wrong = [found[place] for found in marks]
    choices: list[Any] = []
    for one in wrong:
        wanted: Any = one.validator_value
        choices += wanted if one.validator == "enum" else [wanted]
    return Problem(pointer(place), describe({"enum": choices}), show(wrong[0].instance), "enum")


def _near(value: object, choices: object) -> str:
    words = [choice for choice in choices if isinstance(choice, str)] if isinstance(choices, list) else []
    if not isinstance(value, str):
        return ""
    lower = {word.lower(): word for word in words[:MAX_HINTS]}
    close = _close(value.strip().lower(), list(lower))
    return f" (did you mean {show(lower[close[0]])}?)" if close else ""


def _close(name: str, known: list[str]) -> list[str]:
    """Find the nearest name among the first hundred, since comparing takes quadratic time."""
    return difflib.get_close_matches(name, known[:MAX_HINTS], 1) if len(name) <= MAX_NAME_CHARS else []


def _join(words: list[str], between: str = ", ", of: int = 0) -> str:
    """Join as many words as fit into 300 characters, then say how many remain. `of` is the count of all, if it is higher."""
    kept: list[str] = []
    for word in words:
        if kept and sum(map(len, kept)) + len(word) > MAX_LIST_CHARS:
            break
        kept.append(word)
    left = max(len(words), of) - len(kept)
    return between.join(kept) + (f" and {left} more" if left else "")


_EXPECTED: dict[str, Callable[[Any], str]] = {
    "type": lambda value: describe({"type": value}),
    "enum": lambda value: describe({"enum": value}),
    "const": lambda value: describe({"const": value}),
    "minimum": lambda value: f"at least {value}",
    "maximum": lambda value: f"at most {value}",
    "exclusiveMinimum": lambda value: f"more than {value}",
    "exclusiveMaximum": lambda value: f"less than {value}",
    "multipleOf": lambda value: f"a multiple of {value}",
    "minLength": lambda value: f"at least {value} characters",
    "maxLength": lambda value: f"at most {value} characters",
    "pattern": lambda value: f"text that matches {show(value)}",
    "format": lambda value: f"text in the format {value}",
    "minItems": lambda value: f"at least {value} items",
    "maxItems": lambda value: f"at most {value} items",
    "uniqueItems": lambda value: "an item that is not there already",
    "minProperties": lambda value: f"at least {value} properties",
    "maxProperties": lambda value: f"at most {value} properties",
    "not": lambda value: "a value that the schema's `not` does not describe",
    "None": lambda value: "nothing here",
}
