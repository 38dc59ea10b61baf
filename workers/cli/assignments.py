"""`KEY=VALUE` of `midwatch gate set`: read into changes of limits, and changes of limits told in one line each."""

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
SAY_NONE = ("reserve_output",)
"""Fields in which `none` is a value of its own."""


def changes(assignments: Sequence[str], before: Limits, default: Limits) -> dict[str, Any]:
    """The fields to set. `default` is what `none` goes back to.

    Raises:
        click.BadParameter: no such limit, or a value out of its range.

    """
    changed: dict[str, Any] = {}
    for assignment in assignments:
        typed, equals, text = assignment.partition("=")
        if not equals:
            raise _bad(f"{assignment!r}: expected KEY=VALUE, such as rpm=50")
        key, dot, part = typed.strip().partition(".")
        field = _field(key)
        value = text.strip() if field in SAY_NONE else _value(text.strip())
        now, usual = changed.get(field, getattr(before, field)), getattr(default, field)
        if isinstance(now, dict):
            changed[field] = _weights(f"{key}{dot}{part}", now, usual, part, value)
        elif dot:
            raise _bad(f"{typed!r}: {field} is one value; expected {field}=VALUE")
        else:
            changed[field] = usual if value is None else value
    _check(before, changed)
    return changed


def differences(before: Limits, after: Limits) -> list[str]:
    """What changed, a line for each field."""
    return [
        f"{field} {shown(old)} -> {shown(new)}"
        for field in type(after).model_fields
        if (old := getattr(before, field)) != (new := getattr(after, field))
    ]


def shown(value: object) -> str:
    """A limit's value, as it could be typed."""
    if isinstance(value, Mapping):
        return ", ".join(f"{part} {weight:g}" for part, weight in value.items()) or "none"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def names() -> dict[str, str]:
    """What may be typed -> field: every field, and the short names of the rates."""
    from pydantic import AliasChoices

    from midwatch.schemas.limits import Limits

    known = {}
    for field, info in Limits.model_fields.items():
        choices = info.validation_alias.choices if isinstance(info.validation_alias, AliasChoices) else [field]
        known.update({str(choice): field for choice in choices})
    return known


def _field(key: str) -> str:
    known = names()
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, 1)
    raise _bad(f"no limit {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"limits are: {', '.join(known)}"))


def _value(text: str) -> object:
    if text in WORDS:
        return WORDS[text]
    number = re.fullmatch(r"(-?\d[\d_]*(?:\.\d+)?)([kKM]?)", text)
    return float(number[1]) * SUFFIXES[number[2]] if number else text


def _weights(typed: str, now: dict[Any, float], usual: dict[Any, float], part: str, value: object) -> dict[Any, Any]:
    """Weights with one of them changed; `none` takes it back to the default, or away."""
    if not part:
        if value is None:
            return usual
        raise _bad(f"{typed}: there are several; expected {typed}.NAME=NUMBER")
    value = usual.get(part) if value is None else value
    if value is None:
        return {name: weight for name, weight in now.items() if name != part}
    return {**now, part: value}


def _check(before: Limits, changed: dict[str, Any]) -> None:
    """Refuse what is out of range, in the words that were typed."""
    from pydantic import ValidationError

    from midwatch.schemas.limits import Limits

    try:
        Limits.model_validate({**before.model_dump(), **changed})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        said = re.sub(r"^(Input|Value error,) ", "", problem["msg"])
        got = f", got {problem['input']!r}" if where else ""
        raise _bad(f"{where}: {said}{got}" if where else said) from None


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint=HINT)
