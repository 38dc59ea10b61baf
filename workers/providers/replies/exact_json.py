"""Keeps what Python's JSON parser would lose: numbers that no float can hold, and names that one object gives twice.

Such a value is rare, and it is almost always in a field that is not used. So it must not spoil the whole reply. If it
is in the arguments of a tool call, the arguments are written as they came. The toolbox then refuses that one call, and
tells the model why.
"""

from __future__ import annotations

import json
import math
from typing import Any

MAX_DIGITS = 300
"""An integer of at most this many digits is read exactly. A longer one may exceed a float, and Python refuses 4,300
digits."""


class OddNumber(float):
    """A number that is not finite as a float: NaN, Infinity, 1e400, or an integer of 5,000 digits."""

    text: str
    """The number as the reply has it."""

    def __new__(cls, text: str) -> OddNumber:
        """Keep the text. The float is NaN or infinite."""
        number = super().__new__(cls, text)
        number.text = text
        return number


class RepeatedNames(dict[str, Any]):
    """An object that gives a name more than once. As a dict, it has the last value of each name."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def read_integer(digits: str) -> int | OddNumber:
    """Read an integer of any length."""
    return int(digits) if len(digits) <= MAX_DIGITS else OddNumber(digits)


def read_float(digits: str) -> float:
    """Read a number with a fraction or an exponent."""
    number = float(digits)
    return number if math.isfinite(number) else OddNumber(digits)


def read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Read an object."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedNames(pairs)


def write_exactly(value: object) -> str:
    """Write a value as compact JSON. Odd numbers and repeated names are written as in the reply."""
    return _dump(value) if _is_plain(value) else _write(value)


def _is_plain(value: object) -> bool:
    """Is there neither an odd number nor a repeated name in the value? Almost always; then the fast writer is used."""
    if isinstance(value, dict):
        return type(value) is dict and all(map(_is_plain, value.values()))
    return all(map(_is_plain, value)) if isinstance(value, list) else not isinstance(value, OddNumber)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _write(value: object) -> str:
    if isinstance(value, OddNumber):
        return value.text
    if isinstance(value, dict):
        pairs = value.pairs if isinstance(value, RepeatedNames) else value.items()
        return "{" + ",".join(f"{_dump(name)}:{_write(inner)}" for name, inner in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_write, value)) + "]"
    return _dump(value)


def to_plain_json(value: Any) -> Any:
    """Replace odd numbers by null, because no store and no vendor accepts them. Repeated names keep the last value."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [to_plain_json(inner) for inner in value]
    if isinstance(value, dict):
        return {name: to_plain_json(inner) for name, inner in value.items()}
    return value
