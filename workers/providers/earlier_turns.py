"""Writes parts of earlier turns so that any vendor accepts them, even if another vendor's model produced them."""

from __future__ import annotations

import functools
import json
import re
from typing import NoReturn

from midwatch.schemas.contract import JsonObject
from midwatch.schemas.message import NoteMessage, ToolMessage, UserMessage

EARLIER_TURNS = "<reminder>Earlier turns are not shown.</reminder>"
"""Put in front of a window that starts with a model turn, because some vendors want a user message first."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")


@functools.lru_cache(maxsize=1_024)
def make_portable_name(name: str) -> str:
    """Make a tool name that every vendor accepts. Models also invent names (`functions.search`, or an empty one)."""
    return _NOT_IN_NAMES.sub("_", name)[:64] or "unnamed"


def parse_arguments(raw_arguments: str) -> JsonObject | None:
    """Parse the arguments of an earlier call. None if they are no JSON object; the call's result is then an error."""
    try:
        value = json.loads(raw_arguments, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def render_result(result: ToolMessage) -> str:
    """Return the text of a result. An error is marked in the text, for vendors that have no field for it."""
    return f"ERROR: {result.content}" if result.is_error else result.content


def render_input(message: UserMessage | NoteMessage) -> str:
    """Return the text of a message, for vendors without notes: a note is marked, so it does not look like the user's."""
    return f"<reminder>{message.text}</reminder>" if isinstance(message, NoteMessage) else message.text


def _refuse(name: str) -> NoReturn:
    """Refuse NaN and Infinity, because no vendor accepts them."""
    raise ValueError(name)
