"""Parses the text in which faults are given on a command line: `rate_limited=0.05,reset@3,hang@turn2,seed=7`."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from midwatch.schemas.contract import JsonObject


def parse_pairs(text: str) -> JsonObject:
    """Parse the fields of a chaos string. Raises ValueError for an item that has none of the three forms."""
    fields: JsonObject = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if equals:
            fields[name.strip()] = value.strip()
            continue
        name, at, place = item.partition("@")
        turn = place.removeprefix("turn")
        if not (at and turn.isdecimal()):
            raise ValueError(f"expected name=value, fault@3 or fault@turn2, got {item!r}")
        if place == turn:
            fields.setdefault("at_request", {})[int(turn)] = name
        else:
            fields.setdefault("at_turn", {}).setdefault(int(turn), []).append(name)
    return fields


def suggest(name: str, known: Collection[str]) -> str:
    """Suggest a known field for an unknown one."""
    if name in known or "." in name or not name:
        return ""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known)}"
