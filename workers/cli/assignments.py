"""The `KEY=VALUE` arguments of `midwatch gate set`: parse them, and list what they change."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from midwatch.schemas.limits import Limits

HINT = "KEY=VALUE..."
SUFFIXES = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000}
WORDS: Mapping[str, object] = {"true": True, "false": False, "none": None}
NONE_IS_A_VALUE = ("reserve_output",)
"""Fields for which `none` is one of the values. For other fields `none` means the default."""


def parse_changes(assignments: Sequence[str], before: Limits, default: Limits) -> dict[str, Any]:
    """Return the fields to set. `none` sets a field to its value in `default`.

    Raises:
        click.BadParameter: there is no such limit, or a value is out of range.

    """
    changed: dict[str, Any] = {}
    for assignment in assignments:
        typed, equals, text = assignment.partition("=")
        if not equals:
            raise _bad(f"{assignment!r}: expected KEY=VALUE, such as rpm=50")
        key, dot, part = typed.strip().partition(".")
        field = _field(key)
        value = text.strip() if field in NONE_IS_A_VALUE else _parse_value(text.strip())
        current, default_value = changed.get(field, getattr(before, field)), getattr(default, field)
        if isinstance(current, dict):
            changed[field] = _set_weight(f"{key}{dot}{part}", current, default_value, part, value)
        elif dot:
            raise _bad(f"{typed!r}: {field} is one value; expected {field}=VALUE")
        else:
            changed[field] = default_value if value is None else value
    _check(before, changed)
    return changed


def list_differences(before: Limits, after: Limits) -> list[str]:
    """Return one line for each changed field."""
    return [
        f"{field} {format_value(old)} -> {format_value(new)}"
        for field in type(after).model_fields
        if (old := getattr(before, field)) != (new := getattr(after, field))
    ]


def format_value(value: object) -> str:
    """Format a limit's value for a person."""
    if isinstance(value, Mapping):
        return ", ".join(f"{part} {weight:g}" for part, weight in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def field_names() -> dict[str, str]:
    """Return allowed key -> field: the names of all fields, and the short names of the rates."""
    from pydantic import AliasChoices

    from midwatch.schemas.limits import Limits

    known = {}
    for field, info in Limits.model_fields.items():
        choices = info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else [field]
        known.update({str(choice): field for choice in choices})
    return known


def _field(key: str) -> str:
    known = field_names()
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, 1)
    raise _bad(f"no limit {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"limits are: {', '.join(known)}"))


def _parse_value(text: str) -> object:
    if text in WORDS:
        return WORDS[text]
    number = re.fullmatch(r"(-?\d[\d_]*(?:\.\d+)?)([kKM]?)", text)
    return float(number[1]) * SUFFIXES[number[2]] if number else text


def _set_weight(
    typed: str, current: dict[Any, float], default: dict[Any, float], part: str, value: object
) -> dict[Any, Any]:
    """Return the weights with one of them changed. `none` sets the default, or removes a weight without a default."""
    if not part:
        if value is None:
            return default
        raise _bad(f"{typed}: there are several weights; expected {typed}.NAME=NUMBER")
    value = default.get(part) if value is None else value
    if value is None:
        return {name: weight for name, weight in current.items() if name != part}
    return {**current, part: value}


def _check(before: Limits, changed: dict[str, Any]) -> None:
    """Raise if a value is out of range. The message uses the names that the user typed."""
    from pydantic import ValidationError

    from midwatch.schemas.limits import Limits

    try:
        Limits.model_validate({**before.model_dump(), **changed})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        message = re.sub(r"^(Input|Value error,) ", "", problem["msg"])
        got = f", got {problem['input']!r}" if where else ""
        raise _bad(f"{where}: {message}{got}" if where else message) from None


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=HINT)
